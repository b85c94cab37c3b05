//! The nodes that hold the copies of a key.

use std::collections::HashSet;

use crate::ring::Contact;

/// The first `copies` distinct nodes among a key's successors, closest first: its owner and the
/// nodes after it. A node at several positions holds one copy; with fewer nodes than copies each
/// holds one.
pub fn replicas<'a>(
    successors: impl IntoIterator<Item = &'a Contact>,
    copies: usize,
) -> Vec<&'a Contact> {
    let mut seen = HashSet::new();
    let distinct = successors.into_iter().filter(|node| seen.insert(node.id));
    distinct.take(copies).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::testing::{node, numbers};

    #[test]
    fn copies_lie_on_the_owner_and_the_next_distinct_nodes() {
        let again = Contact { id: node(3).id, ..node(4) };
        let successors = [node(3), again, node(5), node(8), node(10)];
        assert_eq!(numbers(replicas(&successors, 3)), [3, 5, 8]);
        assert_eq!(numbers(replicas(&successors, 9)), [3, 5, 8, 10]);
        assert!(replicas(&successors, 0).is_empty());
    }
}
