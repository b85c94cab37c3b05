//! Line charts as SVG.

use std::{io, ops::Range};

use plotters::{coord::Shift, element::DashedPathElement, prelude::*};

/// Pixels of the page.
const SIZE: (u32, u32) = (720, 480);
const FONT: &str = "sans-serif";
const GREY: RGBColor = RGBColor(0x55, 0x55, 0x55);
const BORDER: RGBColor = RGBColor(0xbb, 0xbb, 0xbb);
/// Pixels of a dash, of the gap after it, and of a line in the legend.
const DASH: u32 = 6;
const GAP: u32 = 4;
const LEGEND_LENGTH: i32 = 24;
/// The most labels on the horizontal axis.
const MAX_LABELS: f64 = 10.0;
/// Free space above the highest point, as a part of the height.
const HEADROOM: f64 = 0.05;

/// Lines over two axes. The vertical one starts at zero.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The title.
    pub title: String,
    /// A line under the title.
    pub caption: String,
    /// What the horizontal axis shows, with its unit.
    pub across: String,
    /// The least distance between its labels: 1 if it counts something.
    pub least_tick: f64,
    /// What the vertical axis shows, with its unit.
    pub up: String,
    /// The lines.
    pub curves: Vec<Curve>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Red, green and blue.
    pub colour: (u8, u8, u8),
    /// It is dashed, to tell it from another line of its colour.
    pub is_dashed: bool,
    /// Across and up, from left to right. A point that is not finite is left out.
    pub points: Vec<(f64, f64)>,
}

type Page<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Chart {
    /// The SVG file.
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        let page = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        self.draw(&page).expect("a String takes all that is drawn");
        drop(page);
        svg
    }

    fn draw(&self, page: &Page<'_>) -> Result<(), DrawingAreaErrorKind<io::Error>> {
        page.fill(&WHITE)?;
        let below = page
            .titled(&self.title, (FONT, 20))?
            .titled(&self.caption, (FONT, 16).into_font().color(&GREY))?;
        let (across, up) = self.ranges();
        let labels = (across.end - across.start) / self.least_tick + 1.0;
        let mut axes = ChartBuilder::on(&below)
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(across, up)?;
        axes.configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(labels.clamp(2.0, MAX_LABELS) as usize)
            .x_label_formatter(&|value| label(*value))
            .y_label_formatter(&|value| label(*value))
            .label_style((FONT, 16))
            .x_desc(&self.across)
            .y_desc(&self.up)
            .draw()?;
        for Curve { name, colour: (red, green, blue), is_dashed, points } in &self.curves {
            let style = RGBColor(*red, *green, *blue).stroke_width(2);
            let (points, is_dashed) = (drawn(points), *is_dashed);
            let line = if is_dashed {
                axes.draw_series(DashedLineSeries::new(points, DASH, GAP, style))?
            } else {
                axes.draw_series(LineSeries::new(points, style))?
            };
            line.label(name).legend(move |(x, y)| {
                let ends = [(x, y), (x + LEGEND_LENGTH, y)];
                if is_dashed {
                    DashedPathElement::new(ends, DASH, GAP, style).into_dyn()
                } else {
                    PathElement::new(ends, style).into_dyn()
                }
            });
        }
        axes.configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BORDER)
            .label_font((FONT, 16))
            .draw()?;
        page.present()
    }

    /// The parts of the axes that are shown.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let points = || self.curves.iter().flat_map(|curve| drawn(&curve.points));
        let first = points().map(|(across, _)| across).reduce(f64::min).unwrap_or(0.0);
        let last = points().map(|(across, _)| across).reduce(f64::max).unwrap_or(0.0);
        let highest = points().map(|(_, up)| up).fold(0.0, f64::max);
        let last = if last > first { last } else { first + first.abs().max(1.0) };
        let highest = if highest > 0.0 { highest * (1.0 + HEADROOM) } else { 1.0 };
        (first..last, 0.0..highest)
    }
}

fn drawn(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> + Clone {
    points.iter().copied().filter(|(across, up)| across.is_finite() && up.is_finite())
}

/// A number without the noise of floating point.
fn label(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-3 {
        format!("{}", (value * 1e6).round() / 1e6)
    } else {
        format!("{value:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> Chart {
        let curve = |name: &str, is_dashed| Curve {
            name: name.to_owned(),
            colour: (31, 95, 168),
            is_dashed,
            points: points.to_vec(),
        };
        Chart {
            title: "a < b".to_owned(),
            caption: "all & more".to_owned(),
            across: "N (peers)".to_owned(),
            least_tick: 1.0,
            up: "time (s)".to_owned(),
            curves: vec![curve("one", false), curve("two", true)],
        }
    }

    /// The texts of a chart.
    fn texts(svg: &str) -> Vec<&str> {
        svg.lines().filter(|line| !line.starts_with('<')).map(str::trim).collect()
    }

    #[test]
    fn a_chart_has_its_curves_axes_with_units_and_a_legend() {
        let svg = chart(&[(1.0, 2.0), (50.0, 100.0)]).svg();
        assert!(svg.matches("<polyline").count() > 2 + 10, "a line, and the dashes of another");
        let texts = texts(&svg);
        let parts = ["one", "two", "N (peers)", "time (s)", "a &lt; b", "all &amp; more"];
        for part in parts.iter().chain(&["100", "50"]) {
            assert!(texts.contains(part), "{part} is not in {texts:?}");
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
    fn what_is_counted_has_whole_numbers() {
        let svg = chart(&[(1.0, 1.0), (3.0, 1.0)]).svg();
        assert!(!texts(&svg).contains(&"1.5") && texts(&svg).contains(&"2"), "{svg}");
    }
}
