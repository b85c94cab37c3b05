//! Leases: for a while a replica promises nothing to any node but the primary.
//!
//! A primary that holds leases of a majority may answer alone: no next set can have been agreed on
//! without it. Times are those of each node's own monotonic clock; the primary counts from before
//! its request, the replica from its answer, so the primary's lease expires first.

use std::time::{Duration, Instant};

use super::ReplicaSet;
use crate::ring::{KeyRange, NodeId, RangeMap};

/// Ranges whose leases are tracked separately. Beyond that, each lasts as long as the last one: a
/// proposer waits for one lease length at most.
const MAX_RANGES: usize = 1_024;

/// The leases that a replica has granted.
#[derive(Clone, Debug)]
pub struct Leases {
    length: Duration,
    /// When each expires.
    granted: RangeMap<Instant>,
    /// Leases granted before a restart are unknown, and have expired by then.
    forgotten_until: Instant,
}

impl Leases {
    /// The leases of a node that starts at `now`.
    pub fn new(length: Duration, now: Instant) -> Self {
        Self { length, granted: RangeMap::default(), forgotten_until: now + length }
    }

    /// Grants the primary of the present set its lease.
    pub fn grant(&mut self, now: Instant, range: KeyRange) {
        let until = now + self.length;
        if self.granted.count() >= MAX_RANGES {
            self.granted.update(KeyRange::whole(range.last), |known| {
                *known = known.filter(|until| *until > now);
            });
        }
        let is_crowded = self.granted.count() >= MAX_RANGES;
        let range = if is_crowded { KeyRange::whole(range.last) } else { range };
        self.granted.update(range, |known| *known = Some(until));
    }

    /// How long a proposer has to wait for a promise. A primary that has promised serves no more
    /// reads, so nobody has to wait after that; that it proposes is not enough.
    pub fn wait(&self, now: Instant, range: KeyRange) -> Option<Duration> {
        let parts = self.granted.over(range).into_iter();
        let until = parts.filter_map(|(_, until)| until.copied());
        let until = until.chain([self.forgotten_until]).max()?;
        until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }
}

/// The leases that a primary holds: when each member last granted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderLease {
    length: Duration,
    grants: Vec<(NodeId, Option<Instant>)>,
    majority: usize,
}

impl LeaderLease {
    /// The leases of the primary of `set`, before any was granted.
    pub fn new(length: Duration, set: &ReplicaSet) -> Self {
        let others = set.members.iter().skip(1);
        Self {
            length,
            grants: others.map(|member| (member.id, None)).collect(),
            majority: set.majority(),
        }
    }

    /// A member granted the lease that was requested at `asked`.
    pub fn granted(&mut self, member: NodeId, asked: Instant) {
        if let Some((_, last)) = self.grants.iter_mut().find(|(id, _)| *id == member) {
            *last = (*last).max(Some(asked));
        }
    }

    /// Until when the primary may answer alone: until fewer than a majority, including itself, are
    /// bound by a lease.
    pub fn expiry(&self) -> LeaseExpiry {
        let others = self.majority - 1;
        if others == 0 {
            return LeaseExpiry::Never;
        }
        let mut asked: Vec<_> = self.grants.iter().filter_map(|(_, asked)| *asked).collect();
        asked.sort_unstable_by(|one, other| other.cmp(one));
        asked
            .get(others - 1)
            .map_or(LeaseExpiry::Already, |asked| LeaseExpiry::At(*asked + self.length))
    }
}

/// The expiry of a primary's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseExpiry {
    /// Never: no other node could agree on anything.
    Never,
    /// At this time, unless leases are renewed.
    At(Instant),
    /// Too few leases were granted so far.
    Already,
}

impl LeaseExpiry {
    /// The leases have not expired yet.
    pub fn is_after(self, now: Instant) -> bool {
        match self {
            Self::Never => true,
            Self::At(end) => now < end,
            Self::Already => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        address::address,
        ring::{Contact, Lineage, Position, testing::epoch},
    };

    #[test]
    fn leases_of_many_slivers_are_bounded_and_none_ends_early() {
        let length = Duration::from_secs(2);
        let start = epoch();
        let mut leases = Leases::new(length, start);
        let at = |number: u64| KeyRange {
            after: Position::from_u128(u128::from(2 * number)),
            last: Position::from_u128(u128::from(2 * number + 1)),
        };
        let after = |micros| start + length + Duration::from_micros(micros);
        for number in 0..10 * MAX_RANGES as u64 {
            leases.grant(after(number), at(number));
            assert!(leases.granted.count() <= MAX_RANGES + 2);
            assert!(leases.wait(after(number), at(number)) == Some(length));
        }
        let last = after(10 * MAX_RANGES as u64);
        assert!(leases.wait(last, at(0)).is_some(), "it was granted 10 ms ago");
        leases.grant(last + 2 * length, at(0));
        assert_eq!(leases.wait(last + 2 * length, at(1)), None, "what is over holds up nobody");
    }

    const LENGTH: Duration = Duration::from_secs(2);
    const WHOLE: KeyRange = KeyRange::whole(Position::from_u128(0));

    fn node(number: u128) -> NodeId {
        NodeId::new(Uuid::from_u128(number))
    }

    fn set(members: u128) -> ReplicaSet {
        let contact = |number| Contact {
            position: Position::from_u128(number),
            id: node(number),
            address: address("node:7073"),
        };
        let members = (0..members).map(contact).collect();
        ReplicaSet { lineage: Lineage(Uuid::nil()), epoch: 1, members }
    }

    /// Clocks are banned from core, except in tests that need an instant to count from.
    #[expect(clippy::disallowed_methods)]
    fn some_instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_proposer_waits_until_the_lease_is_over() {
        let start = some_instant();
        let mut leases = Leases::new(LENGTH, start);
        let now = start + LENGTH;
        leases.grant(now, WHOLE);
        assert_eq!(leases.wait(now, WHOLE), Some(LENGTH));
        assert_eq!(leases.wait(now + LENGTH, WHOLE), None);
    }

    #[test]
    fn a_node_that_restarts_waits_for_leases_that_it_may_have_granted() {
        let start = some_instant();
        let leases = Leases::new(LENGTH, start);
        assert_eq!(leases.wait(start, WHOLE), Some(LENGTH));
        assert_eq!(leases.wait(start + LENGTH, WHOLE), None);
    }

    #[test]
    fn a_leadership_lasts_as_long_as_a_majority_grants_leases() {
        let start = some_instant();
        let mut lease = LeaderLease::new(LENGTH, &set(5));
        assert_eq!(lease.expiry(), LeaseExpiry::Already);
        lease.granted(node(1), start + Duration::from_secs(3));
        assert_eq!(lease.expiry(), LeaseExpiry::Already);
        lease.granted(node(2), start);
        assert_eq!(lease.expiry(), LeaseExpiry::At(start + LENGTH));
        lease.granted(node(3), start + Duration::from_secs(1));
        assert_eq!(lease.expiry(), LeaseExpiry::At(start + LENGTH + Duration::from_secs(1)));
    }

    #[test]
    fn the_only_member_of_a_set_needs_no_lease() {
        assert_eq!(LeaderLease::new(LENGTH, &set(1)).expiry(), LeaseExpiry::Never);
    }

    /// The primary's leases expire before those of a majority of its replicas.
    #[test]
    fn a_primary_stops_before_others_may_agree() {
        let asked = some_instant();
        let answered = asked + Duration::from_millis(5);
        let mut leases = Leases::new(LENGTH, asked);
        leases.grant(answered, WHOLE);
        let mut lease = LeaderLease::new(LENGTH, &set(3));
        lease.granted(node(1), asked);
        let LeaseExpiry::At(end) = lease.expiry() else { panic!("two of three are bound") };
        assert!(leases.wait(end, WHOLE).is_some());
    }
}
