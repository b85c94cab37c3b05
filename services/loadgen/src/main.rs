//! The load generator: calls trackers, the ring and peers, and measures their answers.

mod args;
mod echo;
mod pace;
mod record;
mod report;
mod scenario;
mod targets;

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context as _;
use shoal_common::{command_line, http2::Http2, process, shutdown, text::printable};
use shoal_core::Address;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Cli, Command, LoadArgs},
    pace::{Pace, Run},
    report::{Loop, Measured, Report},
    scenario::Scenario,
    targets::Targets,
};

/// Callers of a closed loop by default.
const CALLERS: u32 = 16;
/// Callers of an open loop by default: with this many calls in flight, others wait.
const CALLERS_OF_OPEN_LOOP: u32 = 1000;

fn main() -> ExitCode {
    let command = command_line::parse::<Cli>().command;
    let ended = process::block_on(Builder::new_multi_thread(), run(command));
    match ended.map_err(anyhow::Error::from).flatten() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shoal-loadgen: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let end = shutdown::on_signal(shutdown::GRACE_OF_COMMAND)?;
    let targets = |load: &LoadArgs| Targets::new(load.connections);
    let (scenario, load) = match command {
        Command::Echo { listen } => {
            echo::serve(&listen, end).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Announce { target, load } => {
            (Scenario::announce(&targets(&load), &target.trackers).await?, load)
        }
        Command::Lookup { target, load } => {
            (Scenario::lookup(&targets(&load), &target.nodes).await?, load)
        }
        Command::Kv { target, values, load } => {
            let targets = targets(&load);
            (Scenario::kv(&targets, &target.nodes, values, load.duration).await?, load)
        }
        Command::Swarm { target, load } => {
            let targets = targets(&load);
            (
                Scenario::swarm(&targets, &target.peers, &target.trackers, &target.content).await?,
                load,
            )
        }
        Command::Mixed { target, values, load } => {
            (Scenario::mixed(&targets(&load), target, values, load.duration).await?, load)
        }
    };
    measure(scenario, &load, &end).await
}

/// Makes the calls, and reports. Fails if no call was answered.
async fn measure(
    scenario: Scenario,
    load: &LoadArgs,
    end: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let (usual, of) = match load.rate {
        None => (CALLERS, Loop::Closed),
        Some(rate) => (CALLERS_OF_OPEN_LOOP, Loop::Open { calls_per_s: rate }),
    };
    let pace = Pace {
        rate: load.rate,
        concurrency: load.concurrency.unwrap_or(usual),
        duration: load.duration,
        calls: load.calls.map_or(u64::MAX, std::num::NonZeroU64::get),
        timeout: load.timeout,
    };
    let (name, addresses, http2) = (scenario.name, scenario.addresses.clone(), scenario.http2);
    let connections = addresses.len() as u32 * load.connections;
    let called = pace::run(scenario, pace, end).await;
    let baseline = match &load.baseline {
        Some(echo) if !end.is_cancelled() && called.record.answered() > 0 => {
            Some(compare(echo, connections, http2, &called, pace, end).await?)
        }
        _ => None,
    };
    let report = Report {
        scenario: name,
        targets: addresses,
        of,
        connections,
        concurrency: pace.concurrency,
        measured: Measured::new(&called),
        baseline: baseline.as_ref().map(Measured::new),
    };
    write(load, &report)?;
    Ok(if called.record.answered() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Calls an echo server over the same number of connections, with answers of the mean size.
async fn compare(
    echo: &Address,
    connections: u32,
    http2: Http2,
    called: &Run,
    pace: Pace,
    end: &CancellationToken,
) -> anyhow::Result<Run> {
    let total = called.record.total();
    let reply_bytes = total.bytes / total.latency.len().max(1);
    let targets = Targets::new(connections);
    let echoes = targets.connect("echo", std::slice::from_ref(echo), http2).await?;
    let echo = echo::Load::new(echoes, reply_bytes);
    Ok(pace::run(echo, pace, end).await)
}

/// Writes the reports. The summary is left out if the JSON goes to stdout.
fn write(load: &LoadArgs, report: &Report) -> anyhow::Result<()> {
    let to_stdout = load.json.as_deref() == Some(Path::new("-"));
    if let Some(path) = &load.json {
        let mut json =
            serde_json::to_string_pretty(report).context("cannot encode the report as JSON")?;
        json.push('\n');
        if to_stdout {
            print!("{json}");
        } else {
            write_file(path, &json)?;
        }
    }
    if let Some(path) = &load.plot {
        write_file(path, &report.plot())?;
    }
    if !to_stdout {
        print!("{report}");
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
