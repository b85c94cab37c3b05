//! Scenarios: calls to trackers, the ring, peers, or all of them in turn.

mod announce;
mod ring;
mod swarm;

use std::time::Duration;

use shoal_common::http2::Http2;
use shoal_core::{Address, content::Link};
use tonic::Status;

use self::{
    announce::Announce,
    ring::{Kv, Lookup},
    swarm::Swarm,
};
use crate::{
    args::{MixedArgs, ValueArgs},
    pace::Target,
    record::Operation,
    targets::{Connected, Targets},
};

/// The targets, and the calls to make.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The addresses of the targets.
    pub(crate) addresses: Vec<Address>,
    /// HTTP/2 windows and frames for answers of this size.
    pub(crate) http2: Http2,
    /// At least one.
    parts: Vec<Part>,
}

enum Part {
    Announce(Announce),
    Lookup(Lookup),
    Kv(Kv),
    Swarm(Swarm),
}

impl Scenario {
    pub(crate) async fn announce(targets: &Targets, trackers: &[Address]) -> anyhow::Result<Self> {
        let trackers = targets.connect("tracker", trackers, Http2::CONTROL).await?;
        let addresses = addresses(&trackers);
        Ok(Self::of("announce", addresses, Http2::CONTROL, Part::Announce(Announce::new(trackers))))
    }

    pub(crate) async fn lookup(targets: &Targets, nodes: &[Address]) -> anyhow::Result<Self> {
        let nodes = targets.connect("ring node", nodes, Http2::CONTROL).await?;
        let addresses = addresses(&nodes);
        Ok(Self::of("lookup", addresses, Http2::CONTROL, Part::Lookup(Lookup::new(nodes))))
    }

    /// The values are written first, and outlive a run of `duration`.
    pub(crate) async fn kv(
        targets: &Targets,
        nodes: &[Address],
        values: ValueArgs,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        let nodes = targets.connect("ring node", nodes, Http2::CONTROL).await?;
        let addresses = addresses(&nodes);
        let kv = Kv::prepare(nodes, values, duration).await?;
        Ok(Self::of("kv", addresses, Http2::CONTROL, Part::Kv(kv)))
    }

    /// These peers, and the seeders that the trackers name.
    pub(crate) async fn swarm(
        targets: &Targets,
        peers: &[Address],
        trackers: &[Address],
        content: &Link,
    ) -> anyhow::Result<Self> {
        let mut peers = peers.to_vec();
        if !trackers.is_empty() {
            let trackers = targets.connect("tracker", trackers, Http2::CONTROL).await?;
            match swarm::complete_peers(&trackers, content.id).await {
                Err(error) if peers.is_empty() => return Err(error),
                found => peers.extend(found.unwrap_or_default()),
            }
        }
        let peers = targets.connect("peer", &peers, Http2::BULK).await?;
        let addresses = addresses(&peers);
        let swarm = Swarm::prepare(peers, content.id).await?;
        Ok(Self::of("swarm", addresses, Http2::BULK, Part::Swarm(swarm)))
    }

    /// One call of each kind in turn.
    pub(crate) async fn mixed(
        targets: &Targets,
        args: MixedArgs,
        values: ValueArgs,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        let (mut called, mut parts) = (Vec::new(), Vec::new());
        if !args.trackers.is_empty() {
            let trackers = targets.connect("tracker", &args.trackers, Http2::CONTROL).await?;
            called.extend(addresses(&trackers));
            parts.push(Part::Announce(Announce::new(trackers)));
        }
        if !args.nodes.is_empty() {
            let nodes = targets.connect("ring node", &args.nodes, Http2::CONTROL).await?;
            called.extend(addresses(&nodes));
            parts.push(Part::Lookup(Lookup::new(nodes.clone())));
            parts.push(Part::Kv(Kv::prepare(nodes, values, duration).await?));
        }
        if let Some(content) = &args.content {
            let swarm = Self::swarm(targets, &args.peers, &args.trackers, content).await?;
            called.extend(swarm.addresses);
            parts.extend(swarm.parts);
        }
        Ok(Self { name: "mixed", addresses: called, http2: Http2::BULK, parts })
    }

    fn of(name: &'static str, addresses: Vec<Address>, http2: Http2, part: Part) -> Self {
        Self { name, addresses, http2, parts: vec![part] }
    }

    /// The part whose turn it is, and the number of the call within the part.
    fn turn(&self, number: u64) -> (&Part, u64) {
        let count = self.parts.len() as u64;
        (&self.parts[(number % count) as usize], number / count)
    }
}

impl Target for Scenario {
    fn operation(&self, number: u64) -> Operation {
        match self.turn(number) {
            (Part::Announce(_), _) => Operation::Announce,
            (Part::Lookup(_), _) => Operation::Lookup,
            (Part::Kv(kv), number) => kv.operation(number),
            (Part::Swarm(_), _) => Operation::Pieces,
        }
    }

    async fn call(&self, number: u64) -> Result<u64, Status> {
        match self.turn(number) {
            (Part::Announce(announce), number) => announce.call(number).await,
            (Part::Lookup(lookup), number) => lookup.call(number).await,
            (Part::Kv(kv), number) => kv.call(number).await,
            (Part::Swarm(swarm), number) => swarm.call(number).await,
        }
    }
}

fn addresses(targets: &[Connected]) -> Vec<Address> {
    targets.iter().map(|target| target.address.clone()).collect()
}

/// A hash that spreads consecutive numbers over all values, the same in each run (splitmix64).
fn scatter(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
