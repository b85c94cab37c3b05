//! Writes, their conditions, and why a key is not read or written.

use shoal_core::{
    Address,
    ring::{Stamp, Version},
};

use crate::{
    replication::primary::NotServing,
    storage::{Key, Record, StoreError, Value},
    time::unix_ms,
};

/// The condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// None.
    None,
    /// The key has no value.
    Absent,
    /// The key has this version.
    Version(Version),
}

impl Condition {
    /// Whether it holds for the present record.
    pub(super) fn check(self, present: Option<&Record>) -> Result<(), KvError> {
        let live = present.filter(|record| record.is_live(unix_ms()));
        let version = live.map(|record| record.stamp.version);
        let holds = match self {
            Self::None => true,
            Self::Absent => version.is_none(),
            Self::Version(expected) => version == Some(expected),
        };
        if holds { Ok(()) } else { Err(KvError::Condition(version)) }
    }
}

/// A write to be executed.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: Key,
    /// None removes the key.
    pub(crate) value: Option<Value>,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) condition: Condition,
    /// The write fails with fewer durable copies than this, if it is more than a majority.
    pub(crate) min_copies: usize,
}

/// A write that was executed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) version: Version,
    pub(crate) durable_copies: usize,
}

/// Why a key was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KvError {
    /// Nothing happened.
    #[error("{}", match .0 {
        NotServing::Primary(_) => "another node is the primary of the key",
        NotServing::NoPrimary => "this node is not the primary of the key",
        NotServing::Sealed => "the key changes hands",
        NotServing::NoLease => "too few replicas of the key are heard from",
    })]
    NotServing(NotServing),
    /// Nothing happened: the condition does not hold.
    #[error("the key {}", .0.map_or("has no value".to_owned(), |v| format!("has version {v}")))]
    Condition(Option<Version>),
    /// Nothing happened.
    #[error("{got} of the {needed} replicas needed can be reached")]
    TooFewCopies { got: usize, needed: usize },
    /// Nothing happened, and nothing will.
    #[error("the write came too late, or the clocks of two nodes differ")]
    TooLate,
    /// Nothing happened: there are not so many replicas.
    #[error("the key has {0} replicas; ask for no more copies")]
    TooManyCopies(usize),
    /// Nothing happened: an earlier write of the key is still indeterminate.
    #[error("an earlier write of the key still has an unknown outcome: {0}")]
    EarlierUnresolved(String),
    /// Nothing happened: a replica has used up its quota.
    #[error("ring node {node} has reached its {limit}; remove keys, raise the limit, or add nodes")]
    Full { limit: &'static str, node: Address },
    /// Nothing happened: there is no memory to track one more write whose outcome might stay
    /// unknown.
    #[error("too many writes have an unknown outcome, because their replicas do not answer")]
    TooManyIndeterminate,
    /// The write may have happened, or may still happen.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Write {
    /// Bytes of its key and value.
    pub(super) fn size(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| value.as_bytes().len());
        self.key.as_bytes().len() + value
    }

    pub(super) fn record(&self, version: Version) -> Record {
        let Self { key, value, expires_ms, .. } = self.clone();
        Record { key, stamp: Stamp::of(version), value, expires_ms }
    }
}
