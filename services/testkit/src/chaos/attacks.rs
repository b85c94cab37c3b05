//! Attacks on a process for the duration of a fault.

use std::{net::IpAddr, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use tokio::{runtime::Builder, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    plan::{Attack, Target},
    world::{Places, enter_strangers},
};
use crate::{
    adversary::{Adversary, Vice},
    hostile::{
        empties::{self, RING_METHODS},
        half_sent::HalfSent,
        idle::{self, Opening},
        links,
        unread::LazyReaders,
    },
    network::Network,
};

/// Longest wait for a victim to accept a connection; it may just be starting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// The size of the messages of empty elements and of the half-sent ones, below the message limit.
const MESSAGE_BYTES: usize = 100 << 10;
/// The number of calls, connections or links of each attack.
const EMPTIES_CALLS: usize = 4;
const HALF_SENT_CALLS: usize = 32;
const IDLE_CONNECTIONS: usize = 64;
const READERS: (usize, usize) = (4, 8);
const SILENT_LINKS: usize = 30;

/// A running attack, on a thread of its own.
pub(super) struct Stranger {
    attack: Attack,
    end: CancellationToken,
    thread: thread::JoinHandle<anyhow::Result<()>>,
}

/// The target of an attack.
pub(super) struct Victim {
    pub(super) target: Target,
    /// HOST:PORT.
    pub(super) address: String,
    /// A content that it holds, if any.
    pub(super) content: Option<String>,
    /// HOST:PORT of a tracker, for attackers that join a swarm.
    pub(super) tracker: String,
}

impl Stranger {
    /// Starts an attack.
    pub(super) fn start(
        attack: Attack,
        victim: Victim,
        places: &Places,
        network: Option<Arc<Network>>,
    ) -> Self {
        let end = CancellationToken::new();
        let (ends, source) = (end.clone(), places.strangers);
        let thread = thread::spawn(move || {
            enter_strangers(network.as_deref())?;
            drop(network);
            attack_until(attack, &victim, source, &ends)
        });
        Self { attack, end, thread }
    }

    /// Asks it to end.
    pub(super) fn end(&self) {
        self.end.cancel();
    }

    /// Waits for its end. An error says why the victim was not attacked.
    pub(super) fn join(self) -> anyhow::Result<()> {
        self.end.cancel();
        let ended = self.thread.join().map_err(|_| anyhow!("the attacker panicked"))?;
        ended.with_context(|| format!("{:?}", self.attack))
    }
}

/// Attacks until `end`.
fn attack_until(
    attack: Attack,
    victim: &Victim,
    source: IpAddr,
    end: &CancellationToken,
) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let connecting = tokio::net::TcpStream::connect(&victim.address);
        timeout(CONNECT_PATIENCE, connecting)
            .await?
            .context("the victim does not accept connections")
    })?;
    let vice = match attack {
        Attack::Poisoner => Some(Vice::Poisons),
        Attack::Staller => Some(Vice::Stalls),
        Attack::Flooder => Some(Vice::Floods),
        _ => None,
    };
    if let Some(vice) = vice {
        let content = victim.content()?;
        let adversary =
            Adversary::join_from(source, vice, content, &victim.address, &victim.tracker)?;
        runtime.block_on(end.cancelled());
        drop(adversary);
        return Ok(());
    }
    let attacking = end.run_until_cancelled(call(attack, victim, source, end));
    let outcome = runtime.block_on(attacking).unwrap_or(Ok(()));
    runtime.shutdown_background();
    outcome
}

async fn call(
    attack: Attack,
    victim: &Victim,
    source: IpAddr,
    end: &CancellationToken,
) -> anyhow::Result<()> {
    let address = &*victim.address;
    match attack {
        Attack::Empties => {
            for (method, wrapped) in RING_METHODS {
                let message = empties::message(wrapped, MESSAGE_BYTES);
                empties::send(address, method, &message, EMPTIES_CALLS).await;
            }
        }
        Attack::HalfSent => {
            let method = victim.method();
            let _calls = HalfSent::start(address, method, MESSAGE_BYTES, HALF_SENT_CALLS).await;
            end.cancelled().await;
        }
        Attack::Idle => {
            let _connections = idle::open(address, Opening::Http2, IDLE_CONNECTIONS);
            end.cancelled().await;
        }
        Attack::Unread => {
            let (connections, calls) = READERS;
            let content = victim.content()?;
            let readers = LazyReaders::start(address, content, connections, calls).await;
            ensure!(!readers.is_empty(), "the victim refused all readers of {content}");
            end.cancelled().await;
        }
        Attack::SilentLinks => {
            let (content, source) = (victim.content()?, source.to_string());
            let _links = links::be_silent(address, content, &source, SILENT_LINKS).await?;
            end.cancelled().await;
        }
        Attack::Poisoner | Attack::Staller | Attack::Flooder => {}
    }
    Ok(())
}

impl Victim {
    fn content(&self) -> anyhow::Result<&str> {
        self.content.as_deref().context("the victim had no content yet")
    }

    /// A method of its API that accepts a request message.
    fn method(&self) -> &'static str {
        match self.target {
            Target::Ring(_) => "/shoal.dht.v1.DhtService/Gossip",
            Target::Tracker(_) => "/shoal.tracker.v1.TrackerService/Announce",
            Target::Peer(_) => "/shoal.peer.v1.PeerService/GetBitfield",
        }
    }
}
