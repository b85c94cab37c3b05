//! The swarms of the design's table.

use std::time::Duration;

use super::setup::{HostSetup, MBIT, Setup};

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The printed name.
    pub name: &'static str,
    /// The simulated swarm.
    pub setup: Setup,
}

/// Decimal, as in sizes of disks and rates of links.
const MB: u64 = 1_000_000;

/// The swarms with which policies are compared.
pub fn rows() -> Vec<Row> {
    let mixed = |n: usize, us: u64| {
        let uplinks = [5, 20, 80].into_iter().cycle().take(n);
        let peers = uplinks.map(|up| HostSetup::new(up * MBIT, 400 * MBIT));
        let publisher = HostSetup::new(us * MBIT, 400 * MBIT);
        Setup::with_hosts(50 * MB, std::iter::once(publisher).chain(peers).collect())
    };
    let alike = |n: usize, [us, ui, di]: [u64; 3]| {
        let peer = HostSetup::new(ui * MBIT, di * MBIT);
        let publisher = HostSetup::new(us * MBIT, 400 * MBIT);
        Setup::with_hosts(50 * MB, std::iter::once(publisher).chain(vec![peer; n]).collect())
    };
    let far = |n| Setup { latency: Duration::from_millis(20), ..Setup::new(n, 20 * MB) };
    let row = |name, setup| Row { name, setup };
    vec![
        row("N=10", Setup::new(10, 50 * MB)),
        row("N=20", Setup::new(20, 50 * MB)),
        row("N=30", Setup::new(30, 50 * MB)),
        row("N=50, 20 MB", Setup::new(50, 20 * MB)),
        row("uplinks 5/20/80, N=9, us=100", mixed(9, 100)),
        row("uplinks 5/20/80, N=21, us=100", mixed(21, 100)),
        row("publisher slower than peers, N=10, us=10", alike(10, [10, 20, 400])),
        row("N=200, 20 MB", Setup::new(200, 20 * MB)),
        row("20 ms latency, N=10, 20 MB", far(10)),
        row("tight downlinks, N=10, di=40", alike(10, [200, 20, 40])),
        row("one peer alone, us=1000 di=1000", alike(1, [1000, 1000, 1000])),
    ]
}
