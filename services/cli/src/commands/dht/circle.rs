//! A drawing of nodes on a circle for terminals: dots of Braille characters, marks and numbers.

use std::f64::consts::TAU;

/// Dots in a character, across and down. A character is about twice as high as wide, so dots have
/// the same distance in both directions.
const DOTS: (usize, usize) = (2, 4);
/// The bit of each dot within a Braille character, row by row.
const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
const BRAILLE: u32 = 0x2800;

/// Rows between the circle and the edge, for numbers.
const MARGIN: usize = 2;
/// Possible places of a node's number, in dots: the distance outside the circle, and clockwise of
/// the node. The first free place is used.
const LABEL_PLACES: [(f64, f64); 10] = [
    (5.0, 0.0),
    (5.0, 3.0),
    (5.0, -3.0),
    (7.5, 0.0),
    (7.5, 4.0),
    (7.5, -4.0),
    (5.0, 6.0),
    (5.0, -6.0),
    (7.5, 8.0),
    (7.5, -8.0),
];

/// A node on the circle.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its position as a fraction of the circle, clockwise from the top: 0 to 1.
    pub(super) turn: f64,
    pub(super) mark: char,
}

/// Draws nodes at their places, numbered from 1, and lines from one of them to others.
pub(super) fn draw(places: &[Place], lines: Option<(usize, &[usize])>) -> String {
    let rows = match places.len() {
        0..=8 => 17,
        9..=24 => 23,
        _ => 33,
    };
    let mut canvas = Canvas::new(rows);
    canvas.outline();
    if let Some((from, to)) = lines {
        for &to in to {
            canvas.line(canvas.point(places[from].turn), canvas.point(places[to].turn));
        }
    }
    for place in places {
        let (x, y) = canvas.cell(canvas.point(place.turn));
        canvas.cells[y][x] = place.mark;
    }
    for (index, place) in places.iter().enumerate() {
        canvas.label(place.turn, &(index + 1).to_string());
    }
    canvas.render()
}

struct Canvas {
    /// Characters, row by row.
    cells: Vec<Vec<char>>,
    /// In dots.
    radius: f64,
    center: (f64, f64),
}

impl Canvas {
    fn new(rows: usize) -> Self {
        let columns = 2 * (rows + MARGIN);
        let middle = |count: usize, dots: usize| (count * dots) as f64 / 2.0;
        let center = (middle(columns, DOTS.0), middle(rows, DOTS.1));
        let blank = char::from_u32(BRAILLE).unwrap_or(' ');
        Self {
            cells: vec![vec![blank; columns]; rows],
            // Half a dot less, so that the lowest dot is in the same row as those beside it.
            radius: center.1 - (MARGIN * DOTS.1) as f64 - 0.5,
            center,
        }
    }

    /// The dot at this fraction of the circle.
    fn point(&self, turn: f64) -> (f64, f64) {
        self.point_beside(turn, (0.0, 0.0))
    }

    /// The dot at this distance outside the circle and clockwise of `turn`.
    fn point_beside(&self, turn: f64, (outside, clockwise): (f64, f64)) -> (f64, f64) {
        let radius = self.radius + outside;
        let (sin, cos) = (turn * TAU + clockwise / radius).sin_cos();
        (self.center.0 + radius * sin, self.center.1 - radius * cos)
    }

    /// The character of a dot; a dot beyond the edge is moved to the edge.
    fn cell(&self, (x, y): (f64, f64)) -> (usize, usize) {
        let within = |dot: f64, dots: usize, cells: usize| (dot as usize / dots).min(cells - 1);
        (within(x, DOTS.0, self.cells[0].len()), within(y, DOTS.1, self.cells.len()))
    }

    fn dot(&mut self, point: (f64, f64)) {
        let (x, y) = self.cell(point);
        let bit = BITS[point.1 as usize % DOTS.1][point.0 as usize % DOTS.0];
        let cell = &mut self.cells[y][x];
        *cell = char::from_u32(*cell as u32 | bit).unwrap_or(*cell);
    }

    /// The circle itself.
    fn outline(&mut self) {
        let dots = (self.radius * TAU) as usize;
        for dot in 0..dots {
            self.dot(self.point(dot as f64 / dots as f64));
        }
    }

    /// Every third dot of a line, so that it does not hide the circle.
    fn line(&mut self, from: (f64, f64), to: (f64, f64)) {
        let (width, height) = (to.0 - from.0, to.1 - from.1);
        let dots = width.abs().max(height.abs()).ceil() as usize;
        for dot in (0..dots).step_by(3) {
            let part = dot as f64 / dots as f64;
            self.dot((from.0 + part * width, from.1 + part * height));
        }
    }

    /// Writes a number outside the circle, in a free place; does nothing if there is none.
    fn label(&mut self, turn: f64, text: &str) {
        for beside in LABEL_PLACES {
            let (x, y) = self.cell(self.point_beside(turn, beside));
            let length = text.len();
            // To the right of a point on the right side, to the left of one on the left side.
            let side = (turn * TAU).sin();
            let start = x.saturating_sub((length as f64 * (1.0 - side) / 2.0) as usize);
            let row = &mut self.cells[y];
            let around = start.saturating_sub(1)..(start + length + 1).min(row.len());
            if start + length <= row.len() && row[around].iter().all(|cell| *cell as u32 == BRAILLE)
            {
                row[start..start + length].iter_mut().zip(text.chars()).for_each(|(c, t)| *c = t);
                return;
            }
        }
    }

    fn render(&self) -> String {
        let line = |row: &Vec<char>| {
            let text: String = row.iter().collect();
            let spaced = text.replace(|c: char| c as u32 == BRAILLE, " ");
            spaced.trim_end().to_owned()
        };
        let lines: Vec<_> = self.cells.iter().map(line).collect();
        lines.join("\n").trim_matches('\n').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(turns: &[f64]) -> Vec<Place> {
        turns.iter().map(|&turn| Place { turn, mark: 'o' }).collect()
    }

    #[test]
    fn a_quarter_of_the_circle_is_to_the_right() {
        let drawn = draw(&places(&[0.0, 0.25, 0.5, 0.75]), None);
        let lines: Vec<_> = drawn.lines().map(|line| line.chars().collect::<Vec<_>>()).collect();
        let find = |wanted: char| {
            let mut rows = lines.iter().enumerate();
            rows.find_map(|(y, row)| row.iter().position(|c| *c == wanted).map(|x| (x, y)))
        };
        let [top, right, bottom, left] =
            ['1', '2', '3', '4'].map(|number| find(number).expect("each has its number"));
        assert!(top.1 < right.1 && right.1 < bottom.1 && left.1 == right.1, "{drawn}");
        assert!(left.0 < top.0 && top.0 < right.0 && bottom.0.abs_diff(top.0) <= 1, "{drawn}");
    }

    #[test]
    fn fifty_nodes_fit_into_eighty_columns_with_their_numbers() {
        let turns: Vec<_> = (0..50).map(|number| f64::from(number) / 50.0).collect();
        let drawn = draw(&places(&turns), Some((0, &[10, 25, 40])));
        assert!(drawn.lines().all(|line| line.chars().count() <= 80), "{drawn}");
        let numbers: Vec<u32> = drawn
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect();
        assert_eq!(numbers.len(), 50, "{drawn}");
    }

    #[test]
    fn nodes_at_one_position_have_their_numbers_side_by_side() {
        let drawn = draw(&places(&[0.6, 0.6, 0.6]), None);
        for number in ["1", "2", "3"] {
            assert!(drawn.contains(number), "{drawn}");
        }
    }

    #[test]
    fn a_line_crosses_the_circle() {
        let without = draw(&places(&[0.0, 0.5]), None);
        let with = draw(&places(&[0.0, 0.5]), Some((0, &[1])));
        let middle = |drawn: &str| drawn.lines().nth(4).map(|line| line.trim().chars().count());
        assert_eq!(middle(&without), middle(&with));
        assert_ne!(without, with);
    }
}
