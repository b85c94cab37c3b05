//! `shoal get`: fetches a content without a daemon.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::{
    lock::{Mutex, MutexGuard},
    shutdown,
};
use shoal_core::{
    content::{ContentId, Manifest, PieceHashes},
    swarm::Priority,
};
use shoal_peer::{
    Node, Options, Phase, StatusWatch,
    store::{self, OneShot, StoreError, Stored},
};
use shoal_proto::control::v1::Priority as WirePriority;
use tokio::{
    task::spawn_blocking,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    name,
    one_shot::{self, Places},
    seed,
};
use crate::{
    args::{GetArgs, SeedFor},
    destination::Destination,
    exit::{Exit, Failure},
    progress::{Progress, Snapshot},
    summary::Seen,
};

/// After so long without a byte people want to know why.
const STALL: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: GetArgs, mut progress: Progress) -> anyhow::Result<()> {
    let started = Instant::now();
    let interrupted = shutdown::on_signal(shutdown::GRACE_OF_COMMAND)?;
    let destination = Destination::new(&args.output)?;
    let options = options(&args)?;
    let link = tokio::select! {
        link = name::resolve(&args.wanted, &args.take_part.ring.nodes) => link?,
        () = interrupted.cancelled() => {
            return Err(Failure::new(Exit::Interrupted, "interrupted; nothing was fetched").into());
        }
    };
    let places = Places::of(&args.take_part, Some(&link))?;
    progress.set_id(link.id);
    one_shot::live(&args.take_part, places, &interrupted, async |node| {
        let interrupted = interrupted.clone();
        let mut get = Get { node, id: link.id, interrupted, progress: &mut progress };
        get.run(destination, options, started, args.seed).await
    })
    .await
}

fn options(args: &GetArgs) -> anyhow::Result<Options> {
    let priorities = args.priorities.iter().map(|wanted| {
        let priority = match wanted.priority {
            WirePriority::High => Priority::High,
            WirePriority::Unspecified => Priority::Normal,
            WirePriority::Low => Priority::Low,
            WirePriority::Skip => {
                let message = "a get is of everything; shoal fetch can skip files";
                return Err(Failure::new(Exit::Usage, message));
            }
        };
        Ok((wanted.path.clone(), priority))
    });
    Ok(Options {
        sequential: args.sequential,
        priorities: priorities.collect::<Result<_, _>>()?,
        ..Options::default()
    })
}

struct Get<'a> {
    node: &'a Node,
    id: ContentId,
    interrupted: CancellationToken,
    progress: &'a mut Progress,
}

impl Get<'_> {
    async fn run(
        &mut self,
        destination: Destination,
        options: Options,
        started: Instant,
        seed_for: Option<SeedFor>,
    ) -> anyhow::Result<()> {
        let interrupted = self.interrupted.clone();
        let place = Arc::new(Place { destination, interrupted, outcome: Mutex::default() });
        let mut status = self.join(&place, options).await?;
        let mut seen = Seen::new(started);
        self.complete(&mut status, &mut seen).await?;
        spawn_blocking(move || place.finish()).await??;
        self.progress.completed(self.id, &seen, Instant::now())?;
        match seed_for {
            None => Ok(()),
            Some(seed_for) => {
                let stop = self.end_of(seed_for);
                seed::share(status, &stop, self.progress).await
            }
        }
    }

    /// Joins the swarm, with what an earlier run has left.
    async fn join(&self, place: &Arc<Place>, options: Options) -> anyhow::Result<StatusWatch> {
        let (id, earlier) = (self.id, place.clone());
        if let Some(stored) = spawn_blocking(move || earlier.resume(id)).await?? {
            return Ok(self.node.add(stored, options).await?);
        }
        let place = place.clone();
        let begin = move |manifest, hashes| place.begin(manifest, hashes);
        Ok(self.node.fetch(id, options, begin).await?)
    }

    /// Shows how it goes until everything is here.
    async fn complete(&mut self, status: &mut StatusWatch, seen: &mut Seen) -> anyhow::Result<()> {
        let mut stall = Stall { since: Instant::now(), bytes: 0, told: String::new() };
        loop {
            let now = status.borrow_and_update().clone();
            one_shot::check(&now)?;
            let snapshot = Snapshot::from(&*now);
            seen.add(Instant::now(), snapshot);
            stall.note(Instant::now(), snapshot.downloaded_bytes);
            if now.phase == Phase::Seeding {
                return Ok(());
            }
            self.progress.update(&snapshot)?;
            tokio::select! {
                changed = status.changed() => changed?,
                () = sleep_until((stall.since + STALL).into()) => self.explain(&mut stall).await?,
                () = self.interrupted.cancelled() => {
                    self.progress.clear();
                    let message = "interrupted; the same command resumes";
                    return Err(Failure::new(Exit::Interrupted, message).into());
                }
            }
        }
    }

    /// Nothing comes: says why, unless that was said before.
    async fn explain(&self, stall: &mut Stall) -> anyhow::Result<()> {
        stall.since = Instant::now();
        if let Some(explanation) = self.node.explain(self.id).await?
            && explanation.summary != stall.told
        {
            self.progress.note(&explanation.summary);
            stall.told = explanation.summary;
        }
        Ok(())
    }

    /// Cancelled when it was shared for so long, or by a signal.
    fn end_of(&self, seed_for: SeedFor) -> CancellationToken {
        let stop = self.interrupted.child_token();
        if let SeedFor::Duration(time) = seed_for {
            let stop = stop.clone();
            tokio::spawn(async move {
                sleep(time).await;
                stop.cancel();
            });
        }
        stop
    }
}

/// Since when nothing has come, or was last said why.
struct Stall {
    since: Instant,
    /// What had come by then.
    bytes: u64,
    told: String,
}

impl Stall {
    fn note(&mut self, now: Instant, bytes: u64) {
        if bytes != self.bytes {
            *self = Self { since: now, bytes, told: String::new() };
        }
    }
}

/// Where the content is put, and what came of that. Its methods block on the disk.
struct Place {
    destination: Destination,
    interrupted: CancellationToken,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
enum Outcome {
    /// Nobody had the manifest yet.
    #[default]
    Unknown,
    /// On its way, beside the destination.
    Begun(OneShot),
    /// It was there already.
    Present,
}

impl Place {
    /// An earlier run that left its state, if that can be told without the content's name.
    fn resume(&self, id: ContentId) -> anyhow::Result<Option<Arc<Stored>>> {
        let Destination::As(path) = &self.destination else { return Ok(None) };
        if path.exists() {
            return Ok(None);
        }
        let resumed = OneShot::resume(path, id).map_err(Failure::from)?;
        Ok(resumed.map(|one_shot| self.keep(one_shot)))
    }

    /// Makes room for the content.
    fn begin(&self, manifest: Manifest, hashes: PieceHashes) -> Result<Arc<Stored>, StoreError> {
        let path = self.destination.of(manifest.name());
        if path.exists() {
            return self.present(&path, &manifest);
        }
        OneShot::begin(&path, manifest, hashes).map(|one_shot| self.keep(one_shot))
    }

    /// The content as an earlier run has left it, complete; an error if it is something else.
    fn present(&self, path: &Path, manifest: &Manifest) -> Result<Arc<Stored>, StoreError> {
        let piece_length = manifest.layout().piece_length();
        let hashed = store::hash_until(&self.interrupted, path, Some(piece_length), |_| ())?;
        if hashed.manifest.id() != manifest.id() {
            return Err(StoreError::Exists(path.to_owned()));
        }
        OneShot::tidy(path, manifest.id())?;
        self.set(Outcome::Present);
        Ok(Stored::in_place(hashed))
    }

    fn keep(&self, one_shot: OneShot) -> Arc<Stored> {
        let stored = one_shot.stored().clone();
        self.set(Outcome::Begun(one_shot));
        stored
    }

    /// Moves what is complete to its destination.
    fn finish(&self) -> anyhow::Result<()> {
        match std::mem::take(&mut *self.lock()) {
            Outcome::Begun(one_shot) => {
                one_shot.finish().map_err(Failure::from)?;
                Ok(())
            }
            Outcome::Present => Ok(()),
            Outcome::Unknown => Err(anyhow::anyhow!("the download was lost")),
        }
    }

    fn set(&self, outcome: Outcome) {
        *self.lock() = outcome;
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock()
    }
}
