use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

/// A call that lasts from one second to another.
fn call(base: Instant, from: u64, to: u64, action: Action, outcome: Outcome) -> Call {
    let at = |seconds| base + Duration::from_secs(seconds);
    Call { client: 0, action, asked: at(from), answered: at(to), outcome }
}

fn verdict(calls: &[(u64, u64, Action, Outcome)]) -> Result<(), Flaw> {
    let base = Instant::now();
    let calls = calls.iter();
    let calls = calls.map(|(from, to, action, outcome)| call(base, *from, *to, *action, *outcome));
    check(&calls.collect::<Vec<_>>())
}

fn flaw_at(calls: &[(u64, u64, Action, Outcome)], index: usize) {
    assert_eq!(verdict(calls), Err(Flaw::NotLinearizable(index)));
}

const fn write(value: u64) -> Action {
    Action::Write(Some(value))
}

const fn swap(expected: u64, new: u64) -> Action {
    Action::Swap { expected: Some(expected), new: Some(new) }
}

const fn found(value: u64) -> Outcome {
    Outcome::Found(Some(value))
}

const NOTHING: Outcome = Outcome::Found(None);
const REMOVE: Action = Action::Write(None);
const CREATE: Action = Action::Swap { expected: None, new: Some(1) };

use Action::Read;
use Outcome::{Done, Refused, Unknown};

#[test]
fn calls_one_after_another_are_accepted() {
    let calls = [
        (0, 1, Read, NOTHING),
        (2, 3, CREATE, Done),
        (4, 5, Read, found(1)),
        (6, 7, swap(1, 2), Done),
        (8, 9, swap(1, 3), Refused),
        (10, 11, Read, found(2)),
        (12, 13, REMOVE, Done),
        (14, 15, Read, NOTHING),
        (16, 17, write(4), Done),
        (18, 19, CREATE, Refused),
        (20, 21, Action::Swap { expected: Some(4), new: None }, Done),
        (22, 23, Read, NOTHING),
    ];
    assert_eq!(verdict(&calls), Ok(()));
}

#[test]
fn a_read_during_a_write_may_see_it_but_a_later_read_must_not_lose_it() {
    let seen = [(0, 9, write(1), Done), (1, 2, Read, NOTHING), (3, 4, Read, found(1))];
    assert_eq!(verdict(&seen), Ok(()));
    let unseen = [(0, 9, CREATE, Done), (1, 2, Read, found(1)), (3, 4, Read, NOTHING)];
    flaw_at(&unseen, 2);
}

#[test]
fn a_lost_value_is_a_flaw() {
    flaw_at(&[(0, 1, write(1), Done), (2, 3, Read, NOTHING)], 1);
    let older = [(0, 1, write(1), Done), (2, 3, write(2), Done), (4, 5, Read, found(1))];
    flaw_at(&older, 2);
}

#[test]
fn a_value_that_no_call_wrote_is_a_flaw() {
    flaw_at(&[(0, 1, write(1), Done), (2, 3, Read, found(7))], 1);
    flaw_at(&[(0, 1, Read, found(1)), (2, 3, write(1), Done)], 0);
}

#[test]
fn a_removed_value_that_returns_is_a_flaw() {
    let back = [
        (0, 1, write(1), Done),
        (2, 3, REMOVE, Done),
        (4, 5, Read, NOTHING),
        (6, 7, Read, found(1)),
    ];
    flaw_at(&back, 3);
}

#[test]
fn only_one_of_two_swaps_of_a_value_succeeds() {
    let both = [
        (0, 1, write(1), Done),
        (2, 9, swap(1, 2), Done),
        (2, 9, swap(1, 3), Done),
        (10, 11, Read, found(3)),
    ];
    assert!(matches!(verdict(&both), Err(Flaw::NotLinearizable(1 | 2))));
    let one = [
        (0, 1, write(1), Done),
        (2, 9, swap(1, 2), Refused),
        (2, 9, swap(1, 3), Done),
        (10, 11, Read, found(3)),
    ];
    assert_eq!(verdict(&one), Ok(()));
}

#[test]
fn a_swap_that_was_refused_without_reason_is_a_flaw() {
    flaw_at(&[(0, 1, CREATE, Done), (2, 3, swap(1, 2), Refused)], 1);
    flaw_at(&[(0, 1, Action::Swap { expected: None, new: Some(1) }, Refused)], 0);
    // The write may have taken effect twice, and left a second version.
    assert_eq!(verdict(&[(0, 1, write(1), Done), (2, 3, swap(1, 2), Refused)]), Ok(()));
}

#[test]
fn a_swap_of_unknown_outcome_happens_at_most_once_and_maybe_late() {
    let late = [
        (0, 1, CREATE, Done),
        (2, 3, swap(1, 2), Unknown),
        (4, 5, Read, found(1)),
        (6, 7, Read, found(2)),
    ];
    assert_eq!(verdict(&late), Ok(()));
    assert_eq!(verdict(&late[..3]), Ok(()));
    let undone = [&late[..], &[(8, 9, Read, found(1))]].concat();
    flaw_at(&undone, 4);
    // The expected value never returns.
    let too_late = [
        (0, 1, CREATE, Done),
        (2, 3, swap(1, 2), Unknown),
        (4, 5, swap(1, 3), Done),
        (6, 7, Read, found(3)),
        (8, 9, Read, found(2)),
    ];
    flaw_at(&too_late, 4);
    let twice = [
        (0, 1, Action::Swap { expected: None, new: Some(1) }, Unknown),
        (2, 3, Read, found(1)),
        (4, 5, REMOVE, Done),
        (6, 7, Read, found(1)),
    ];
    flaw_at(&twice, 3);
}

#[test]
fn a_write_may_take_effect_again_until_it_is_answered() {
    let again = |answered| {
        [
            (0, answered, write(1), Done),
            (1, 2, Read, found(1)),
            (3, 4, write(2), Done),
            (5, 6, Read, found(2)),
            (7, 8, Read, found(1)),
        ]
    };
    assert_eq!(verdict(&again(9)), Ok(()));
    flaw_at(&again(2), 4);
    let unknown = [
        (0, 1, write(1), Unknown),
        (2, 3, Read, NOTHING),
        (4, 5, write(2), Done),
        (6, 7, Read, found(1)),
    ];
    assert_eq!(verdict(&unknown), Ok(()));
}

#[test]
fn many_swaps_of_unknown_outcome_are_decided() {
    let mut calls = vec![(0, 1, write(1), Done)];
    for round in 1..200_u64 {
        calls.push((4 * round, 4 * round + 1, swap(round, 1000 + round), Unknown));
        calls.push((4 * round + 2, 4 * round + 3, write(round + 1), Done));
    }
    assert_eq!(verdict(&calls), Ok(()));
    calls.push((2000, 2001, Read, found(1003)));
    flaw_at(&calls, calls.len() - 1);
}

/// Calls of clients on a correct register: each call takes effect at one moment between its request
/// and its answer.
fn correct_history(seed: u64, calls: u64) -> Vec<Call> {
    let base = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut present = None;
    let mut history: Vec<Call> = Vec::new();
    for number in 1..=calls {
        let moment = base + Duration::from_millis(10 * number);
        let mut wide = || Duration::from_millis(rng.random_range(1..40));
        let (before, after) = (wide(), wide());
        let known = history.get(rng.random_range(0..number) as usize).map(|call| call.action);
        let known = match known {
            Some(Action::Write(value) | Action::Swap { new: value, .. }) => value,
            _ => present,
        };
        let action = match rng.random_range(0..10) {
            0..4 => Read,
            4..6 => write(number),
            6 => REMOVE,
            7 => Action::Swap { expected: known, new: Some(number) },
            _ => Action::Swap { expected: present, new: Some(number) },
        };
        let is_lost = rng.random_range(0..8) == 0;
        let outcome = match action {
            Read => Outcome::Found(present),
            _ if is_lost && rng.random() => Unknown,
            Action::Write(value) => {
                present = value;
                if is_lost { Unknown } else { Done }
            }
            Action::Swap { expected, new } if expected == present => {
                present = new;
                if is_lost { Unknown } else { Done }
            }
            Action::Swap { .. } => Refused,
        };
        let (asked, answered) = (moment.checked_sub(before).unwrap_or(moment), moment + after);
        history.push(Call { client: 0, action, asked, answered, outcome });
    }
    history
}

#[test]
fn the_answers_of_a_correct_register_are_accepted() {
    for seed in 0..80 {
        assert_eq!(check(&correct_history(seed, 150)), Ok(()), "seed {seed}");
    }
}

#[test]
fn one_stale_answer_is_detected() {
    let mut checked = 0;
    for seed in 0..80 {
        let mut calls = correct_history(seed, 150);
        // Conditional writes take effect once, so a value that one of them replaced cannot return.
        let swapped = calls.iter().position(|call| {
            let Action::Swap { expected: Some(expected), .. } = call.action else { return false };
            let writer = calls.iter().find(
                |call| matches!(call.action, Action::Swap { new, .. } if new == Some(expected)),
            );
            call.outcome == Done && writer.is_some_and(|writer| writer.outcome == Done)
        });
        let Some(swapped) = swapped else { continue };
        let Action::Swap { expected, .. } = calls[swapped].action else { continue };
        let end = calls.iter().map(|call| call.answered).max().expect("there are calls");
        let late = end + Duration::from_secs(1);
        let outcome = Outcome::Found(expected);
        calls.push(Call { client: 0, action: Read, asked: late, answered: late, outcome });
        assert_eq!(check(&calls), Err(Flaw::NotLinearizable(calls.len() - 1)), "seed {seed}");
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}
