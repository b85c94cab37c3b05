//! The set of runs for the table in `docs/BENCHMARKS.md`.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use anyhow::Context as _;

use super::{
    report::Summary,
    run::measure,
    setup::{LinkRate, PublisherFate, Setup},
};
use crate::interrupt::Interrupt;

/// Peers, file, us, uplinks of the peers, di: the textbook's figure (F/u = 20 s, us = 10u), a swarm
/// whose time is mostly start and end, different uplinks, and links as fast as the machine.
const ROWS: [(u32, &str, &str, &[&str], &str); 7] = [
    (10, "50MB", "200mbit", &["20mbit"], "400mbit"),
    (20, "50MB", "200mbit", &["20mbit"], "400mbit"),
    (30, "50MB", "200mbit", &["20mbit"], "400mbit"),
    (50, "20MB", "200mbit", &["20mbit"], "400mbit"),
    (9, "20MB", "100mbit", &["5mbit", "20mbit", "80mbit"], "400mbit"),
    (1, "1GB", "0", &["0"], "0"),
    (8, "500MB", "0", &["0"], "0"),
];

/// Runs each setup `runs` times and prints a Markdown table row by row.
pub fn table(runs: NonZeroUsize, limit: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
    println!("{}", markdown(&Summary::COLUMNS.map(str::to_owned)));
    println!("{}", markdown(&["---"; Summary::COLUMNS.len()].map(str::to_owned)));
    for setup in setups(limit)? {
        let summary = repeat(&setup, runs, interrupt).with_context(|| setup.to_string())?;
        println!("{}", markdown(&summary.row()));
    }
    Ok(())
}

/// Runs one setup `runs` times.
pub fn repeat(setup: &Setup, runs: NonZeroUsize, interrupt: &Interrupt) -> anyhow::Result<Summary> {
    let runs = (0..runs.get()).map(|_| measure(setup, interrupt));
    runs.collect::<anyhow::Result<Vec<_>>>().map(Summary::new)
}

fn setups(limit: Duration) -> anyhow::Result<Vec<Setup>> {
    let link = |rate: &&str| rate.parse::<LinkRate>();
    ROWS.iter()
        .map(|(peers, size, server_up, peer_up, down)| {
            Ok(Setup {
                peers: NonZeroU32::new(*peers).context("a swarm needs peers")?,
                size: size.parse()?,
                server_up: link(server_up)?,
                peer_up: peer_up.iter().map(link).collect::<Result<_, _>>()?,
                down: link(down)?,
                late: None,
                publisher: PublisherFate::Stays,
                limit,
            })
        })
        .collect()
}

fn markdown<const N: usize>(cells: &[String; N]) -> String {
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_run() {
        let setups = setups(Duration::from_secs(300)).unwrap();
        assert_eq!(setups.len(), ROWS.len());
        for setup in setups {
            setup.check().unwrap();
            assert_eq!(setup.is_unshaped(), setup.distribution().is_none());
        }
    }

    #[test]
    fn rows_are_markdown() {
        assert_eq!(markdown(&["a".to_owned(), "b".to_owned()]), "| a | b |");
    }
}
