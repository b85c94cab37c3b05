//! What can be typed after `shoal dht` and `shoal name`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use shoal_common::{Address, units::duration};
use shoal_core::content::{ContentId, Name};

/// Which ring is asked.
#[derive(Args, Debug)]
pub(crate) struct RingArgs {
    /// Node of the ring to ask; of several, the first that answers
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

/// Give contents names that the ring keeps
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal name set llama-3 ID --dht ring:7071
  shoal name get llama-3 --dht ring:7071              prints the id
  shoal get llama-3 --dht ring:7071                   fetches it

A name has 1 to 128 letters, digits and any of -_./:@+")]
pub(crate) struct NameArgs {
    #[command(subcommand)]
    pub(crate) command: NameCommand,

    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NameCommand {
    /// Let a name stand for a content, whatever it stood for before
    Set {
        /// The name, such as llama-3
        name: Name,
        /// What it is to stand for
        id: ContentId,
    },
    /// Print the id that a name stands for
    Get {
        /// The name
        name: Name,
    },
    /// Let a name stand for nothing
    Rm {
        /// The name
        name: Name,
    },
}

/// Keep small values in the ring, and look into it
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal dht put greeting hello                 on the node of this machine
  shoal dht get greeting --dht ring:7071       prints hello, and nothing else
  shoal dht lookup greeting                    the nodes that are asked for it, one after the other
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

/// Set the value of a key; tells how many copies are durable
///
/// Succeeds only when the ring has acknowledged it: a majority of the nodes that keep the key have it
/// on disk.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal dht put greeting hello --ttl 1h
  shoal dht put model.json - < model.json
  shoal dht put leader me --if-absent            fails if somebody else was first")]
pub(crate) struct DhtPutArgs {
    /// 1 to 256 bytes
    pub(crate) key: String,

    /// At most 64 KiB; - reads it from stdin
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,

    /// Forget it after so long (30s, 10m, 1h)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,

    /// Only if the key has no value
    #[arg(long, conflicts_with = "if_version")]
    pub(crate) if_absent: bool,

    /// Only if the key's value has this version, which put and get tell
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<String>,
}

/// Print the value of a key, and nothing else; exit status 1 if it has none
#[derive(Args, Debug)]
pub(crate) struct DhtGetArgs {
    /// The key
    pub(crate) key: String,

    /// Tell on stderr which version it is, for --if-version
    #[arg(long)]
    pub(crate) version: bool,
}

/// Remove a key; one that is not there is removed all the same
#[derive(Args, Debug)]
pub(crate) struct DhtRmArgs {
    /// The key
    pub(crate) key: String,

    /// Only if the key's value has this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<String>,
}

/// Print the way to the node that a key belongs to
#[derive(Args, Debug)]
pub(crate) struct DhtLookupArgs {
    /// The key
    pub(crate) key: String,
}

/// Draw the ring: positions, successors, keys, and the fingers of one node
#[derive(Args, Debug)]
pub(crate) struct DhtRingArgs {
    /// Whose fingers are drawn: a number of the table, or HOST:PORT [default: the node asked]
    #[arg(long, value_name = "NODE")]
    pub(crate) fingers_of: Option<String>,
}
