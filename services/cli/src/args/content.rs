//! Arguments of the commands that hash files.

use std::ffi::OsString;

use clap::{Args, ValueEnum};
use shoal_common::units::ByteSize;
use shoal_core::content::{LayoutError, PieceLength};
use shoal_peer::store::{HashOptions, Links};

/// What of files and directories becomes part of a content.
#[derive(Args, Clone, Debug)]
pub(crate) struct ContentArgs {
    /// What to do with symbolic links that lead out of the directory; others are kept as links
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub(crate) links: LinkPolicy,

    /// Keep all mode bits and the times of modification, which makes another id of them
    #[arg(long)]
    pub(crate) preserve: bool,

    /// Name of the content, a part of its id [default: the name of the file or directory]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<OsString>,

    /// Piece length: a power of two from 64KiB to 16MiB [default: chosen by the content's size]
    #[arg(long, value_name = "SIZE")]
    pub(crate) piece_length: Option<ByteSize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LinkPolicy {
    /// Publish what they lead to in their place
    #[default]
    Follow,
    /// Leave them out
    Skip,
    /// Fail, and name them
    Refuse,
}

impl ContentArgs {
    pub(crate) fn hash_options(&self) -> Result<HashOptions, LayoutError> {
        let piece_length = self.piece_length.map(|length| PieceLength::new(length.bytes()));
        Ok(HashOptions {
            piece_length: piece_length.transpose()?,
            links: match self.links {
                LinkPolicy::Follow => Links::Follow,
                LinkPolicy::Skip => Links::Skip,
                LinkPolicy::Refuse => Links::Refuse,
            },
            preserve: self.preserve,
            name: self.name.clone().map(OsString::into_encoded_bytes),
        })
    }
}
