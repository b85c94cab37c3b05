//! Replication: contents that this peer fetches and shares without a request: those that its
//! settings list, or all that its trackers know. So new replicas of a peer join the swarms at once,
//! and serve. The peer is ready when it has caught up with them.

mod catch_up;
mod listing;
mod named_contents;
mod tracked_contents;
mod wanted_contents;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::RngExt as _;
use shoal_common::health::Health;
use shoal_core::{
    Address,
    backoff::Backoff,
    content::{Link, Wanted},
};
use tokio::time::sleep;
use tracing::{debug, info};

use self::{
    catch_up::CatchUp,
    listing::Look,
    named_contents::NamedContents,
    tracked_contents::TrackedContents,
    wanted_contents::{Due, WantedContents},
};
use crate::{
    daemon::{Daemon, Room},
    node::Stopped,
    options::Options,
    settings::{Listed, Replicate, Settings},
};

/// How often the wanted contents and their state are checked; jittered, because many replicas start
/// at the same time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same, until the peer is ready.
const LOOK_EARLY: Duration = Duration::from_secs(1);

/// The first pause if no list was returned; it grows: the service may just be starting too.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// Keeps the peer in the swarms of the wanted contents.
pub(crate) struct Replicator {
    daemon: Daemon,
    lists: Lists,
    contents: WantedContents,
    /// Notified when the peer has caught up.
    health: Health,
    /// None once it has.
    catch_up: Option<CatchUp>,
}

/// The lists of the wanted contents.
enum Lists {
    /// The settings'.
    Listed(Vec<Link>, Box<NamedContents>),
    /// The trackers'.
    All(TrackedContents),
}

impl Replicator {
    /// As the settings say; none if nothing is to be replicated.
    pub(crate) fn new(settings: &Settings, daemon: Daemon, health: Health) -> Option<Self> {
        let lists = match settings.replicate {
            Replicate::None => return None,
            Replicate::Listed => {
                let (mut links, mut names) = (Vec::new(), Vec::new());
                for Listed(wanted) in settings.contents.clone() {
                    match wanted {
                        Wanted::Link(link) => links.push(link),
                        Wanted::Name(name) => names.push(name),
                    }
                }
                Lists::Listed(links, Box::new(NamedContents::new(names, settings.dht.clone())))
            }
            Replicate::All => Lists::All(TrackedContents::new(settings.tracker.clone())),
        };
        let catch_up = Some(CatchUp::new(Instant::now()));
        Some(Self { daemon, lists, contents: WantedContents::default(), health, catch_up })
    }

    /// Runs until the peer stops, or this is dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_BACKOFF, LOOK_EVERY);
        loop {
            let look = self.lists.look().await;
            let is_partial = look.is_partial;
            if self.follow(look).await.is_err() {
                return;
            }
            let wait = if is_partial {
                backoff.next(&mut rand::rng())
            } else {
                backoff.reset();
                let wait = if self.catch_up.is_some() { LOOK_EARLY } else { LOOK_EVERY };
                wait.mul_f64(rand::rng().random_range(0.75..1.25))
            };
            sleep(wait).await;
        }
    }

    /// Joins the swarms of wanted contents that are neither here nor were removed, and leaves those
    /// of contents without a manifest.
    async fn follow(&mut self, look: Look) -> Result<(), Stopped> {
        let here = self.daemon.node.list().await?;
        let here: BTreeMap<_, _> = here.iter().map(|status| (status.id, &**status)).collect();
        let now = Instant::now();
        let contents = look.listings.iter().flat_map(|listing| &listing.contents);
        let wanted: BTreeSet<_> = contents.clone().map(|(id, _)| *id).collect();
        if let Some(catch_up) = &mut self.catch_up
            && catch_up.is_done(now, &wanted, look.is_partial, &here)
        {
            self.catch_up = None;
            self.health.ready().await;
        }
        let here = here.into_iter().map(|(id, status)| (id, &status.phase)).collect();
        let requested = self.daemon.requested.all();
        let Due { fetch, give_up } =
            self.contents.due(now, &look.listings, &here, &requested, &mut rand::rng());
        for id in give_up {
            self.daemon.node.remove(id).await?;
            // A user may have requested it in the meantime, or its manifest may have been found.
            if self.daemon.requested.contains(id) || self.daemon.store.contains(id) {
                self.daemon.join(id, Options::default(), false, Room::Free).await?;
            }
        }
        let options: BTreeMap<_, _> = contents.collect();
        for id in fetch {
            let options = options.get(&id).copied().cloned();
            let room = match &self.lists {
                Lists::Listed(..) => Room::Made(wanted.clone()),
                Lists::All(_) => Room::Free,
            };
            info!(content_id = %id, "replicated");
            self.daemon.join(id, options.unwrap_or_default(), false, room).await?;
        }
        Ok(())
    }
}

impl Lists {
    async fn look(&mut self) -> Look {
        match self {
            Self::Listed(links, names) => {
                let mut look = names.look().await;
                let listed = look.listings.iter_mut().map(|listing| &mut listing.contents);
                for contents in listed {
                    contents.extend(links.iter().map(|link| (link.id, options_of(link))));
                }
                look
            }
            Self::All(tracked) => tracked.look().await,
        }
    }
}

/// The addresses in a link are asked in addition to those of the settings.
fn options_of(link: &Link) -> Options {
    let addresses = |texts: &[String]| {
        let parse = |text: &String| {
            let parsed: Result<Address, _> = text.parse();
            parsed.inspect_err(|error| debug!(addr = text, %error, "left out of a link")).ok()
        };
        texts.iter().filter_map(parse).collect()
    };
    Options {
        trackers: addresses(link.trackers()),
        ring_nodes: addresses(link.ring_nodes()),
        ..Options::default()
    }
}
