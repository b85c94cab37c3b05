//! The progress of the peers: a bar for each in a terminal, otherwise a line per second.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressStyle};

use super::Peer;

/// Time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

pub(super) enum Display {
    Bars { bytes: u64, all: MultiProgress, bars: Vec<ProgressBar> },
    Lines { bytes: u64, next: Duration },
}

impl Display {
    /// A display for peers that each fetch `bytes` bytes.
    pub(super) fn new(bytes: u64) -> Self {
        if io::stderr().is_terminal() {
            Self::Bars { bytes, all: MultiProgress::new(), bars: Vec::new() }
        } else {
            Self::Lines { bytes, next: LINE_INTERVAL }
        }
    }

    /// Prints an event of the demonstration.
    pub(super) fn print_event(&self, elapsed: Duration, event: &str) {
        let line = format!("{:>5.1} s     {event}", elapsed.as_secs_f64());
        match self {
            // An error means that the terminal is gone, and with it the reader.
            Self::Bars { all, .. } => drop(all.println(line)),
            Self::Lines { .. } => eprintln!("{line}"),
        }
    }

    pub(super) fn show(&mut self, elapsed: Duration, peers: &[Peer]) {
        match self {
            Self::Bars { bytes, all, bars } => {
                let new = peers[bars.len()..].iter().map(|peer| {
                    let bar = all.add(ProgressBar::new(*bytes).with_style(style()));
                    bar.with_prefix(peer.name.clone())
                });
                bars.extend(new.collect::<Vec<_>>());
                for (bar, peer) in bars.iter().zip(peers) {
                    bar.set_position(peer.progress.held_bytes);
                    bar.set_message(describe(peer));
                }
            }
            Self::Lines { bytes, next } if elapsed >= *next => {
                *next = elapsed + LINE_INTERVAL;
                eprintln!("{}", line(elapsed, *bytes, peers));
            }
            Self::Lines { .. } => {}
        }
    }

    /// Leaves the last state on the screen.
    pub(super) fn end(self) {
        if let Self::Bars { all, bars, .. } = self {
            bars.iter().for_each(ProgressBar::abandon);
            drop(all);
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:<8}{bar:40.cyan/blue} {percent:>3} % {msg}")
        .expect("the template is well-formed")
        .progress_chars("=> ")
}

fn describe(peer: &Peer) -> String {
    match peer.completed {
        Some(time) => format!("complete after {:.2} s", time.as_secs_f64()),
        None => format!(
            "{}/s, {} neighbours",
            DecimalBytes(peer.progress.down_bytes_per_s),
            peer.progress.neighbours
        ),
    }
}

/// The progress of all peers in one line.
fn line(elapsed: Duration, bytes: u64, peers: &[Peer]) -> String {
    let shares = peers.iter().map(|peer| {
        let percent = peer.progress.held_bytes.saturating_mul(100) / bytes;
        format!("{percent:>3} %")
    });
    let rate = peers.iter().map(|peer| peer.progress.down_bytes_per_s).sum();
    let shares = shares.collect::<Vec<_>>().join(" ");
    format!("{:>5.1} s     {shares}   {}/s in total", elapsed.as_secs_f64(), DecimalBytes(rate))
}

#[cfg(test)]
mod tests {
    use crate::fleet::Progress;

    use super::*;

    #[test]
    fn a_line_has_each_peers_share_and_the_total_rate() {
        let peer = |held_bytes| Peer {
            name: "peer".into(),
            copy: "copy".into(),
            progress: Progress { held_bytes, down_bytes_per_s: 1_000_000, ..Progress::default() },
            completed: None,
        };
        assert_eq!(
            line(Duration::from_millis(1500), 200, &[peer(20), peer(200)]),
            "  1.5 s      10 % 100 %   2.00 MB/s in total"
        );
    }
}
