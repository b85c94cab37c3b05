//! The test of the Compose cluster: real containers, started by the script that users run, under
//! the faults and changes that a cluster meets.

mod cluster;
mod container;
mod docker;
mod exits;
mod grpcurl;
mod steps;
mod traffic;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use anyhow::{Context as _, anyhow, ensure};

pub use self::cluster::Cluster;
use crate::interrupt::Interrupt;

/// One step of the test.
struct Step {
    /// What the step verifies.
    name: &'static str,
    /// The services whose logs are printed if the step fails.
    services: &'static [&'static str],
    run: fn(&mut Cluster) -> anyhow::Result<String>,
}

/// Runs all steps, or those whose names contain `only`, and then takes the cluster down, also after
/// a failure.
pub fn run(only: Option<&str>, interrupt: Interrupt) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut cluster = Cluster::new(interrupt)?;
    let is_chosen = |step: &&Step| only.is_none_or(|only| step.name.contains(only));
    let steps: Vec<_> = steps::ALL.iter().filter(is_chosen).collect();
    ensure!(!steps.is_empty(), "no step has this text in its name");
    let outcome = std::iter::once(&steps::START)
        .chain(steps)
        .chain([&steps::END])
        .try_for_each(|step| step.take(&mut cluster));
    drop(cluster);
    println!("{} s in all", begun.elapsed().as_secs());
    outcome
}

impl Step {
    /// Runs the step and prints its time, and on failure the logs of its services.
    fn take(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let begun = Instant::now();
        // The ring's clients are shared with other tests, and panic on failure.
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(cluster)))
            .unwrap_or_else(|panic| Err(anyhow!("{}", message(panic.as_ref()))));
        let elapsed = begun.elapsed().as_secs_f64();
        match &outcome {
            Ok(result) => println!("ok   {elapsed:6.1} s  {}: {result}", self.name),
            Err(error) => {
                println!("FAIL {elapsed:6.1} s  {}: {error:#}", self.name);
                eprintln!("{}", cluster.logs(self.services));
            }
        }
        outcome.map(drop).context(self.name)
    }
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
