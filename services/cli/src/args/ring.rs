//! The command lines of `shoal dht` and `shoal name`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use shoal_common::units::duration;
use shoal_core::{
    Address,
    content::{ContentId, Name},
};

/// The ring to ask.
#[derive(Args, Debug)]
pub(crate) struct RingArgs {
    /// Ring node to ask; of several, the first that answers is used
    #[arg(
        long = "dht",
        value_name = "HOST:PORT",
        env = "SHOAL_DHT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7071",
        value_hint = ValueHint::Hostname,
        global = true
    )]
    pub(crate) nodes: Vec<Address>,
}

/// Give names to contents; the ring stores them
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal name set llama-3 ID --dht ring:7071
  shoal name get llama-3 --dht ring:7071              prints the id
  shoal get llama-3 --dht ring:7071                   fetches it

A name has 1 to 128 characters: letters, digits and -_./:@+")]
pub(crate) struct NameArgs {
    #[command(subcommand)]
    pub(crate) command: NameCommand,

    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NameCommand {
    /// Set or replace the content of a name
    Set {
        /// The name, such as llama-3
        name: Name,
        /// The id of the content
        id: ContentId,
    },
    /// Print the id of a name's content
    Get {
        /// The name
        name: Name,
    },
    /// Remove a name
    Rm {
        /// The name
        name: Name,
    },
}

/// Store small values in the ring, and inspect the ring
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal dht put greeting hello                 through the node of this machine
  shoal dht get greeting --dht ring:7071       prints hello, and nothing else
  shoal dht lookup greeting                    the nodes on the way to its owner
  shoal dht ring                               draws the ring")]
pub(crate) struct DhtArgs {
    #[command(subcommand)]
    pub(crate) command: DhtCommand,

    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DhtCommand {
    Put(DhtPutArgs),
    Get(DhtGetArgs),
    Rm(DhtRmArgs),
    Lookup(DhtLookupArgs),
    Ring(DhtRingArgs),
}

/// Set the value of a key, and print how many copies are durable
///
/// Succeeds only when the ring has acknowledged the write: a majority of the nodes that keep the
/// key have it on disk.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal dht put greeting hello --ttl 1h
  shoal dht put model.json - < model.json
  shoal dht put leader me --if-absent            fails if the key has a value")]
pub(crate) struct DhtPutArgs {
    /// The key: 1 to 256 bytes
    pub(crate) key: String,

    /// The value: at most 64 KiB; - reads it from stdin
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,

    /// Time until the value expires (30s, 10m, 1h)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,

    /// Write only if the key has no value
    #[arg(long, conflicts_with = "if_version")]
    pub(crate) if_absent: bool,

    /// Write only if the key's value has this version, as printed by put and by get --version
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<String>,
}

/// Print the value of a key, and nothing else; exit status 1 if it has none
#[derive(Args, Debug)]
pub(crate) struct DhtGetArgs {
    /// The key
    pub(crate) key: String,

    /// Print the value's version on stderr, for --if-version
    #[arg(long)]
    pub(crate) version: bool,
}

/// Remove a key; succeeds also if the key does not exist
#[derive(Args, Debug)]
pub(crate) struct DhtRmArgs {
    /// The key
    pub(crate) key: String,

    /// Remove only if the key's value has this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<String>,
}

/// Look up the owner of a key, and print the nodes on the way to it
#[derive(Args, Debug)]
pub(crate) struct DhtLookupArgs {
    /// The key
    pub(crate) key: String,
}

/// Draw the ring: positions, successors, keys, and the fingers of one node
#[derive(Args, Debug)]
pub(crate) struct DhtRingArgs {
    /// Node to draw the fingers of: its number in the table, or HOST:PORT [default: the node asked]
    #[arg(long, value_name = "NODE")]
    pub(crate) fingers_of: Option<String>,
}
