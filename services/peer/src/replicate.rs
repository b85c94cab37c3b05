//! Replication: contents that this peer fetches and shares without a request: those that its
//! settings list, or all that its trackers know. So new replicas of a peer join the swarms at once,
//! and serve. The peer is ready when it has caught up with them.

mod asked;
mod catch_up;
mod ledger;
mod names;
mod swarms;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::RngExt as _;
use shoal_common::{Address, backoff::Backoff, health::Health};
use shoal_core::content::{Link, Wanted};
use tokio::time::sleep;
use tracing::{debug, info};

pub(crate) use self::asked::Asked;
use self::{
    catch_up::CatchUp,
    ledger::{Due, Ledger, Listing},
    names::Names,
    swarms::Swarms,
};
use crate::{
    control::{Desk, Room},
    node::Stopped,
    options::Options,
    settings::{Listed, Replicate, Settings},
};

/// How often the wanted contents and their state are checked; jittered, because many replicas start
/// at the same time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same, until the peer is ready.
const LOOK_EARLY: Duration = Duration::from_secs(1);

/// The first pause if no source named the wanted contents; it grows: the source may just be
/// starting too.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// Keeps the peer in the swarms of the wanted contents.
pub(crate) struct Replicator {
    desk: Desk,
    wanted: Source,
    ledger: Ledger,
    /// Notified when the peer has caught up.
    health: Health,
    /// None once it has.
    catch_up: Option<CatchUp>,
}

/// The source of the wanted contents.
enum Source {
    Listed(Vec<Link>, Box<Names>),
    All(Swarms),
}

/// The wanted contents, as far as they are known now.
struct Look {
    listings: Vec<Listing>,
    /// Some source did not answer.
    is_partial: bool,
}

impl Replicator {
    /// As the settings say; none if nothing is to be replicated.
    pub(crate) fn new(settings: &Settings, desk: Desk, health: Health) -> Option<Self> {
        let wanted = match settings.replicate {
            Replicate::None => return None,
            Replicate::Listed => {
                let (mut links, mut names) = (Vec::new(), Vec::new());
                for Listed(wanted) in settings.contents.clone() {
                    match wanted {
                        Wanted::Link(link) => links.push(link),
                        Wanted::Name(name) => names.push(name),
                    }
                }
                Source::Listed(links, Box::new(Names::new(names, settings.dht.clone())))
            }
            Replicate::All => Source::All(Swarms::new(settings.tracker.clone())),
        };
        let catch_up = Some(CatchUp::new(Instant::now()));
        Some(Self { desk, wanted, ledger: Ledger::default(), health, catch_up })
    }

    /// Runs until the peer stops, or this is dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_BACKOFF, LOOK_EVERY);
        loop {
            let look = self.wanted.look().await;
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
        let here = self.desk.node.list().await?;
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
        let asked = self.desk.asked.all();
        let Due { fetch, give_up } =
            self.ledger.due(now, &look.listings, &here, &asked, &mut rand::rng());
        for id in give_up {
            self.desk.node.remove(id).await?;
            // A user may have requested it in the meantime, or its manifest may have been found.
            if self.desk.asked.contains(id) || self.desk.store.contains(id) {
                self.desk.join(id, Options::default(), false, Room::Free).await?;
            }
        }
        let options: BTreeMap<_, _> = contents.collect();
        for id in fetch {
            let options = options.get(&id).copied().cloned();
            let room = match &self.wanted {
                Source::Listed(..) => Room::Made(wanted.clone()),
                Source::All(_) => Room::Free,
            };
            info!(content_id = %id, "replicated");
            self.desk.join(id, options.unwrap_or_default(), false, room).await?;
        }
        Ok(())
    }
}

impl Source {
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
            Self::All(swarms) => swarms.look().await,
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
