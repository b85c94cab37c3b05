//! The test of the Compose cluster: real containers, started by the script that its users run, to
//! which everything happens that may happen to them.

mod cluster;
mod container;
mod docker;
mod exits;
mod grpcurl;
mod steps;
mod traffic;

use std::time::Instant;

use anyhow::{Context as _, ensure};

pub use self::cluster::Cluster;
use crate::interrupt::Interrupt;

/// One thing that is tried.
struct Step {
    /// What holds afterwards.
    name: &'static str,
    /// Whose logs tell why it does not.
    services: &'static [&'static str],
    run: fn(&mut Cluster) -> anyhow::Result<String>,
}

/// Which steps are tried.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Those whose names hold this.
    pub only: Option<String>,
    /// What takes long too: fifty peers.
    pub fifty: bool,
}

/// Tries one step after another, and takes the cluster down whatever comes of it.
pub fn run(choice: &Choice, interrupt: Interrupt) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut cluster = Cluster::new(interrupt)?;
    let is_chosen =
        |step: &&Step| choice.only.as_ref().is_none_or(|only| step.name.contains(only.as_str()));
    let fifty = choice.fifty.then_some(&steps::FIFTY);
    let steps: Vec<_> = steps::ALL.iter().chain(fifty).filter(is_chosen).collect();
    ensure!(!steps.is_empty(), "no step has such a name");
    let outcome = std::iter::once(&steps::START)
        .chain(steps)
        .chain([&steps::END])
        .try_for_each(|step| step.take(&mut cluster));
    drop(cluster);
    println!("{} s in all", begun.elapsed().as_secs());
    outcome
}

impl Step {
    /// Does it, and prints how long it took; on failure also what the services logged.
    fn take(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let begun = Instant::now();
        let outcome = (self.run)(cluster);
        let elapsed = begun.elapsed().as_secs_f64();
        if let Ok(words) = &outcome {
            println!("ok   {elapsed:6.1} s  {}: {words}", self.name);
        } else {
            println!("FAIL {elapsed:6.1} s  {}", self.name);
            eprintln!("{}", cluster.logs(self.services));
        }
        outcome.map(drop).context(self.name)
    }
}
