//! The textbook's figure as SVG: minimum distribution time against N.

use shoal_chart::{Chart, Curve};

use super::Point;

/// The unit of the times.
struct TimeUnit {
    name: &'static str,
    seconds: f64,
}

impl TimeUnit {
    fn for_longest(seconds: f64) -> Self {
        match seconds {
            ..600.0 => Self { name: "s", seconds: 1.0 },
            ..36_000.0 => Self { name: "min", seconds: 60.0 },
            _ => Self { name: "h", seconds: 3600.0 },
        }
    }
}

/// The SVG file. There must be at least two points.
pub(super) fn figure(points: &[Point], caption: &str) -> String {
    let client_server = |point: &Point| point.client_server.time.as_secs_f64();
    let peer_to_peer = |point: &Point| point.peer_to_peer.time.as_secs_f64();
    let longest = points
        .iter()
        .flat_map(|point| [client_server(point), peer_to_peer(point)])
        .fold(0.0, f64::max);
    let unit = TimeUnit::for_longest(longest);
    let curve = |name: &str, colour, is_dashed, time: &dyn Fn(&Point) -> f64| Curve {
        name: name.to_owned(),
        colour,
        is_dashed,
        points: points
            .iter()
            .map(|point| (point.peers as f64, time(point) / unit.seconds))
            .collect(),
    };
    let chart = Chart {
        title: "Minimum distribution time".to_owned(),
        caption: caption.to_owned(),
        across: "N (peers)".to_owned(),
        least_tick: 1.0,
        up: format!("Minimum distribution time ({})", unit.name),
        curves: vec![
            curve("Client-server", (0xc0, 0x39, 0x2b), true, &client_server),
            curve("P2P", (0x1f, 0x5f, 0xa8), false, &peer_to_peer),
        ],
    };
    chart.svg()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_core::bound::{Bound, Term};

    use super::*;

    fn points(last: u64, seconds: f64) -> Vec<Point> {
        let bound =
            |seconds| Bound { time: Duration::from_secs_f64(seconds), term: Term::ServerCopies };
        (1..=last)
            .map(|peers| Point {
                peers,
                client_server: bound(seconds * peers as f64),
                peer_to_peer: bound(seconds),
            })
            .collect()
    }

    #[test]
    fn a_figure_has_two_curves_axes_with_units_and_a_legend() {
        let svg = figure(&points(50, 2.0), "F = 50 MB");
        assert!(svg.contains("<polyline"));
        for part in
            ["Client-server", "P2P", "N (peers)", "time (s)", "F = 50 MB", "\n100\n", "\n50\n"]
        {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn long_times_are_in_longer_units() {
        assert!(figure(&points(10, 100.0), "").contains("time (min)"));
        assert!(figure(&points(10, 10_000.0), "").contains("time (h)"));
    }

    #[test]
    fn extreme_times_are_drawn_with_finite_numbers() {
        for (last, seconds) in [(2, 0.0), (2, 1e-9), (2, 1e18), (10_000, 1e15)] {
            let svg = figure(&points(last, seconds), "");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{last} {seconds}");
        }
    }
}
