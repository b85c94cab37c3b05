//! Contents that this peer fetches and shares without being asked: those that its settings list, or
//! all that its trackers know. So new replicas of a peer join the swarms at once, and serve. The peer is
//! ready when it has caught up with them.

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
use shoal_core::content::{ContentId, Link, Wanted};
use tokio::time::sleep;
use tracing::{debug, info};

use self::{catch_up::CatchUp, ledger::Ledger, names::Names, swarms::Swarms};
use crate::{
    control::{Desk, Room},
    node::Stopped,
    options::Options,
    settings::{Listed, Replicate, Settings},
};

/// How often it is looked what is wanted and what became of it; jittered, as many replicas start at
/// the same time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same, until the peer is ready.
const LOOK_EARLY: Duration = Duration::from_secs(1);

/// Look again when nobody said what is wanted, first so soon, then ever later: what is asked may just
/// be starting too.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// Keeps the peer in the swarms of the contents that are wanted.
pub(crate) struct Replicator {
    desk: Desk,
    wanted: Source,
    ledger: Ledger,
    /// Told when the peer has caught up.
    health: Health,
    /// None once it has.
    catch_up: Option<CatchUp>,
}

/// Where it is known from what is wanted.
enum Source {
    Listed(Vec<Link>, Box<Names>),
    All(Swarms),
}

/// What is wanted, as far as that is known now.
#[derive(Default)]
struct Look {
    contents: BTreeMap<ContentId, Options>,
    /// Somebody who was asked did not say.
    is_partial: bool,
}

impl Replicator {
    /// As the settings want it; none if nothing is to be replicated.
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

    /// Joins the swarms of what is wanted and is neither here nor was removed.
    async fn follow(&mut self, look: Look) -> Result<(), Stopped> {
        let here = self.desk.node.list().await?;
        let here: BTreeMap<_, _> = here.iter().map(|status| (status.id, &**status)).collect();
        let now = Instant::now();
        let wanted: BTreeSet<_> = look.contents.keys().copied().collect();
        if let Some(catch_up) = &mut self.catch_up
            && catch_up.is_done(now, &wanted, look.is_partial, &here)
        {
            self.catch_up = None;
            self.health.ready().await;
        }
        let here = here.into_iter().map(|(id, status)| (id, &status.phase)).collect();
        let due = self.ledger.due(now, wanted.iter().copied(), &here, &mut rand::rng());
        for id in due {
            let options = look.contents.get(&id).cloned().unwrap_or_default();
            let room = match &self.wanted {
                Source::Listed(..) => Room::Made(wanted.clone()),
                Source::All(_) => Room::Free,
            };
            info!(content_id = %id, "replicated");
            self.desk.join(id, options, false, room).await?;
        }
        Ok(())
    }
}

impl Source {
    async fn look(&mut self) -> Look {
        match self {
            Self::Listed(links, names) => {
                let mut look = names.look().await;
                for link in links {
                    look.contents.insert(link.id, options_of(link));
                }
                look
            }
            Self::All(swarms) => swarms.look().await,
        }
    }
}

/// The places that a link names are asked beside those of the settings.
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
