//! The I/O of the hosts: executes the outputs of state machines, moves blocks, assembles pieces.

use std::time::Duration;

use shoal_core::{
    content::{BlockRange, PieceIndex},
    swarm::{
        FetchEnd, FetchKey, Input, LinkKey, Output, PeerMessage, RefuseReason, ServeKey, UplinkIdle,
    },
};

use super::{
    event::{Call, Event, Life},
    host::{Assembled, Fetch, Serve},
    network::{Load, Parcel},
    report::Idle,
    world::{CONTENT, World},
};

/// The time to hash and write a piece.
const STORING: Duration = Duration::from_millis(1);

/// The retry delay after a refusal that names none.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl World<'_> {
    /// Executes an output of a state machine.
    pub(super) fn execute(&mut self, host: usize, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Send { message: PeerMessage::Unchoke, .. }
                if self.hosts[host].setup.free_rides => {}
            Output::Send { link, message } => self.send_message(host, link, message),
            Output::Fetch { fetch, link, ranges, block_length } => {
                self.fetch(host, link, Call { fetch, ranges, block_length });
            }
            Output::CancelFetch { fetch } => {
                if let Some(Fetch { link, .. }) = self.hosts[host].fetches.remove(&fetch)
                    && let Some(connection) = self.hosts[host].links.get(&link)
                {
                    let event = Event::Cancel { connection: connection ^ 1, fetch };
                    self.after(self.setup.latency, event);
                }
            }
            Output::Abandon { piece, attempt, .. } => self.hosts[host].abandon(piece, attempt),
            Output::Grant { serve, ranges } => self.grant(host, serve, ranges),
            Output::Refuse { serve, reason } => self.refuse(host, serve, reason),
            Output::Ban { link, .. } => {
                if let Some(connection) = self.hosts[host].links.get(&link) {
                    self.banned.insert(self.connections[*connection].to);
                }
                self.disconnect(host, link)?;
            }
            Output::Close { link } => self.disconnect(host, link)?,
            Output::Completed { .. } => {
                let elapsed = self.elapsed().saturating_sub(self.hosts[host].setup.joins);
                self.hosts[host].completed_at.get_or_insert(elapsed);
            }
            Output::Starving { .. } => self.find_neighbours(self.life(host))?,
        }
        Ok(())
    }

    /// Sends a call over a link.
    fn fetch(&mut self, host: usize, link: LinkKey, call: Call) {
        let Some(connection) = self.hosts[host].links.get(&link) else { return };
        let connection = connection ^ 1;
        let fetch = Fetch { link, ranges: call.ranges.clone() };
        self.hosts[host].fetches.insert(call.fetch, fetch);
        self.after(self.setup.latency, Event::Request { connection, call });
    }

    /// Handles a call that arrived. `connection` leads back to the caller.
    pub(super) fn request(&mut self, connection: usize, call: Call) -> anyhow::Result<()> {
        let state = &self.connections[connection];
        let (host, link) = (state.from, state.link);
        if !state.alive || self.hosts[host].setup.silent {
            return Ok(());
        }
        let serve = ServeKey(self.next_serve);
        self.next_serve += 1;
        let Call { fetch, ranges, block_length } = call;
        let ranges: Vec<_> = ranges.into_iter().map(|of| of.range).collect();
        let state =
            Serve { fetch, connection, block_length, ranges: ranges.iter().copied().collect() };
        self.hosts[host].serves.insert(serve, state);
        let input = Input::ServeRequested { serve, content: CONTENT, link: Some(link), ranges };
        self.deliver(self.life(host), input)
    }

    /// Handles the cancellation of a call.
    pub(super) fn cancelled(&mut self, connection: usize, fetch: FetchKey) -> anyhow::Result<()> {
        let host = self.connections[connection].from;
        let mut serves = self.hosts[host].serves.iter();
        let of = serves.find(|(_, s)| s.connection == connection && s.fetch == fetch);
        let Some(serve) = of.map(|(serve, _)| *serve) else { return Ok(()) };
        self.hosts[host].serves.remove(&serve);
        self.connections[connection].forget(serve);
        self.deliver(self.life(host), Input::ServeDropped { serve })
    }

    fn grant(&mut self, host: usize, serve: ServeKey, ranges: usize) {
        let Some(state) = self.hosts[host].serves.get_mut(&serve) else { return };
        let connection = state.connection;
        for _ in 0..ranges {
            let Some(range) = state.ranges.pop_front() else { break };
            let mut offset = range.offset;
            while offset < range.end() {
                let length = state.block_length.min(range.end() - offset);
                let block = BlockRange { piece: range.piece, offset, length };
                offset += length;
                let parcel = Parcel { serve, fetch: state.fetch, load: Load::Block(block) };
                self.connections[connection].grant(parcel);
            }
        }
        if state.ranges.is_empty() {
            let load = Load::End(FetchEnd::Done);
            self.connections[connection].grant(Parcel { serve, fetch: state.fetch, load });
        }
        self.fill(connection);
    }

    fn refuse(&mut self, host: usize, serve: ServeKey, reason: RefuseReason) {
        let Some(state) = self.hosts[host].serves.get_mut(&serve) else { return };
        state.ranges.clear();
        let (connection, fetch) = (state.connection, state.fetch);
        let retry_after = match reason {
            RefuseReason::Busy { retry_after } => retry_after,
            RefuseReason::Choked | RefuseReason::NotHeld => RETRY_AFTER,
        };
        let load = Load::End(FetchEnd::Refused { retry_after });
        self.connections[connection].grant(Parcel { serve, fetch, load });
        self.fill(connection);
    }

    /// Fills the transport's buffer.
    fn fill(&mut self, connection: usize) {
        while let Some(parcel) = self.connections[connection].take() {
            self.after(Duration::ZERO, Event::Taken { connection, parcel });
        }
    }

    /// A transport accepted a parcel: informs the state machine, and starts the uplink.
    pub(super) fn taken(&mut self, connection: usize, parcel: Parcel) -> anyhow::Result<()> {
        if !self.connections[connection].alive {
            return Ok(());
        }
        let host = self.connections[connection].from;
        let wire = &mut self.hosts[host].wire;
        wire.wake(&mut self.connections, connection);
        self.start_sending(host);
        match parcel.load {
            Load::Block(block) => {
                let input = Input::BlockSent { serve: parcel.serve, bytes: block.length };
                self.deliver(self.life(host), input)?;
            }
            Load::End(_) => {
                self.hosts[host].serves.remove(&parcel.serve);
            }
        }
        Ok(())
    }

    /// Sends the next parcel if the uplink is free.
    pub(super) fn start_sending(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        if state.wire.busy {
            return;
        }
        if let Some((reason, since)) = state.idle.take() {
            state.idle_times.add(reason, self.now - since);
        }
        if let Some((connection, parcel)) = state.wire.next(&mut self.connections) {
            state.wire.busy = true;
            state.sent += parcel.bytes();
            let nanos = parcel.bytes() * 1_000_000_000 / state.setup.up;
            self.after(Duration::from_nanos(nanos), Event::Sent { connection, parcel });
            self.fill(connection);
        } else {
            self.hosts[host].idle = Some((self.why_idle(host), self.now));
        }
    }

    fn why_idle(&self, host: usize) -> Idle {
        let state = &self.hosts[host];
        match state.state_machine.as_ref().and_then(shoal_core::swarm::Swarm::uplink_idle) {
            Some(UplinkIdle::Choked) => Idle::Choked,
            Some(UplinkIdle::NothingAsked) => Idle::PipelineEmpty,
            None if state.state_machine.is_some() => Idle::ReceiverFull,
            Some(UplinkIdle::NobodyInterested) | None => Idle::NobodyInterested,
        }
    }

    /// An uplink has sent a parcel.
    pub(super) fn sent(&mut self, connection: usize, parcel: Parcel) {
        let host = self.connections[connection].from;
        self.hosts[host].wire.busy = false;
        self.after(self.setup.latency, Event::Arrived { connection, parcel });
        self.start_sending(host);
    }

    /// Queues a parcel at the downlink.
    pub(super) fn arrived(&mut self, connection: usize, parcel: Parcel) {
        let host = &mut self.hosts[self.connections[connection].to];
        let nanos = parcel.bytes() * 1_000_000_000 / host.setup.down;
        host.down_free_at = host.down_free_at.max(self.now) + nanos;
        self.queue.push(host.down_free_at, Event::Drained { connection, parcel });
    }

    /// A downlink received a parcel: the sender may send more, and the receiver gets the parcel.
    pub(super) fn drained(&mut self, connection: usize, parcel: Parcel) -> anyhow::Result<()> {
        let state = &mut self.connections[connection];
        if !state.alive {
            return Ok(());
        }
        state.drained(parcel.bytes());
        let (from, to, link) = (state.from, state.to, state.link);
        let wire = &mut self.hosts[from].wire;
        wire.wake(&mut self.connections, connection);
        self.start_sending(from);
        let receiver = &mut self.hosts[to];
        if !receiver.fetches.contains_key(&parcel.fetch) {
            receiver.wasted += parcel.bytes();
            return Ok(());
        }
        match parcel.load {
            Load::Block(block) => self.block_arrived(from, to, link, parcel.fetch, block),
            Load::End(end) => {
                receiver.fetches.remove(&parcel.fetch);
                let input = Input::FetchEnded { fetch: parcel.fetch, end };
                self.deliver(self.life(to), input)
            }
        }
    }

    fn block_arrived(
        &mut self,
        from: usize,
        host: usize,
        link: LinkKey,
        fetch: FetchKey,
        block: BlockRange,
    ) -> anyhow::Result<()> {
        let is_rubbish = self.hosts[from].setup.poisons;
        let state = &mut self.hosts[host];
        let ranges = state.fetches.get(&fetch).map(|fetch| fetch.ranges.as_slice());
        let of = ranges.unwrap_or_default().iter().find(|of| of.range.piece == block.piece);
        let Some(attempt) = of.map(|of| of.attempt) else { return Ok(()) };
        let (is_new, assembled) = state.assemble(&self.layout, attempt, block, link, is_rubbish);
        if is_new {
            state.received += u64::from(block.length);
        } else {
            state.wasted += u64::from(block.length);
        }
        self.deliver(
            self.life(host),
            Input::BlockArrived { content: super::world::CONTENT, fetch, block },
        )?;
        if let Some(assembled) = assembled {
            let (to, piece) = (self.life(host), block.piece);
            self.after(STORING, Event::Stored { to, piece, assembled });
        }
        Ok(())
    }

    /// Handles a piece that was hashed.
    pub(super) fn stored(
        &mut self,
        to: Life,
        piece: PieceIndex,
        assembled: Assembled,
    ) -> anyhow::Result<()> {
        let host = &mut self.hosts[to.host];
        if host.life != to.number {
            return Ok(());
        }
        let Assembled { attempt, contributors, liars } = assembled;
        if !liars.is_empty() {
            host.suspects.entry(piece).or_default().extend(liars);
            let contributors = contributors.into_iter().collect();
            let input = Input::PieceCorrupt { content: CONTENT, piece, attempt, contributors };
            return self.deliver(to, input);
        }
        host.hold(piece);
        let suspects = host.suspects.remove(&piece).unwrap_or_default();
        for link in suspects {
            self.deliver(to, Input::CaughtLying { link })?;
        }
        self.deliver(to, Input::PieceStored { content: CONTENT, piece })?;
        self.check_publisher()
    }
}
