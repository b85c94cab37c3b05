//! The nodes that hold a range, and the nodes that should hold it next.

use uuid::Uuid;

use crate::ring::{Contact, NodeId};

/// The founding of a ring: a UUID of version 7, which begins with the time.
///
/// Two rings that were founded separately may meet. The older lineage then takes precedence over
/// the younger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub Uuid);

/// The nodes that agreed to keep a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaSet {
    /// The founding that it descends from.
    pub lineage: Lineage,
    /// Grows from one set to the next. A lineage and an epoch identify one set of a position.
    pub epoch: u64,
    /// At least one. The first is the primary, which alone serves reads and writes.
    pub members: Vec<Contact>,
}

impl ReplicaSet {
    /// The first set of a ring.
    pub fn founding(lineage: Lineage, founder: Contact) -> Self {
        Self { lineage, epoch: 1, members: vec![founder] }
    }

    /// The number of members that make a majority: any two majorities share a member.
    pub const fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member that serves reads and writes.
    pub fn primary(&self) -> &Contact {
        self.members.first().expect("a replica set has a member")
    }

    /// The node is a member.
    pub fn holds(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.id == node)
    }

    /// Takes precedence over `other`, for a position of both.
    pub fn supersedes(&self, other: &Self) -> bool {
        match self.lineage.cmp(&other.lineage) {
            std::cmp::Ordering::Equal => self.epoch > other.epoch,
            older => older.is_lt(),
        }
    }

    /// May be chosen as the set after `other`: of the same founding, with a higher epoch.
    pub fn comes_after(&self, other: &Self) -> bool {
        self.lineage == other.lineage && self.epoch > other.epoch
    }

    /// Is the same set as `other`, for a position of both.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.lineage, self.epoch) == (other.lineage, other.epoch)
    }
}

/// The members of the set after `present`: the owner and the nodes after it, `replicas` in all;
/// while the ring has too few, also the present members that did not leave in order. So a set
/// shrinks only by orderly departures, and a majority stays a majority of the members that may
/// return.
pub fn next_members(
    present: &ReplicaSet,
    owner: &Contact,
    successors: &[Contact],
    has_left: impl Fn(NodeId) -> bool,
    replicas: usize,
) -> Vec<Contact> {
    let mut members: Vec<Contact> = Vec::with_capacity(replicas);
    let staying = present.members.iter().filter(|member| !has_left(member.id));
    for node in std::iter::once(owner).chain(successors).chain(staying) {
        if members.len() < replicas && members.iter().all(|member| member.id != node.id) {
            members.push(node.clone());
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::testing::node;

    fn present() -> ReplicaSet {
        let members = [5, 8, 10].map(node).to_vec();
        ReplicaSet { lineage: Lineage(Uuid::nil()), epoch: 1, members }
    }

    fn ids(numbers: impl IntoIterator<Item = u128>) -> Vec<NodeId> {
        numbers.into_iter().map(|number| node(number).id).collect()
    }

    fn next(owner: u128, successors: &[u128], has_left: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let successors: Vec<_> = successors.iter().map(|number| node(*number)).collect();
        let members = next_members(&present(), &node(owner), &successors, has_left, 3);
        members.into_iter().map(|member| member.id).collect()
    }

    #[test]
    fn the_next_members_are_the_owner_and_the_nodes_after_it() {
        assert_eq!(next(4, &[5, 8, 10], |_| false), ids([4, 5, 8]));
    }

    #[test]
    fn a_set_shrinks_only_by_those_that_left_in_order() {
        assert_eq!(next(8, &[10], |_| false), ids([8, 10, 5]));
        assert_eq!(next(8, &[10], |gone| gone == node(5).id), ids([8, 10]));
    }
}
