//! Line charts as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 70.0;

/// About how many labels an axis has.
const TICKS: f64 = 8.0;

/// Lines over two axes, the upper of which starts at zero.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// Under the title, in grey.
    pub caption: String,
    /// What is told from left to right, with its unit.
    pub across: String,
    /// The least distance between its labels: 1 if it is counted.
    pub least_tick: f64,
    /// What is told upwards, with its unit.
    pub up: String,
    /// What is drawn.
    pub curves: Vec<Curve>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Curve {
    /// For the legend.
    pub name: String,
    /// As CSS has it.
    pub colour: &'static str,
    /// Lengths of dashes and gaps, or `none`.
    pub dash: &'static str,
    /// Across and up, from left to right. What is no number is left out.
    pub points: Vec<(f64, f64)>,
}

/// Where values lie on the page.
struct Scale {
    first: f64,
    last: f64,
    highest: f64,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.highest * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// The whole file.
    pub fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(Curve::drawn);
        let highest = points().map(|(_, up)| up).fold(0.0, f64::max);
        let step = tick_step(highest.max(f64::MIN_POSITIVE));
        let first = points().map(|(across, _)| across).reduce(f64::min).unwrap_or(0.0);
        let last = points().map(|(across, _)| across).reduce(f64::max).unwrap_or(1.0);
        let scale = Scale {
            first,
            last: if last > first { last } else { first + first.abs().max(1.0) },
            highest: (highest / step).ceil().max(1.0) * step,
        };
        let mut body = String::new();
        self.axes(&mut body, &scale, step);
        for curve in &self.curves {
            curve.draw(&mut body, &scale);
        }
        self.legend(&mut body);
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="13" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{centre}" y="28" text-anchor="middle" font-size="17">{title}</text>
<text x="{centre}" y="50" text-anchor="middle" fill="#555">{caption}</text>
{body}</svg>
"##,
            centre = f64::midpoint(LEFT, WIDTH - RIGHT),
            title = escaped(&self.title),
            caption = escaped(&self.caption),
        )
    }

    /// Grid lines and labels of both axes, and what they stand for.
    fn axes(&self, body: &mut String, scale: &Scale, step: f64) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for number in 0..=(scale.highest / step).round() as u32 {
            let value = f64::from(number) * step;
            let y = scale.y(value);
            line(body, (LEFT, y), (right, y), "#ddd");
            text(body, (LEFT - 8.0, y + 4.5), "end", &label(value));
        }
        let step = tick_step(scale.last - scale.first).max(self.least_tick);
        let lowest = (scale.first / step).ceil() * step;
        for number in 0..=((scale.last - lowest) / step).floor() as u32 {
            let value = lowest + f64::from(number) * step;
            let x = scale.x(value);
            line(body, (x, bottom), (x, bottom + 5.0), "#222");
            text(body, (x, bottom + 20.0), "middle", &label(value));
        }
        line(body, (LEFT, bottom), (right, bottom), "#222");
        line(body, (LEFT, TOP), (LEFT, bottom), "#222");
        text(body, (f64::midpoint(LEFT, right), HEIGHT - 22.0), "middle", &self.across);
        let middle = f64::midpoint(TOP, bottom);
        writing(
            body,
            format_args!(
                r#"<text transform="translate(24 {middle}) rotate(-90)" text-anchor="middle">{}</text>"#,
                escaped(&self.up)
            ),
        );
    }

    /// In the upper left.
    fn legend(&self, body: &mut String) {
        let (x, top) = (LEFT + 16.0, TOP + 12.0);
        let height = 14.0 + 20.0 * self.curves.len() as f64;
        writing(
            body,
            format_args!(
                r##"<rect x="{x}" y="{top}" width="170" height="{height}" fill="#fff" fill-opacity="0.8" stroke="#bbb"/>"##
            ),
        );
        for (number, curve) in self.curves.iter().enumerate() {
            let y = top + 18.0 + 20.0 * number as f64;
            let Curve { colour, dash, .. } = curve;
            writing(
                body,
                format_args!(
                    r#"<line x1="{}" y1="{y}" x2="{}" y2="{y}" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>"#,
                    x + 10.0,
                    x + 52.0
                ),
            );
            text(body, (x + 62.0, y + 4.5), "start", &curve.name);
        }
    }
}

impl Curve {
    fn drawn(&self) -> impl Iterator<Item = (f64, f64)> {
        let points = self.points.iter().copied();
        points.filter(|(across, up)| across.is_finite() && up.is_finite())
    }

    fn draw(&self, body: &mut String, scale: &Scale) {
        let corner = |(across, up)| format!("{:.1},{:.1}", scale.x(across), scale.y(up));
        let corners: Vec<String> = self.drawn().map(corner).collect();
        let Self { colour, dash, .. } = self;
        writing(
            body,
            format_args!(
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}" stroke-linejoin="round"/>"#,
                corners.join(" ")
            ),
        );
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
            r#"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            at.0,
            at.1,
            escaped(text)
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

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> Chart {
        let curve = |name: &str| Curve {
            name: name.to_owned(),
            colour: "#1f5fa8",
            dash: "none",
            points: points.to_vec(),
        };
        Chart {
            title: "a < b".to_owned(),
            caption: "all & more".to_owned(),
            across: "N (peers)".to_owned(),
            least_tick: 1.0,
            up: "time (s)".to_owned(),
            curves: vec![curve("one"), curve("two")],
        }
    }

    #[test]
    fn a_chart_has_its_curves_axes_with_units_and_a_legend() {
        let svg = chart(&[(1.0, 2.0), (50.0, 100.0)]).svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        let parts = ["one", "two", "N (peers)", "time (s)", "a &lt; b", "&amp; more"];
        for part in parts.iter().chain(&[">100<", ">50<"]) {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn no_extreme_makes_a_number_that_cannot_be_drawn() {
        let same = (3.0, 1.0);
        for points in [
            &[][..],
            &[same],
            &[same, same],
            &[(0.0, 0.0), (1.0, 0.0)],
            &[(0.0, 1e-9), (1e18, 1e18)],
            &[(0.0, f64::NAN), (f64::INFINITY, 1.0), (1.0, 1.0)],
        ] {
            let svg = chart(points).svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?}");
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (range, step) in [(10.0, 1.0), (49.0, 5.0), (100.0, 10.0), (0.3, 0.05), (16.0, 2.0)] {
            assert!((tick_step(range) - step).abs() < 1e-9, "{range}");
        }
    }
}
