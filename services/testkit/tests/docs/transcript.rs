//! Console blocks of a page: commands, and what they print.
//!
//! Two runs print different ids, times, rates and ports. [`normalise`] replaces these, so that what
//! was printed can be compared with the page.

use std::iter;

/// A command of a page.
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) command: String,
    /// The lines below the command.
    pub(crate) output: String,
}

/// The commands in the console blocks of a page.
pub(crate) fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut in_console = false;
    for (line, text) in iter::zip(1.., page.lines()) {
        if text.starts_with("```") {
            in_console = text == "```console";
        } else if !in_console {
        } else if let Some(command) = text.strip_prefix("$ ") {
            steps.push(Step { line, command: command.to_owned(), output: String::new() });
        } else {
            let step = steps.last_mut().expect("a console block begins with a command");
            step.output.push_str(text);
            step.output.push('\n');
        }
    }
    steps
}

/// A download that takes longer than a second prints this too.
const BOUND: &str = "; the textbook's bound";
/// Lines with this part of a word count replicas: all three, or the first two to answer.
const REPLICAS: &str = "durabl";
/// How many fingers a node has depends on the positions.
const FINGERS: &str = "lines: from ";

/// A text without what differs from run to run.
pub(crate) fn normalise(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(normalise_line).collect();
    // The drawn ring has other nodes at other places.
    lines.dedup_by(|next, line| next == DRAWING && line == DRAWING);
    let is_edge = |line: Option<&String>| line.is_some_and(|line| line == DRAWING);
    while is_edge(lines.last()) {
        lines.pop();
    }
    lines.join("\n")
}

/// Stands for lines without letters.
const DRAWING: &str = "(drawing)";

fn normalise_line(line: &str) -> String {
    let line = line.split(BOUND).next().unwrap_or(line);
    if !line.contains(|c: char| c.is_ascii_alphabetic()) {
        return DRAWING.to_owned();
    }
    // A row of a table of nodes, peers or contents.
    let is_row = line.split_whitespace().filter(|word| !word.contains(':')).any(is_id)
        || line.starts_with(FINGERS);
    let counts_replicas = line.contains(REPLICAS);
    let words: Vec<&str> = line.split_whitespace().collect();
    let units = words.iter().skip(1).copied().chain([""]);
    let words = iter::zip(&words, units).map(|(word, unit)| {
        let is_number = word.trim_matches(['+', ',']).bytes().all(|byte| byte.is_ascii_digit());
        if is_number && (is_row || counts_replicas) || is_measured(word, unit) {
            return "#".to_owned();
        }
        match word.split_once("B/s") {
            // Bytes, kilobytes or more.
            Some((_, rest)) => format!("B/s{rest}"),
            None => without_ids(word, is_row),
        }
    });
    let mut words: Vec<String> = words.collect();
    // Lists of nodes differ in length.
    words.dedup_by(|next, word| next == "#" && word == "#");
    words.join(" ")
}

/// A time, a rate or a percentage, by its unit. A size is always the same.
fn is_measured(word: &str, unit: &str) -> bool {
    let unit = unit.trim_end_matches([',', ';']);
    let is_decimal = word.contains('.') && word.parse::<f64>().is_ok();
    let is_time = matches!(unit, "s" | "ms" | "min");
    let is_part = unit == "%" && is_decimal;
    word.parse::<f64>().is_ok() && (is_time || is_part || unit.ends_with("B/s"))
}

/// A hash, a UUID, or the beginning of a position.
fn is_id(word: &str) -> bool {
    let is_part = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    word.len() >= 8 && word.contains(|c: char| c.is_ascii_digit()) && word.split('-').all(is_part)
}

/// The parts of a word that are ids, versions or ports that the system chose are left out.
fn without_ids(word: &str, is_row: bool) -> String {
    if word.contains('@') {
        // A version: epoch, time and node.
        return "#".to_owned();
    }
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut result = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let is_port = result.ends_with("127.0.0.1:") && (is_row || part.len() == 5);
        result.push_str(if is_port || is_id(part) { "#" } else { part });
        let delimiter = after.chars().next().map_or(0, char::len_utf8);
        result.push_str(&after[..delimiter]);
        rest = &after[delimiter..];
    }
    result
}

#[test]
fn steps_are_commands_with_their_output() {
    let page = "# A\n```sh\n$ no\n```\n```console\n$ a &\n$ b\n1\n\n2\n```\ntext\n";
    let steps: Vec<_> = steps(page).into_iter().map(|s| (s.line, s.command, s.output)).collect();
    let step = |line, command: &str, output: &str| (line, command.to_owned(), output.to_owned());
    assert_eq!(steps, [step(6, "a &", ""), step(7, "b", "1\n\n2\n")]);
}

#[test]
fn only_what_differs_from_run_to_run_is_replaced() {
    let id = "3cc18bc94966fc865295fb45e9c34f659314788f5c0e7cfa07c584165cc6460e";
    for (printed, normal) in [
        (&*format!("shoal:{id}?tr=127.0.0.1:7170"), "shoal:#?tr=127.0.0.1:7170"),
        (
            "100.00 MB in 0.12 s, 862.07 MB/s; 100 % from seeders; 1 neighbour; 0.0 % wasted",
            "100.00 MB in # s, # B/s; 100 % from seeders; 1 neighbour; # % wasted",
        ),
        ("9.00 MB in 14 s, 999 kB/s; x; the textbook's bound is 1 s", "9.00 MB in # s, # B/s; x"),
        ("127.0.0.1:36875  1cbd4d61-7a6d-45cc-8caf-5485b46727c1  yes", "127.0.0.1:# # yes"),
        ("2  7a99a66c  127.0.0.1:7174  1  3 4 5 +1  2  member", "# 127.0.0.1:# # member"),
        ("durable copies: 2, version: 3.179.0@4e4a9e7e-df35", "durable copies: # version: #"),
        ("5 nodes, as 127.0.0.1:7171 lists them", "5 nodes, as 127.0.0.1:7171 lists them"),
        ("llama-3 has 2 of 3", "llama-3 has 2 of 3"),
    ] {
        assert_eq!(normalise(printed), normal);
    }
    assert_eq!(normalise("⢀⡠ 1\n\n 2\nlines: 1\n\n"), "(drawing)\nlines: 1");
}
