//! Results on stdout: lines, JSON, and tables with aligned columns.

use std::{
    fmt::Display,
    io::{self, Write as _},
    time::Duration,
};

use indicatif::DecimalBytes;
use serde::Serialize;
use shoal_common::text;

/// Prints one or more lines. Unlike `println!`, it does not panic when the reader has gone.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text::lines(&text.to_string()))?;
    stdout.flush()
}

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(text::json(&serde_json::to_string(value)?))
}

/// How a column is aligned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table: the names of the columns, then rows.
pub(crate) struct Table<const N: usize> {
    aligns: [Align; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(columns: [(&str, Align); N]) -> Self {
        let names = columns.map(|(name, _)| name.to_owned());
        Self { aligns: columns.map(|(_, align)| align), rows: vec![names] }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| text::printable(&cell).into_owned()));
    }

    /// The lines, with two spaces between columns.
    pub(crate) fn render(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |row: &[String; N]| {
            let cells: Vec<String> = (0..N)
                .map(|column| match self.aligns[column] {
                    Align::Left => format!("{:<width$}", row[column], width = widths[column]),
                    Align::Right => format!("{:>width$}", row[column], width = widths[column]),
                })
                .collect();
            cells.join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// `12.50 MB`
pub(crate) fn bytes(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// `12.50 MB/s`
pub(crate) fn rate(bytes_per_s: u64) -> String {
    format!("{}/s", DecimalBytes(bytes_per_s))
}

/// `0.25 s`, `14 s`, `3 min 20 s`, `2 h 5 min`
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match seconds {
        0..10 => format!("{:.2} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1 peer`, `2 peers`
pub(crate) fn count(number: u64, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([("NAME", Align::Left), ("SIZE", Align::Right)]);
        table.row(["a".to_owned(), "10 B".to_owned()]);
        table.row(["longer".to_owned(), "1 B".to_owned()]);
        assert_eq!(table.render(), "NAME    SIZE\na       10 B\nlonger   1 B");
    }

    #[test]
    fn values_have_readable_units() {
        assert_eq!(bytes(12_500_000), "12.50 MB");
        assert_eq!(rate(999), "999 B/s");
        assert_eq!(count(1, "peer"), "1 peer");
        assert_eq!(count(0, "peer"), "0 peers");
        for (millis, text) in
            [(250, "0.25 s"), (14_400, "14 s"), (200_000, "3 min 20 s"), (7_500_000, "2 h 5 min")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
