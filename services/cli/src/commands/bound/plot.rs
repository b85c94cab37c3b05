//! The textbook's figure as SVG: least distribution time against N.

use std::fmt::Write as _;

use super::Point;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 70.0;

/// About how many labels an axis has.
const TICKS: f64 = 8.0;

const CLIENT_SERVER: Curve = Curve {
    name: "Client-server",
    colour: "#c0392b",
    dash: "9 5",
    time: |point| point.client_server.time.as_secs_f64(),
};
const PEER_TO_PEER: Curve = Curve {
    name: "P2P",
    colour: "#1f5fa8",
    dash: "none",
    time: |point| point.peer_to_peer.time.as_secs_f64(),
};

struct Curve {
    name: &'static str,
    colour: &'static str,
    dash: &'static str,
    time: fn(&Point) -> f64,
}

/// Where values lie on the page.
struct Scale {
    first: f64,
    last: f64,
    highest: f64,
    unit: TimeUnit,
}

/// What the times are written in.
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

impl Scale {
    fn x(&self, peers: f64) -> f64 {
        LEFT + (peers - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, time: f64) -> f64 {
        HEIGHT - BOTTOM - time / self.highest * (HEIGHT - TOP - BOTTOM)
    }
}

/// The whole file. There are at least two points.
pub(super) fn figure(points: &[Point], caption: &str) -> String {
    let longest = points
        .iter()
        .flat_map(|point| [(CLIENT_SERVER.time)(point), (PEER_TO_PEER.time)(point)])
        .fold(0.0, f64::max);
    let unit = TimeUnit::for_longest(longest);
    let step = tick_step((longest / unit.seconds).max(f64::MIN_POSITIVE));
    let peers = |point: Option<&Point>| point.map_or(0.0, |point| point.peers as f64);
    let scale = Scale {
        first: peers(points.first()),
        last: peers(points.last()),
        highest: (longest / unit.seconds / step).ceil().max(1.0) * step,
        unit,
    };
    let mut body = String::new();
    axes(&mut body, &scale, step);
    for curve in [&CLIENT_SERVER, &PEER_TO_PEER] {
        draw(&mut body, &scale, points, curve);
    }
    legend(&mut body);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="13" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{centre}" y="28" text-anchor="middle" font-size="17">Minimum distribution time</text>
<text x="{centre}" y="50" text-anchor="middle" fill="#555">{caption}</text>
{body}</svg>
"##,
        centre = f64::midpoint(LEFT, WIDTH - RIGHT),
    )
}

/// Grid lines and labels of both axes, and what they stand for.
fn axes(body: &mut String, scale: &Scale, step: f64) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for number in 0..=(scale.highest / step).round() as u32 {
        let value = f64::from(number) * step;
        let y = scale.y(value);
        line(body, (LEFT, y), (right, y), "#ddd");
        text(body, (LEFT - 8.0, y + 4.5), "end", &label(value));
    }
    let step = tick_step(scale.last - scale.first).max(1.0);
    let mut peers = (scale.first / step).ceil() * step;
    while peers <= scale.last {
        let x = scale.x(peers);
        line(body, (x, bottom), (x, bottom + 5.0), "#222");
        text(body, (x, bottom + 20.0), "middle", &label(peers));
        peers += step;
    }
    line(body, (LEFT, bottom), (right, bottom), "#222");
    line(body, (LEFT, TOP), (LEFT, bottom), "#222");
    text(body, (f64::midpoint(LEFT, right), HEIGHT - 22.0), "middle", "N (peers)");
    let middle = f64::midpoint(TOP, bottom);
    writing(
        body,
        format_args!(
            r#"<text transform="translate(24 {middle}) rotate(-90)" text-anchor="middle">Minimum distribution time ({})</text>"#,
            scale.unit.name
        ),
    );
}

fn draw(body: &mut String, scale: &Scale, points: &[Point], curve: &Curve) {
    let corners: Vec<String> = points
        .iter()
        .map(|point| {
            let time = (curve.time)(point) / scale.unit.seconds;
            format!("{:.1},{:.1}", scale.x(point.peers as f64), scale.y(time))
        })
        .collect();
    let Curve { colour, dash, .. } = curve;
    writing(
        body,
        format_args!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}" stroke-linejoin="round"/>"#,
            corners.join(" ")
        ),
    );
}

/// In the upper left, where neither curve is: both grow with N.
fn legend(body: &mut String) {
    let (x, top) = (LEFT + 16.0, TOP + 12.0);
    writing(
        body,
        format_args!(
            r##"<rect x="{x}" y="{top}" width="170" height="54" fill="#fff" stroke="#bbb"/>"##
        ),
    );
    for (curve, y) in [&CLIENT_SERVER, &PEER_TO_PEER].into_iter().zip([top + 18.0, top + 38.0]) {
        let Curve { name, colour, dash, .. } = curve;
        writing(
            body,
            format_args!(
                r#"<line x1="{}" y1="{y}" x2="{}" y2="{y}" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>"#,
                x + 10.0,
                x + 52.0
            ),
        );
        text(body, (x + 62.0, y + 4.5), "start", name);
    }
}

fn line(body: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    writing(
        body,
        format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}"/>"#,
            from.0, from.1, to.0, to.1
        ),
    );
}

fn text(body: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    writing(
        body,
        format_args!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}">{text}</text>"#,
            at.0, at.1
        ),
    );
}

fn writing(body: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(body, "{element}").expect("a string takes all that is written");
}

/// 1, 2 or 5 times a power of ten, so that there are about [`TICKS`] of them.
fn tick_step(range: f64) -> f64 {
    let rough = range / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = match rough / power {
        ..1.5 => 1.0,
        ..3.5 => 2.0,
        ..7.5 => 5.0,
        _ => 10.0,
    };
    factor * power
}

/// Without the noise of floating point.
fn label(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-3 {
        format!("{}", (value * 1e6).round() / 1e6)
    } else {
        format!("{value:.1e}")
    }
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
        assert_eq!(svg.matches("<polyline").count(), 2);
        for part in ["Client-server", "P2P", "N (peers)", "time (s)", "F = 50 MB", ">100<", ">50<"]
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
    fn no_extreme_makes_a_number_that_cannot_be_drawn() {
        for (last, seconds) in [(2, 0.0), (2, 1e-9), (2, 1e18), (10_000, 1e15)] {
            let svg = figure(&points(last, seconds), "");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{last} {seconds}");
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (range, step) in [(10.0, 1.0), (49.0, 5.0), (100.0, 10.0), (0.3, 0.05), (16.0, 2.0)] {
            assert!((tick_step(range) - step).abs() < 1e-9, "{range}");
        }
    }
}
