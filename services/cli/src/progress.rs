//! Progress: as a bar, as lines, or as JSON for scripts.

mod pace;

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shoal_common::{clock::unix_ms, text::lines};
use shoal_core::content::ContentId;
use shoal_proto::control::v1::{ContentState, ContentStatus};

use self::pace::{Pace, RateMeter};
use crate::{
    args::ProgressMode,
    exit::Exit,
    output::{self, bytes, count, rate},
    summary::DownloadStats,
};

/// Time between two lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);
/// Time before the first line and between two of them, where no lines were requested.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two JSON objects.
const JSON_INTERVAL: Duration = Duration::from_millis(250);

/// The state of a content, or of work on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Hashing,
    Uploading,
    Checking,
    Resolving,
    Downloading,
    Seeding,
    Failed,
}

impl State {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hashing => "hashing",
            Self::Uploading => "uploading",
            Self::Checking => "checking",
            Self::Resolving => "resolving",
            Self::Downloading => "downloading",
            Self::Seeding => "seeding",
            Self::Failed => "failed",
        }
    }
}

/// The progress at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    /// Bytes done.
    pub(crate) held_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) held_pieces: u32,
    pub(crate) piece_count: u32,
    pub(crate) neighbours: u32,
    pub(crate) down_bytes_per_s: u64,
    pub(crate) up_bytes_per_s: u64,
    pub(crate) downloaded_bytes: u64,
    pub(crate) uploaded_bytes: u64,
    pub(crate) wasted_bytes: u64,
    pub(crate) from_seeders_bytes: u64,
}

impl Snapshot {
    /// The progress of work on this machine.
    pub(crate) const fn local(state: State, held_bytes: u64, total_bytes: u64) -> Self {
        Self {
            state,
            held_bytes,
            total_bytes,
            held_pieces: 0,
            piece_count: 0,
            neighbours: 0,
            down_bytes_per_s: 0,
            up_bytes_per_s: 0,
            downloaded_bytes: 0,
            uploaded_bytes: 0,
            wasted_bytes: 0,
            from_seeders_bytes: 0,
        }
    }
}

impl From<&ContentStatus> for Snapshot {
    fn from(status: &ContentStatus) -> Self {
        Self {
            state: status.state().into(),
            held_bytes: status.held_bytes,
            total_bytes: status.total_bytes,
            held_pieces: status.held_pieces,
            piece_count: status.piece_count,
            neighbours: status.neighbours,
            down_bytes_per_s: status.down_bytes_per_s,
            up_bytes_per_s: status.up_bytes_per_s,
            downloaded_bytes: status.downloaded_bytes,
            uploaded_bytes: status.uploaded_bytes,
            wasted_bytes: status.wasted_bytes,
            from_seeders_bytes: status.from_seeders_bytes,
        }
    }
}

impl From<ContentState> for State {
    fn from(state: ContentState) -> Self {
        match state {
            ContentState::Unspecified | ContentState::Resolving => Self::Resolving,
            ContentState::Checking => Self::Checking,
            ContentState::Downloading => Self::Downloading,
            ContentState::Seeding => Self::Seeding,
            ContentState::Failed => Self::Failed,
        }
    }
}

/// A line of `--progress json`. Scripts rely on the names.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    Published {
        id: &'a str,
        link: &'a str,
        unix_ms: u64,
    },
    Progress {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(flatten)]
        snapshot: &'a Snapshot,
        unix_ms: u64,
    },
    Completed {
        id: &'a str,
        bytes: u64,
        seconds: f64,
        /// The largest number of neighbours at a time.
        peers: u32,
        wasted_bytes: u64,
        unix_ms: u64,
    },
    Error {
        message: &'a str,
        exit: Exit,
        unix_ms: u64,
    },
}

/// Shows progress.
pub(crate) struct Progress {
    mode: ProgressMode,
    style: Style,
    quiet: bool,
    id: Option<String>,
    meter: RateMeter,
}

enum Style {
    Silent,
    /// Present while there is something to show.
    Bar(Option<ProgressBar>),
    Plain(Pace),
    Json(Pace),
}

impl Progress {
    /// `quiet` leaves only errors on stderr.
    pub(crate) fn new(mode: ProgressMode, quiet: bool) -> Self {
        let style = match mode {
            ProgressMode::Json => Style::Json(Pace::new(JSON_INTERVAL)),
            _ if quiet => Style::Silent,
            ProgressMode::Plain => Style::Plain(Pace::new(PLAIN_INTERVAL)),
            ProgressMode::Auto if io::stderr().is_terminal() => Style::Bar(None),
            ProgressMode::Auto | ProgressMode::None => Style::Silent,
        };
        Self { mode, style, quiet, id: None, meter: RateMeter::default() }
    }

    /// Sets the id of the events that follow.
    pub(crate) fn set_id(&mut self, id: ContentId) {
        self.id = Some(id.to_string());
    }

    /// Shows the snapshot, unless another one was shown just before.
    pub(crate) fn update(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let now = Instant::now();
        let rate = self.meter.add(now, snapshot.state, snapshot.held_bytes);
        match &mut self.style {
            Style::Silent => {}
            Style::Bar(shown) => {
                let bar = shown.get_or_insert_with(bar);
                bar.set_length(snapshot.total_bytes.max(1));
                bar.set_position(snapshot.held_bytes);
                bar.set_message(describe(snapshot, rate));
            }
            Style::Plain(pace) => {
                if pace.is_due(now, snapshot.state) {
                    eprintln!("{}{}", percent(snapshot), describe(snapshot, rate));
                }
            }
            Style::Json(pace) => {
                if pace.is_due(now, snapshot.state) {
                    let id = self.id.as_deref();
                    output::json(&Event::Progress { id, snapshot, unix_ms: unix_ms() })?;
                }
            }
        }
        Ok(())
    }

    /// Prints the id on stdout and the link on stderr, or one event with both.
    pub(crate) fn published(&mut self, id: &str, link: &str) -> io::Result<()> {
        self.clear();
        if matches!(self.style, Style::Json(_)) {
            return output::json(&Event::Published { id, link, unix_ms: unix_ms() });
        }
        output::line(id)?;
        self.note(link);
        Ok(())
    }

    /// Reports that the content is complete.
    pub(crate) fn completed(
        &mut self,
        id: ContentId,
        stats: &DownloadStats,
        now: Instant,
    ) -> io::Result<()> {
        self.clear();
        if !matches!(self.style, Style::Json(_)) {
            self.note(&stats.summary(now));
            return Ok(());
        }
        let last = stats.last();
        output::json(&Event::Completed {
            id: &id.to_string(),
            bytes: last.map_or(0, |last| last.total_bytes),
            seconds: stats.took(now).as_secs_f64(),
            peers: stats.peers(),
            wasted_bytes: last.map_or(0, |last| last.wasted_bytes),
            unix_ms: unix_ms(),
        })
    }

    /// For a command whose only result is progress: prints lines where no bar can be drawn.
    pub(crate) fn show_without_terminal(&mut self) {
        if self.is_without_terminal() {
            self.style = Style::Plain(Pace::new(PLAIN_INTERVAL));
        }
    }

    /// For a download: prints a line now and then where no bar can be drawn.
    pub(crate) fn log_without_terminal(&mut self) {
        if self.is_without_terminal() {
            self.style = Style::Plain(Pace::after(LOG_INTERVAL));
        }
    }

    const fn is_without_terminal(&self) -> bool {
        matches!(self.style, Style::Silent)
            && matches!(self.mode, ProgressMode::Auto)
            && !self.quiet
    }

    /// Prints a message on stderr, above the bar.
    pub(crate) fn note(&self, text: &str) {
        let text = lines(text);
        match &self.style {
            Style::Json(_) => {}
            _ if self.quiet => {}
            Style::Bar(Some(bar)) => bar.suspend(|| eprintln!("{text}")),
            Style::Bar(None) | Style::Plain(_) | Style::Silent => eprintln!("{text}"),
        }
    }

    /// Removes the bar until the next update.
    pub(crate) fn clear(&mut self) {
        if let Style::Bar(shown) = &mut self.style
            && let Some(bar) = shown.take()
        {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar:.cyan/blue} {percent:>3} % {msg}")
        .expect("the template is well-formed");
    ProgressBar::new(1).with_style(style.progress_chars("=> "))
}

/// How much of a known total is done, for the start of a line.
fn percent(snapshot: &Snapshot) -> String {
    let is_work = !matches!(snapshot.state, State::Resolving | State::Seeding | State::Failed);
    let done = u128::from(snapshot.held_bytes) * 100;
    match done.checked_div(snapshot.total_bytes.into()).filter(|_| is_work) {
        Some(percent) => format!("{percent} %: "),
        None => String::new(),
    }
}

/// A snapshot in one line.
fn describe(snapshot: &Snapshot, bytes_per_s: u64) -> String {
    let peers = count(u64::from(snapshot.neighbours), "peer");
    let amount = match snapshot.total_bytes {
        0 => bytes(snapshot.held_bytes),
        total => format!("{} of {}", bytes(snapshot.held_bytes), bytes(total)),
    };
    let left = snapshot.total_bytes.saturating_sub(snapshot.held_bytes);
    let pace = match left.checked_div(bytes_per_s) {
        Some(seconds) if left > 0 => {
            format!("{}, {} left", rate(bytes_per_s), left_time(seconds.max(1)))
        }
        _ => rate(bytes_per_s),
    };
    match snapshot.state {
        State::Hashing => format!("hashing: {amount}, {pace}"),
        State::Uploading => format!("uploading: {amount}, {pace}"),
        State::Checking => format!("checking: {amount}, {pace}"),
        State::Resolving => format!("looking for a peer that has it, {peers}"),
        State::Downloading => format!(
            "{amount}, {pace}, {peers}, {}/{} pieces",
            snapshot.held_pieces, snapshot.piece_count
        ),
        State::Seeding => format!(
            "seeding: {peers}, {} up, {} sent",
            rate(snapshot.up_bytes_per_s),
            bytes(snapshot.uploaded_bytes)
        ),
        State::Failed => "failed".to_owned(),
    }
}

/// In whole seconds at most, because it is an estimate.
fn left_time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => output::duration(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn downloading() -> Snapshot {
        Snapshot {
            held_pieces: 5,
            piece_count: 20,
            neighbours: 3,
            ..Snapshot::local(State::Downloading, 12_500_000, 50_000_000)
        }
    }

    #[test]
    fn a_line_has_amount_rate_time_left_peers_and_pieces() {
        assert_eq!(
            describe(&downloading(), 1_250_000),
            "12.50 MB of 50.00 MB, 1.25 MB/s, 30 s left, 3 peers, 5/20 pieces"
        );
        assert!(describe(&downloading(), 0).contains("0 B/s, 3 peers"));
    }

    #[test]
    fn events_have_the_names_that_scripts_rely_on() {
        let json = |event: &Event| serde_json::to_value(event).unwrap();
        let progress =
            json(&Event::Progress { id: Some("x"), snapshot: &downloading(), unix_ms: 1 });
        assert_eq!(progress["event"], "progress");
        assert_eq!(progress["state"], "downloading");
        assert_eq!(progress["held_bytes"], 12_500_000);
        let completed = Event::Completed {
            id: "x",
            bytes: 1,
            seconds: 0.5,
            peers: 2,
            wasted_bytes: 3,
            unix_ms: 4,
        };
        assert_eq!(
            json(&completed),
            serde_json::json!({
                "event": "completed", "id": "x", "bytes": 1, "seconds": 0.5, "peers": 2,
                "wasted_bytes": 3, "unix_ms": 4,
            })
        );
        assert_eq!(
            json(&Event::Published { id: "x", link: "shoal:x", unix_ms: 4 }),
            serde_json::json!({"event": "published", "id": "x", "link": "shoal:x", "unix_ms": 4})
        );
    }
}
