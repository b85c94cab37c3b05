//! The entry of one node, and hashes of many entries.

use std::io::Write as _;

use crate::ring::{Contact, Position};

/// Whether a node is there. Of two reports with the same incarnation the later variant wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    /// It is alive.
    Alive,
    /// It stopped answering.
    Dead,
    /// It left after handing over. This outlasts a report of its death, which follows soon after
    /// any departure.
    Left,
}

/// A report about one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The node.
    pub contact: Contact,
    /// The node's own counter: only the node itself raises it, to refute a wrong report.
    pub incarnation: u64,
    /// Whether it is there.
    pub life: Life,
}

impl Entry {
    /// This report replaces another of the same position: it has a later incarnation, or the same
    /// and a worse state (Das et al., "SWIM", 2002).
    ///
    /// The contact decides last: two different ones have no meaningful order, but all nodes must
    /// end up with the same.
    pub fn supersedes(&self, other: &Self) -> bool {
        let rank = |entry: &Self| (entry.incarnation, entry.life);
        (rank(self), &self.contact) > (rank(other), &other.contact)
    }

    /// Differs, with near certainty, between any two reports.
    fn hash(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.contact.position.to_u128().to_be_bytes());
        hasher.update(self.contact.id.as_bytes());
        hasher.update(&self.incarnation.to_be_bytes());
        hasher.update(&[self.life as u8]);
        write!(hasher, "{}", self.contact.address).expect("a hasher takes all that is written");
        let hash = hasher.finalize();
        let first = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
        u64::from_be_bytes(*first)
    }
}

/// A hash of all entries in each 64th of the circle: two memberships that agree have the same
/// hashes, and otherwise the hashes show which parts differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(Box<[u64; Digest::BUCKETS]>);

impl Digest {
    /// Parts of the circle. With 10,000 nodes each has 156: repairing a difference takes one
    /// message.
    pub const BUCKETS: usize = 64;

    /// As received from another node.
    pub fn new(hashes: [u64; Self::BUCKETS]) -> Self {
        Self(Box::new(hashes))
    }

    /// Its hashes, in the order of positions.
    pub const fn hashes(&self) -> &[u64; Self::BUCKETS] {
        &self.0
    }

    /// Of an empty membership.
    pub(super) fn empty() -> Self {
        Self::new([0; Self::BUCKETS])
    }

    /// Adds an entry that is not included, or removes one that is.
    pub(super) fn toggle(&mut self, entry: &Entry) {
        self.0[bucket_of(entry.contact.position)] ^= entry.hash();
    }

    /// The first and last position of each part in which the two differ.
    pub(super) fn differing(&self, other: &Self) -> Vec<(Position, Position)> {
        let differs = |bucket: &usize| self.0[*bucket] != other.0[*bucket];
        (0..Self::BUCKETS).filter(differs).map(ends_of).collect()
    }
}

/// Bits of a position below those that select its bucket.
const LOWER_BITS: u32 = u128::BITS - Digest::BUCKETS.ilog2();

fn bucket_of(position: Position) -> usize {
    (position.to_u128() >> LOWER_BITS) as usize
}

fn ends_of(bucket: usize) -> (Position, Position) {
    let first = (bucket as u128) << LOWER_BITS;
    (Position::from_u128(first), Position::from_u128(first | ((1 << LOWER_BITS) - 1)))
}
