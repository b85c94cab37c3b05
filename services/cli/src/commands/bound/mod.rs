//! `shoal bound`: the textbook's minimum distribution times.

mod plot;

use std::{fs, num::NonZeroU64, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use shoal_common::units::Rate;
use shoal_core::bound::{Bound, Distribution};

use crate::{
    args::{BoundArgs, Format},
    exit::{Exit, Failure},
    output::{self, Align, Table},
};

/// Both times for one N.
struct Point {
    peers: u64,
    client_server: Bound,
    peer_to_peer: Bound,
}

pub(crate) fn run(args: &BoundArgs, format: Format) -> anyhow::Result<()> {
    let points: Vec<Point> = args.peers.iter().map(|peers| point(args, peers)).collect();
    if let Some(path) = &args.plot {
        if args.peers.is_one() {
            let message = "a figure needs a range of N, such as -n 1..50";
            return Err(Failure::new(Exit::Usage, message).into());
        }
        let figure = plot::figure(&points, &caption(args));
        fs::write(path, figure).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match format {
        Format::Json => output::json(&points.iter().map(to_json).collect::<Vec<_>>())?,
        Format::Human => output::line(describe(args, &points))?,
    }
    Ok(())
}

fn point(args: &BoundArgs, peers: NonZeroU64) -> Point {
    let distribution = Distribution {
        bytes: args.size.bytes(),
        peers,
        server_up_per_s: args.us.bytes_per_s(),
        peers_up_per_s: sum_in_turn(&args.ui, peers.get()),
        slowest_down_per_s: in_turn(&args.di, peers.get()).min(),
    };
    Point {
        peers: peers.get(),
        client_server: distribution.client_server(),
        peer_to_peer: distribution.peer_to_peer(),
    }
}

/// The rates that at least one of this many peers has.
fn in_turn(rates: &[Rate], peers: u64) -> impl Iterator<Item = NonZeroU64> {
    let kinds = usize::try_from(peers).unwrap_or(usize::MAX);
    rates.iter().take(kinds).map(|rate| rate.bytes_per_s())
}

/// The sum of the rates of this many peers, to which the rates are assigned in turn.
fn sum_in_turn(rates: &[Rate], peers: u64) -> u64 {
    let kinds = rates.len() as u64;
    let shares = rates.iter().zip(0..).map(|(rate, kind)| {
        let owners = peers / kinds + u64::from(kind < peers % kinds);
        rate.bytes_per_s().get().saturating_mul(owners)
    });
    shares.fold(0, u64::saturating_add)
}

fn to_json(point: &Point) -> Value {
    let bound = |bound: &Bound| json!({ "seconds": bound.time.as_secs_f64(), "term": bound.term.to_string() });
    json!({
        "peers": point.peers,
        "client_server": bound(&point.client_server),
        "p2p": bound(&point.peer_to_peer),
    })
}

fn describe(args: &BoundArgs, points: &[Point]) -> String {
    let mut lines = vec![caption(args)];
    if let [point] = points {
        let Point { peers, client_server, peer_to_peer } = point;
        lines[0] = format!("N = {peers}, {}", lines[0]);
        let line = |name: &str, bound: &Bound| {
            format!("{name:<14} {:>10}   {}", seconds(bound.time), bound.term)
        };
        lines.push(line("client-server", client_server));
        lines.push(line("P2P", peer_to_peer));
        if peer_to_peer.time < client_server.time {
            let times = client_server.time.as_secs_f64() / peer_to_peer.time.as_secs_f64();
            lines.push(format!("P2P can be {times:.1} times as fast"));
        }
    } else if let Some(path) = &args.plot {
        lines.push(format!("figure written to {}", path.display()));
    } else {
        lines.push(table(points).render());
    }
    lines.join("\n")
}

fn table(points: &[Point]) -> Table<5> {
    let mut table = Table::new([
        ("N", Align::Right),
        ("CLIENT-SERVER", Align::Right),
        ("BY", Align::Left),
        ("P2P", Align::Right),
        ("BY", Align::Left),
    ]);
    for point in points {
        table.row([
            point.peers.to_string(),
            seconds(point.client_server.time),
            point.client_server.term.to_string(),
            seconds(point.peer_to_peer.time),
            point.peer_to_peer.term.to_string(),
        ]);
    }
    table
}

fn caption(args: &BoundArgs) -> String {
    let rates = |rates: &[Rate]| rates.iter().copied().map(bits).collect::<Vec<_>>().join(", ");
    let down =
        if args.di.is_empty() { String::new() } else { format!(", di = {}", rates(&args.di)) };
    format!(
        "F = {}, us = {}, ui = {}{down}",
        output::bytes(args.size.bytes()),
        bits(args.us),
        rates(&args.ui)
    )
}

/// Hundredths of a second below 10 min.
fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(600) {
        format!("{:.2} s", time.as_secs_f64())
    } else {
        output::duration(time)
    }
}

/// In bits, as the rates of links are given.
fn bits(rate: Rate) -> String {
    let bits = rate.bytes_per_s().get() as f64 * 8.0;
    let (divisor, unit) = match bits {
        1e9.. => (1e9, "Gbit/s"),
        1e6.. => (1e6, "Mbit/s"),
        _ => (1e3, "kbit/s"),
    };
    format!("{} {unit}", (bits / divisor * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(texts: &[&str]) -> Vec<Rate> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn peers_have_the_rates_in_turn() {
        let kinds = rates(&["5B/s", "20B/s", "80B/s"]);
        assert_eq!(sum_in_turn(&kinds, 9), 3 * 105);
        assert_eq!(sum_in_turn(&kinds, 5), 105 + 25);
        assert_eq!(sum_in_turn(&kinds, 1), 5);
        assert_eq!(in_turn(&kinds, 1).min().map(NonZeroU64::get), Some(5));
        assert_eq!(in_turn(&rates(&["80B/s", "5B/s"]), 1).min().map(NonZeroU64::get), Some(80));
        assert_eq!(in_turn(&[], 3).min(), None);
    }

    #[test]
    fn rates_are_shown_in_bits() {
        for (text, shown) in
            [("200mbit", "200 Mbit/s"), ("2.5gbit", "2.5 Gbit/s"), ("100kbit", "100 kbit/s")]
        {
            assert_eq!(bits(text.parse().unwrap()), shown);
        }
    }
}
