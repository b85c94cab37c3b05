//! Attacks on real processes, one file for each family. Each is bounded in count and time, and tells
//! what it took.

pub mod announces;
pub mod body;
pub mod empties;
pub mod half_sent;
pub mod identity;
pub mod idle;
pub mod links;
pub mod reflection;
pub mod storage;
pub mod tarpits;
pub mod together;
pub mod turns;
pub mod unread;
pub mod words;

use std::{fmt, fs, net::IpAddr};

use tonic::transport::{Channel, Endpoint};

use crate::process::Process;

/// What an attack took of a process, in bytes of resident memory.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Before the attack.
    pub before: u64,
    /// The most during the attack.
    pub peak: u64,
    /// At its end.
    pub after: u64,
}

impl Taken {
    /// Bytes that the process grew by, at most.
    pub fn grown(&self) -> u64 {
        self.peak.saturating_sub(self.before)
    }

    /// Bytes that it still had more at the end.
    pub fn kept(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} MiB before, +{:.1} MiB at most, +{:.1} MiB at the end",
            mib(self.before),
            mib(self.grown()),
            mib(self.kept())
        )
    }
}

/// The memory of a process from now on.
#[derive(Debug)]
pub struct Meter {
    process: u32,
    before: u64,
}

impl Meter {
    /// Starts to measure: what it took before does not count.
    pub fn start(process: &Process) -> Self {
        let process = process.id();
        // Resets VmHWM (man 5 proc).
        fs::write(format!("/proc/{process}/clear_refs"), "5").expect("the process is ours");
        Self { process, before: figure(process, "VmRSS:") }
    }

    /// What was taken so far.
    pub fn read(&self) -> Taken {
        Taken {
            before: self.before,
            peak: figure(self.process, "VmHWM:"),
            after: figure(self.process, "VmRSS:"),
        }
    }
}

fn figure(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("Linux tells");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number of kB") * 1024
}

/// Where strangers are seen who are not on the host of the honest ones, 127.0.0.1.
pub const ELSEWHERE: &str = "127.0.0.2";

/// A connection to HOST:PORT from an address of this machine, such as 127.0.0.2.
pub async fn channel_from(source: &str, address: &str) -> anyhow::Result<Channel> {
    let source: IpAddr = source.parse()?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.local_address(Some(source)).connect().await?)
}
