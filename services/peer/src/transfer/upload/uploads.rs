//! Calls for our blocks, each served as far as the state machine grants.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shoal_common::lock::{Mutex, MutexGuard};
use shoal_core::{
    content::BlockRange,
    swarm::{ContentKey, Input, LinkKey, RefuseReason, ServeKey},
};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::{
    end_notice::tell_without_waiting,
    store::Stored,
    transfer::{
        event::Event,
        protocol::{MAX_BLOCK_LENGTH, MAX_RANGES},
        rate_cap::RateCap,
    },
};

/// Open calls in this process; further ones are told to come back.
const MAX_UPLOADS: usize = 1024;

/// When a caller that met that limit may come back.
const CROWDED: Duration = Duration::from_secs(1);

/// Decisions that may wait for their call: a grant for every range, and a refusal.
const VERDICTS: usize = MAX_RANGES + 1;

/// All calls for our blocks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    events: mpsc::Sender<Event>,
    cap: RateCap,
    next_key: AtomicU64,
    /// The calls that the state machine knows: it was told about them, and not yet that they ended.
    open: Mutex<HashMap<ServeKey, Open>>,
}

#[derive(Debug)]
struct Open {
    link: Option<LinkKey>,
    verdicts: mpsc::Sender<Verdict>,
}

#[derive(Debug)]
enum Verdict {
    Grant(usize),
    Refuse(RefuseReason),
}

/// A request for blocks.
pub(crate) struct BlockRequest {
    /// The content.
    pub(crate) content: ContentKey,
    /// Its bytes.
    pub(crate) stored: Arc<Stored>,
    /// The caller; none is a stranger.
    pub(crate) link: Option<LinkKey>,
    /// The ranges, in the order to be sent. Within the layout, 1 to [`MAX_RANGES`].
    pub(crate) ranges: Vec<BlockRange>,
    /// Bytes of a block, at most; 0 means [`MAX_BLOCK_LENGTH`].
    pub(crate) block_length: u32,
}

/// A block to send. Its bytes are still in their file.
pub struct Outgoing {
    pub(super) stored: Arc<Stored>,
    pub(super) block: BlockRange,
}

/// Why a request is not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadEnd {
    /// The state machine refused it.
    Refused(RefuseReason),
    /// Its link has ended, or this peer is stopping.
    Closed,
}

impl fmt::Display for UploadEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused(RefuseReason::Choked) => "you are choked; ask again when unchoked",
            Self::Refused(RefuseReason::Busy { .. }) => "no slot is free; ask again later",
            Self::Refused(RefuseReason::NotHeld) => "a requested piece is not held here",
            Self::Closed => "the link is down or this peer is stopping; ask another",
        })
    }
}

impl std::error::Error for UploadEnd {}

impl From<UploadEnd> for Status {
    fn from(end: UploadEnd) -> Self {
        let code = match end {
            UploadEnd::Refused(RefuseReason::Busy { retry_after }) => {
                return shoal_common::status::exhausted(end.to_string(), retry_after);
            }
            UploadEnd::Refused(RefuseReason::Choked) => Code::Aborted,
            UploadEnd::Refused(RefuseReason::NotHeld) => Code::NotFound,
            UploadEnd::Closed => Code::Unavailable,
        };
        Self::new(code, end.to_string())
    }
}

impl Uploads {
    /// No calls yet. Together they stay below `cap`, and report by `events`.
    pub fn new(events: mpsc::Sender<Event>, cap: RateCap) -> Self {
        let (next_key, open) = (AtomicU64::new(0), Mutex::default());
        Self(Arc::new(Shared { events, cap, next_key, open }))
    }

    /// Submits a call to the state machine.
    pub(super) async fn open(&self, request: BlockRequest) -> Result<Upload, UploadEnd> {
        let told = self.0.events.reserve().await.map_err(|_| UploadEnd::Closed)?;
        let serve = ServeKey(self.0.next_key.fetch_add(1, Ordering::Relaxed));
        let (sender, verdicts) = mpsc::channel(VERDICTS);
        {
            let mut open = self.0.open();
            if open.len() >= MAX_UPLOADS {
                let reason = RefuseReason::Busy { retry_after: CROWDED };
                return Err(UploadEnd::Refused(reason));
            }
            open.insert(serve, Open { link: request.link, verdicts: sender });
        }
        let BlockRequest { content, stored, link, ranges, block_length } = request;
        let upload = Upload {
            serve,
            stored,
            ranges: ranges.clone().into(),
            block_length: if block_length == 0 { MAX_BLOCK_LENGTH } else { block_length },
            granted: 0,
            unconfirmed: None,
            verdicts,
            shared: Arc::clone(&self.0),
        };
        told.send(Event::Swarm(Input::ServeRequested { serve, content, link, ranges }));
        Ok(upload)
    }

    /// Grants a call its next `ranges`.
    pub fn grant(&self, serve: ServeKey, ranges: usize) {
        self.decide(serve, Verdict::Grant(ranges));
    }

    /// Ends a call after its granted ranges.
    pub fn refuse(&self, serve: ServeKey, reason: RefuseReason) {
        self.decide(serve, Verdict::Refuse(reason));
    }

    /// Ends the calls of a link that has ended, without telling the state machine.
    pub fn end_link(&self, link: LinkKey) {
        self.0.open().retain(|_, open| open.link != Some(link));
    }

    /// No call is open.
    pub fn is_idle(&self) -> bool {
        self.0.open().is_empty()
    }

    fn decide(&self, serve: ServeKey, verdict: Verdict) {
        let mut calls = self.0.open();
        if let Some(open) = calls.get(&serve)
            && open.verdicts.try_send(verdict).is_err()
        {
            // More grants than there are ranges, or the call is just ending: it is over either way.
            calls.remove(&serve);
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<ServeKey, Open>> {
        self.open.lock()
    }
}

/// One call for our blocks. Dropping it before its end informs the state machine.
pub(super) struct Upload {
    serve: ServeKey,
    stored: Arc<Stored>,
    /// The ranges left to send; the first is shortened as it is sent.
    ranges: VecDeque<BlockRange>,
    block_length: u32,
    /// How many of the remaining ranges are granted.
    granted: usize,
    /// Bytes of the last returned block.
    unconfirmed: Option<u32>,
    verdicts: mpsc::Receiver<Verdict>,
    shared: Arc<Shared>,
}

impl Upload {
    /// The next block to send, as soon as it is granted and below the cap; none after the last.
    ///
    /// To be called once the transport has room again: that is when the previous block counts as
    /// sent. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Outgoing>, UploadEnd> {
        self.confirm().await?;
        let Some(range) = self.ranges.front().copied() else {
            self.forget();
            return Ok(None);
        };
        while self.granted == 0 {
            match self.verdicts.recv().await {
                Some(Verdict::Grant(ranges)) => self.granted = ranges,
                Some(Verdict::Refuse(reason)) => {
                    self.forget();
                    return Err(UploadEnd::Refused(reason));
                }
                None => return Err(UploadEnd::Closed),
            }
        }
        let block = BlockRange { length: range.length.min(self.block_length), ..range };
        self.shared.cap.pass(block.length).await;
        self.unconfirmed = Some(block.length);
        self.advance(block);
        Ok(Some(Outgoing { stored: Arc::clone(&self.stored), block }))
    }

    /// Tells the state machine that the last returned block was sent.
    async fn confirm(&mut self) -> Result<(), UploadEnd> {
        if self.unconfirmed.is_none() {
            return Ok(());
        }
        let told = self.shared.events.reserve().await.map_err(|_| UploadEnd::Closed)?;
        if self.verdicts.is_closed() {
            return Err(UploadEnd::Closed);
        }
        if let Some(bytes) = self.unconfirmed.take() {
            told.send(Event::Swarm(Input::BlockSent { serve: self.serve, bytes }));
        }
        Ok(())
    }

    fn advance(&mut self, sent: BlockRange) {
        let Some(range) = self.ranges.front_mut() else { return };
        range.offset += sent.length;
        range.length -= sent.length;
        if range.length == 0 {
            self.ranges.pop_front();
            self.granted -= 1;
        }
    }

    /// Whether the state machine still knew the call. From here on it does not.
    fn forget(&self) -> bool {
        self.shared.open().remove(&self.serve).is_some()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.forget() {
            return;
        }
        let dropped = Event::Swarm(Input::ServeDropped { serve: self.serve });
        tell_without_waiting(&self.shared.events, dropped);
    }
}
