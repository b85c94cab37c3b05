//! The tours run as they are printed.

use std::time::{Duration, Instant};

use crate::{
    read,
    shell::Shell,
    transcript::{normalise, steps},
};

/// Commands that only look: what they show settles a moment after a change.
const LOOKS: [&str; 3] = ["shoal swarm ", "shoal ls", "shoal dht ring"];
const SETTLES: Duration = Duration::from_secs(30);

// In one test, because all use the same ports.
#[test]
fn the_tours_run_as_they_are_printed() {
    for page in ["README.md", "docs/introduction.md", "docs/tour.md"] {
        follow(page);
    }
}

fn follow(page: &str) {
    let steps = steps(&read(page));
    assert!(!steps.is_empty(), "{page} has no command");
    let mut shell = Shell::start();
    for step in steps {
        let place = format!("{page}:{}: $ {}", step.line, step.command);
        println!("{place}");
        let should_fail = step.output.starts_with("error: ");
        let expected = normalise(&step.output);
        let settled = Instant::now() + SETTLES;
        loop {
            let outcome = shell.run(&step.command);
            let is_right = (outcome.status != 0) == should_fail;
            if is_right && normalise(&outcome.output) == expected {
                break;
            }
            let only_looks = LOOKS.iter().any(|look| step.command.starts_with(look));
            assert!(
                only_looks && Instant::now() < settled,
                "{place}\nexit status {}, and printed\n{}\nwhere the page has\n{}\n\n{}",
                outcome.status,
                outcome.output,
                step.output,
                shell.logs()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
