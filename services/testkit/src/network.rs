//! A network of hosts: network namespaces, connected by bridges in a namespace of their own, with
//! optional rate limits.
//!
//! Invariant: dropping the network removes every namespace that it made. One thing outside of them
//! may change: cubic is added to the allowed congestion controls, which Linux requires before a
//! namespace can use it.

use std::{
    fs, io,
    net::Ipv4Addr,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{self, Command},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    process::geteuid,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{fleet::ProcessNetwork, interrupt::Interrupt, lab::LinkRate};

/// The namespace of the bridges.
const SWITCH: &str = "switch";
/// The bridge of the connected hosts, and the bridge of the hosts that are partitioned off.
const BRIDGE: &str = "br0";
const ASIDE: &str = "br1";
/// The interface of a host.
const HOST_DEVICE: &str = "e0";
/// The default of Linux. The default of this machine may differ.
const CONGESTION_CONTROL: &str = "cubic";
/// The congestion controls that namespaces may use.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
/// The bytes that a link may send in one burst, and the longest queueing delay before a packet is
/// dropped.
const BUCKET: [&str; 4] = ["burst", "32kb", "latency", "100ms"];
/// The numbering of addresses: 250 hosts per value of the third byte.
const ADDRESSES_PER_ROW: u32 = 250;
const MAX_HOSTS: u32 = 250 * 250;

/// The rates of a host's link.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// From the host.
    pub up: LinkRate,
    /// To the host.
    pub down: LinkRate,
}

/// The namespaces.
pub struct Network {
    prefix: &'static str,
    made: Vec<String>,
}

/// Fails with an error that says what to do if networks cannot be made here.
pub fn check_requirements() -> anyhow::Result<()> {
    ensure!(cfg!(target_os = "linux"), "network namespaces need Linux");
    ensure!(geteuid().is_root(), "network namespaces need root; run this with sudo");
    for tool in ["ip", "tc"] {
        match Command::new(tool).arg("-V").output() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{tool} is not installed: apt-get install iproute2")
            }
            Err(error) => return Err(error).with_context(|| format!("cannot run {tool}")),
        }
    }
    Ok(())
}

impl Network {
    /// Makes one host per link. Every namespace name is `prefix`, the id of this process, and the
    /// host.
    pub fn new(
        prefix: &'static str,
        links: &[Link],
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        ensure!(links.len() <= MAX_HOSTS as usize, "a network has at most {MAX_HOSTS} hosts");
        allow_congestion_control().context("this kernel has no cubic: modprobe tcp_cubic")?;
        let mut network = Self { prefix, made: Vec::new() };
        let switch = network.add_namespace(SWITCH)?;
        for bridge in [BRIDGE, ASIDE] {
            ip(&["-n", &switch, "link", "add", bridge, "type", "bridge"])?;
            ip(&["-n", &switch, "link", "set", bridge, "up"])?;
        }
        // Some machines pass bridged packets to iptables. The lab's packets must not go there.
        set(&switch, "/proc/sys/net/bridge/bridge-nf-call-iptables", "0")?;
        for (host, link) in (0..).zip(links) {
            interrupt.check()?;
            network.add_host(&switch, host, *link)?;
        }
        Ok(network)
    }

    /// Partitions these hosts from all others: they reach each other, but no packet passes between
    /// the two sides.
    pub fn part(&self, hosts: impl IntoIterator<Item = u32>) -> anyhow::Result<()> {
        hosts.into_iter().try_for_each(|host| self.plug_into(ASIDE, host))
    }

    /// Undoes [`part`](Self::part).
    pub fn heal(&self, hosts: impl IntoIterator<Item = u32>) -> anyhow::Result<()> {
        hosts.into_iter().try_for_each(|host| self.plug_into(BRIDGE, host))
    }

    /// Moves this thread, and the threads that it starts later, into the network of a host.
    pub fn enter(&self, host: u32) -> anyhow::Result<()> {
        let namespace =
            fs::File::open(format!("/run/netns/{}", name(self.prefix, &host.to_string())))?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    fn plug_into(&self, bridge: &str, host: u32) -> anyhow::Result<()> {
        let switch = name(self.prefix, SWITCH);
        ip(&["-n", &switch, "link", "set", &port(host), "master", bridge])
    }

    fn add_host(&mut self, switch: &str, host: u32, link: Link) -> anyhow::Result<()> {
        let namespace = self.add_namespace(&host.to_string())?;
        let port = port(host);
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        let mut veth = vec!["-n", switch, "link", "add", &port, "type", "veth"];
        veth.extend(["peer", "name", HOST_DEVICE, "netns", &namespace]);
        ip(&veth)?;
        ip(&["-n", switch, "link", "set", &port, "master", BRIDGE, "up"])?;
        let network = format!("{}/16", address(host));
        ip(&["-n", &namespace, "addr", "add", &network, "dev", HOST_DEVICE])?;
        ip(&["-n", &namespace, "link", "set", HOST_DEVICE, "up"])?;
        set(&namespace, "/proc/sys/net/ipv4/tcp_congestion_control", CONGESTION_CONTROL)?;
        shape(&namespace, HOST_DEVICE, link.up)?;
        shape(switch, &port, link.down)
    }

    fn add_namespace(&mut self, part: &str) -> anyhow::Result<String> {
        let name = name(self.prefix, part);
        ip(&["netns", "add", &name])?;
        self.made.push(name.clone());
        Ok(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.made {
            if let Err(error) = ip(&["netns", "del", name]) {
                eprintln!("cannot remove the namespace {name}: {error:#}");
            }
        }
    }
}

/// The address of a host. All networks use the same addresses: no packet leaves the namespaces.
pub fn address(host: u32) -> Ipv4Addr {
    let (row, column) = (host / ADDRESSES_PER_ROW, host % ADDRESSES_PER_ROW);
    Ipv4Addr::new(10, 77, row as u8, column as u8 + 1)
}

/// The network namespace of a host.
pub fn process_network(prefix: &str, host: u32) -> ProcessNetwork {
    ProcessNetwork::Namespace(name(prefix, &host.to_string()))
}

fn name(prefix: &str, part: &str) -> String {
    format!("{prefix}{}-{part}", process::id())
}

/// The name of the switch's interface to a host.
fn port(host: u32) -> String {
    format!("p{host}")
}

fn allow_congestion_control() -> io::Result<()> {
    let allowed = fs::read_to_string(ALLOWED)?;
    if allowed.split_whitespace().any(|name| name == CONGESTION_CONTROL) {
        return Ok(());
    }
    fs::write(ALLOWED, format!("{} {CONGESTION_CONTROL}", allowed.trim_end()))
}

/// Limits the rate at which a device sends.
fn shape(namespace: &str, device: &str, rate: LinkRate) -> anyhow::Result<()> {
    let Some(bits_per_s) = rate.bits_per_s() else { return Ok(()) };
    let rate = format!("{bits_per_s}bit");
    let mut arguments = vec!["-n", namespace, "qdisc", "add", "dev", device, "root", "tbf"];
    arguments.extend(["rate", &rate]);
    arguments.extend(BUCKET);
    run("tc", &arguments)
}

/// Writes a network setting of a namespace, if the kernel has it.
fn set(namespace: &str, path: &str, value: &str) -> anyhow::Result<()> {
    let script = format!("[ ! -e {path} ] || echo {value} > {path}");
    ip(&["netns", "exec", namespace, "sh", "-c", &script])
}

pub(crate) fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run("ip", arguments)
}

fn run(tool: &str, arguments: &[&str]) -> anyhow::Result<()> {
    // Ctrl-C must not kill the tool: this process needs it to clean up.
    let output = Command::new(tool)
        .args(arguments)
        .process_group(0)
        .output()
        .with_context(|| format!("cannot run {tool}"))?;
    ensure!(
        output.status.success(),
        "`{tool} {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_host_has_its_own_address() {
        assert_eq!(address(0), Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(address(249), Ipv4Addr::new(10, 77, 0, 250));
        assert_eq!(address(250), Ipv4Addr::new(10, 77, 1, 1));
        let all: HashSet<Ipv4Addr> = (0..MAX_HOSTS).map(address).collect();
        assert_eq!(all.len(), MAX_HOSTS as usize);
    }

    #[test]
    fn names_contain_the_process_id() {
        let expected = format!("lab-{}-3", process::id());
        assert_eq!(process_network("lab-", 3), ProcessNetwork::Namespace(expected));
    }
}
