//! The reads and writes of a ring's clients, and a check that a store without loss could have
//! answered them so.
//!
//! Each key has one writer, which writes 1, 2, 3 and so on, one after another, and any number of
//! readers. So a read returns at least the last number acknowledged, and the highest number read,
//! before it began, and at most the last number whose write began before its answer.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shoal_common::lock::Mutex;

/// One call of a client, with its times.
#[derive(Clone, Copy, Debug)]
struct Event {
    asked: Instant,
    answered: Instant,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The write of this number was acknowledged.
    Acknowledged(u64),
    /// The write of this number failed, and may have taken effect.
    Tried(u64),
    /// The read returned this number.
    Read(u64),
    /// The read found no value.
    Missing,
    /// The read was refused, or had no answer.
    Unavailable,
}

/// All calls of the clients, by key.
#[derive(Debug, Default)]
pub struct History {
    events: Mutex<HashMap<String, Vec<Event>>>,
}

/// The result of a check of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of acknowledged writes.
    pub acknowledged: usize,
    /// Number of reads that returned a value.
    pub read: usize,
    /// The longest time from the first failed read of a key to its next answer, and the key.
    pub longest_unavailable: (Duration, String),
    /// The longest time from a read to its answer, including failed attempts, and the key.
    pub slowest_read: (Duration, String),
    /// The answers that a store without loss would not have given.
    pub flaws: Vec<String>,
}

impl History {
    /// Records that a write of `number`, sent at `asked`, was just acknowledged.
    pub fn acknowledged(&self, key: &str, asked: Instant, number: u64) {
        self.note(key, asked, What::Acknowledged(number));
    }

    /// Records that a write of `number` failed: its outcome is unknown.
    pub fn tried(&self, key: &str, asked: Instant, number: u64) {
        self.note(key, asked, What::Tried(number));
    }

    /// Records that a read returned `number`, or that the key has no value.
    pub fn read(&self, key: &str, asked: Instant, number: Option<u64>) {
        self.note(key, asked, number.map_or(What::Missing, What::Read));
    }

    /// Records that a read failed.
    pub fn unavailable(&self, key: &str, asked: Instant) {
        self.note(key, asked, What::Unavailable);
    }

    /// All keys that were read or written.
    pub fn keys(&self) -> Vec<String> {
        self.events.lock().keys().cloned().collect()
    }

    /// Checks the history.
    pub fn judge(&self) -> Verdict {
        let events = self.events.lock();
        let mut verdict = Verdict::default();
        for (key, events) in &*events {
            judge(key, events, &mut verdict);
        }
        verdict
    }

    fn note(&self, key: &str, asked: Instant, what: What) {
        let event = Event { asked, answered: Instant::now(), what };
        let mut events = self.events.lock();
        events.entry(key.to_owned()).or_default().push(event);
    }
}

/// Checks one key. Its events are in the order of their answers.
fn judge(key: &str, events: &[Event], verdict: &mut Verdict) {
    let mut refused_since = None;
    for (index, event) in events.iter().enumerate() {
        if event.what == What::Unavailable {
            refused_since.get_or_insert(event.asked);
            continue;
        }
        if matches!(event.what, What::Read(_) | What::Missing) {
            let refused_since = refused_since.take();
            let wait_since = |since| event.answered.saturating_duration_since(since);
            let longer = |wait, than: &mut (Duration, String)| {
                if wait > than.0 {
                    *than = (wait, key.to_owned());
                }
            };
            if let Some(since) = refused_since {
                longer(wait_since(since), &mut verdict.longest_unavailable);
            }
            longer(wait_since(refused_since.unwrap_or(event.asked)), &mut verdict.slowest_read);
        }
        let earlier = events[..index].iter().filter(|earlier| earlier.answered <= event.asked);
        let known = earlier.filter_map(|earlier| match earlier.what {
            What::Acknowledged(number) | What::Read(number) => Some(number),
            _ => None,
        });
        let least = known.max().unwrap_or_default();
        // A write is recorded when it ends, which may be after this read.
        let begun = events.iter().filter(|other| other.asked <= event.answered);
        let most = begun.filter_map(|other| match other.what {
            What::Acknowledged(number) | What::Tried(number) => Some(number),
            _ => None,
        });
        let most = most.max().unwrap_or_default();
        match event.what {
            What::Acknowledged(_) => verdict.acknowledged += 1,
            What::Read(number) => {
                verdict.read += 1;
                if number < least {
                    let recent = describe_recent(events, event);
                    verdict
                        .flaws
                        .push(format!("{key}: read {number} after {least} was known{recent}"));
                }
                if number > most {
                    verdict
                        .flaws
                        .push(format!("{key}: read {number}, which no client had written"));
                }
            }
            What::Missing if least > 0 => {
                verdict.flaws.push(format!("{key}: not found after {least} was known"));
            }
            What::Missing | What::Tried(_) | What::Unavailable => {}
        }
    }
}

/// The calls on a key up to a read and in the 30 s before its answer, in seconds before the answer.
fn describe_recent(events: &[Event], read: &Event) -> String {
    const RECENT: Duration = Duration::from_secs(30);
    let ago = |at| read.answered.saturating_duration_since(at).as_secs_f64();
    let recent = events.iter().filter(|event| event.asked <= read.answered);
    let recent = recent.filter(|event| read.answered - event.asked < RECENT);
    let lines = recent.map(|Event { asked, answered, what }| {
        format!("\n  {:.3} to {:.3} s before: {what:?}", ago(*asked), ago(*answered))
    });
    lines.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_store_without_loss_have_no_flaws() {
        let history = History::default();
        history.read("key", Instant::now(), None);
        history.acknowledged("key", Instant::now(), 1);
        history.read("key", Instant::now(), Some(1));
        history.tried("key", Instant::now(), 2);
        history.read("key", Instant::now(), Some(1));
        history.unavailable("key", Instant::now());
        history.read("key", Instant::now(), Some(2));
        let verdict = history.judge();
        assert_eq!(verdict.flaws, [""; 0]);
        assert_eq!((verdict.acknowledged, verdict.read), (1, 3));
        assert!(verdict.longest_unavailable.0 > Duration::ZERO);
    }

    #[test]
    fn the_loss_of_an_acknowledged_write_is_a_flaw() {
        let history = History::default();
        history.acknowledged("key", Instant::now(), 1);
        history.acknowledged("key", Instant::now(), 2);
        history.read("key", Instant::now(), Some(1));
        history.read("key", Instant::now(), None);
        assert_eq!(history.judge().flaws.len(), 2);
    }

    #[test]
    fn the_loss_of_a_value_that_was_read_is_a_flaw() {
        let history = History::default();
        history.tried("key", Instant::now(), 1);
        history.read("key", Instant::now(), Some(1));
        history.read("key", Instant::now(), None);
        assert_eq!(history.judge().flaws.len(), 1);
    }

    #[test]
    fn a_value_that_no_client_wrote_is_a_flaw() {
        let history = History::default();
        history.acknowledged("key", Instant::now(), 1);
        history.read("key", Instant::now(), Some(2));
        assert_eq!(history.judge().flaws.len(), 1);
    }

    #[test]
    fn a_read_that_overlaps_a_write_may_see_it_or_not() {
        let history = History::default();
        let asked = Instant::now();
        history.acknowledged("key", Instant::now(), 1);
        history.read("key", asked, None);
        assert_eq!(history.judge().flaws, [""; 0]);
    }
}
