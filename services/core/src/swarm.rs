//! The swarm state machine: which neighbours to serve, which pieces to request, and from whom.
//!
//! [`Swarm`] is a state machine for all contents of one process, because slots, rates and memory
//! belong to the process: `handle(now, input, &mut outputs)` and `next_deadline()`. It is told that
//! blocks arrive and leave, never their bytes. The shell around it moves those, and keeps the
//! clock.
//!
//! | file | what it decides |
//! |---|---|
//! | `links` | effects of a neighbour's messages, interest, bans |
//! | `pieces` | pieces that are stored, corrupt, or change their priority |
//! | `have` | which pieces are announced to which neighbour, and when: HAVE, Suggest, super-seeding |
//! | `requests` | which pieces are requested from whom, and when a request is given up |
//! | `choker` | which neighbours are unchoked |
//! | `uplink` | in which order they are served |
//! | `picker`, `pending`, `content`, `neighbour`, `rate` | the state of these |
//! | `interface`, `report` | inputs and outputs, settings, and the observable state |

mod choker;
mod content;
mod have;
mod interface;
mod links;
mod neighbour;
mod pending;
mod picker;
mod pieces;
mod rate;
mod report;
mod requests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod uplink;

use std::{collections::BTreeMap, time::Instant};

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

use self::{
    choker::Choker, content::Content, neighbour::Neighbour, requests::Requests, uplink::Uplink,
};

pub use interface::{
    Attempt, BanReason, Capabilities, ContentKey, ContentStatus, FetchEnd, FetchKey, FetchRange,
    IdleReason, Input, LinkKey, LinkStatus, Output, PeerMessage, PieceState, Priority,
    RefuseReason, ServeKey, Settings, Totals, UplinkIdle,
};

/// The swarm state machine of one process.
#[derive(Debug)]
pub struct Swarm {
    settings: Settings,
    rng: Xoshiro256PlusPlus,
    contents: BTreeMap<ContentKey, Content>,
    neighbours: BTreeMap<LinkKey, Neighbour>,
    requests: Requests,
    uplink: Uplink,
    choker: Choker,
    /// When gathered HAVEs are due.
    haves_at: Option<Instant>,
    /// When to check for timeouts.
    sweep_at: Option<Instant>,
    outputs: Vec<Output>,
}

impl Swarm {
    /// A state machine without contents. The seed determines all random choices.
    pub fn new(settings: Settings, rng_seed: u64) -> Self {
        Self {
            settings,
            rng: Xoshiro256PlusPlus::seed_from_u64(rng_seed),
            contents: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            requests: Requests::default(),
            uplink: Uplink::new(),
            choker: Choker::default(),
            haves_at: None,
            sweep_at: None,
            outputs: Vec::new(),
        }
    }

    /// Handles what happened at `now`, and appends the actions that follow, in order. Inputs with
    /// unknown keys are ignored.
    pub fn handle(&mut self, now: Instant, input: Input, outputs: &mut Vec<Output>) {
        self.dispatch(now, input);
        outputs.append(&mut self.outputs);
    }

    fn dispatch(&mut self, now: Instant, input: Input) {
        match input {
            Input::AddContent { content, layout, held, sequential, super_seeding } => {
                self.on_add_content(content, layout, held, sequential, super_seeding);
            }
            Input::Prioritise { content, pieces, priority } => {
                self.on_prioritise(now, content, &pieces, priority);
            }
            Input::LayoutKnown { content, layout } => self.on_layout_known(now, content, layout),
            Input::RemoveContent { content } => self.on_remove_content(now, content),
            Input::LinkUp { link, content, peer, capabilities, round_trip } => {
                self.on_link_up(now, link, content, peer, capabilities, round_trip);
            }
            Input::LinkDown { link } => self.drop_link(now, link),
            Input::Message { link, message } => self.on_message(now, link, message),
            Input::RoundTrip { link, round_trip } => {
                if let Some(neighbour) = self.neighbours.get_mut(&link) {
                    neighbour.answered(round_trip);
                }
            }
            Input::BlockArrived { content, fetch, block } => {
                self.on_block_arrived(now, content, fetch, block);
            }
            Input::FetchEnded { fetch, end } => self.on_fetch_ended(now, fetch, end),
            Input::PieceStored { content, piece } => self.on_piece_stored(now, content, piece),
            Input::PieceCorrupt { content, piece, attempt, contributors } => {
                self.on_piece_corrupt(now, content, piece, attempt, &contributors);
            }
            Input::CaughtLying { link } => self.ban(now, link, BanReason::Corruption),
            Input::ServeRequested { serve, content, link, ranges } => {
                self.on_serve_requested(now, serve, content, link, ranges);
            }
            Input::BlockSent { serve, bytes } => self.on_block_sent(now, serve, bytes),
            Input::ServeDropped { serve } => self.on_serve_dropped(now, serve),
            Input::Tick => self.on_tick(now),
        }
    }

    /// When to send the next [`Input::Tick`], unless something else comes first; none if there is
    /// nothing to wait for.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.haves_at,
            self.uplink.stall_at,
            self.uplink.strangers_at,
            self.choker.lend_at,
            self.choker.rechoke_at,
            self.sweep_at,
        ];
        deadlines.into_iter().flatten().min()
    }

    fn on_tick(&mut self, now: Instant) {
        self.send_haves(now);
        self.pass_over_stalled(now);
        self.drop_stalled_strangers(now);
        if self.choker.lend_at.is_some_and(|at| now >= at) {
            self.lend_slot(now);
        }
        self.rechoke(now);
        self.sweep(now);
    }

    /// What need not happen at once: timeouts, asking again, starvation.
    fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        self.time_out(now);
        let leeching = self.contents.iter().filter(|(_, content)| !content.is_seeding());
        let leeching: Vec<_> = leeching.map(|(key, _)| *key).collect();
        for content in &leeching {
            self.refill_all(now, *content);
            self.cry_if_starving(now, *content);
        }
        self.sweep_at = (!leeching.is_empty()).then(|| now + self.settings.sweep_interval);
    }
}
