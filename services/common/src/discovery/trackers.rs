//! Which trackers a swarm has.

use shoal_core::{Address, content::ContentId};

/// Up to this many trackers all receive announces; of more, two.
const ASK_ALL: usize = 3;

/// The trackers for the swarm of a content: all of few, of many the two that win a rendezvous hash,
/// so that every peer selects the same.
pub fn trackers_of(content: ContentId, trackers: &[Address]) -> Vec<Address> {
    let mut chosen = trackers.to_vec();
    chosen.sort();
    chosen.dedup();
    if chosen.len() > ASK_ALL {
        chosen.sort_by_cached_key(|tracker| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(content.as_bytes());
            hasher.update(tracker.to_string().as_bytes());
            *hasher.finalize().as_bytes()
        });
        chosen.truncate(2);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn trackers(count: u8) -> Vec<Address> {
        (0..count).map(|n| format!("10.0.0.{n}:7070").parse().unwrap()).collect()
    }

    #[test]
    fn few_trackers_hear_of_everything_and_of_many_two_share_a_content() {
        let content = ContentId::of_descriptor(b"a");
        assert_eq!(trackers_of(content, &trackers(3)).len(), 3);
        let mut load: HashMap<Address, usize> = HashMap::new();
        for number in 0_u32..500 {
            let content = ContentId::of_descriptor(&number.to_le_bytes());
            let picked = trackers_of(content, &trackers(5));
            assert_eq!(picked.len(), 2);
            for tracker in picked {
                *load.entry(tracker).or_default() += 1;
            }
        }
        assert!(load.len() == 5 && load.values().all(|n| (150..250).contains(n)), "{load:?}");
    }

    #[test]
    fn the_order_of_the_settings_does_not_matter() {
        let content = ContentId::of_descriptor(b"a");
        let mut reversed = trackers(7);
        reversed.reverse();
        assert_eq!(trackers_of(content, &trackers(7)), trackers_of(content, &reversed));
    }
}
