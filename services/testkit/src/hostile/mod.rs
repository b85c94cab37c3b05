//! Attacks on real processes, one file for each kind. Each attack is bounded in count and time.

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

/// The memory that a process used under an attack: resident bytes.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Before the attack.
    pub before: u64,
    /// The peak during the attack.
    pub peak: u64,
    /// At the end of the attack.
    pub after: u64,
}

impl Taken {
    /// The largest growth.
    pub fn grown(&self) -> u64 {
        self.peak.saturating_sub(self.before)
    }

    /// The growth that was left at the end.
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

/// Measures the memory of a process, from the creation of this meter on.
#[derive(Debug)]
pub struct Meter {
    process: u32,
    before: u64,
}

impl Meter {
    /// Starts to measure. Earlier peaks do not count.
    pub fn start(process: &Process) -> Self {
        let process = process.id();
        // Resets VmHWM (man 5 proc).
        fs::write(format!("/proc/{process}/clear_refs"), "5").expect("the process is ours");
        Self { process, before: figure(process, "VmRSS:") }
    }

    /// The measurement so far.
    pub fn read(&self) -> Taken {
        Taken {
            before: self.before,
            peak: figure(self.process, "VmHWM:"),
            after: figure(self.process, "VmRSS:"),
        }
    }
}

fn figure(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line =
        status.lines().find(|line| line.starts_with(name)).expect("a line of /proc/PID/status");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number of kB") * 1024
}

/// The address of attackers that are not on the host of the honest processes, 127.0.0.1.
pub const ELSEWHERE: &str = "127.0.0.2";

/// Connects to HOST:PORT from an address of this machine, such as 127.0.0.2.
pub async fn channel_from(source: &str, address: &str) -> anyhow::Result<Channel> {
    let source: IpAddr = source.parse()?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.local_address(Some(source)).connect().await?)
}
