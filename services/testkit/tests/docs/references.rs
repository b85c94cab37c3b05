//! Messages, make targets and files that the documentation mentions exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{read, root};

/// The pages for users, without those for developers.
fn pages() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(root().join("docs")).expect("it is a directory");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "md");
    let is_plan = |path: &PathBuf| path.ends_with("PLAN.md");
    let pages = paths.filter(|path| is_page(path) && !is_plan(path));
    pages
        .chain([root().join("README.md")])
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a page is text");
            (path, text)
        })
        .collect()
}

/// What stands in backticks.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// What stands in backticks, and the lines of code blocks.
fn commands(page: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            commands.push(line.trim_start_matches("$ "));
        } else {
            commands.extend(code(line));
        }
    }
    commands
}

/// The target of `VARIABLE=value make TARGET ...`.
fn make_target(command: &str) -> Option<&str> {
    let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
    words.next().filter(|word| *word == "make")?;
    words.next()
}

#[test]
fn every_make_target_that_a_page_names_exists() {
    let makefile = read("Makefile");
    let rules = makefile.lines().filter_map(|line| line.split_once(':'));
    let targets: Vec<_> = rules.map(|(target, _)| target).collect();
    let mut count = 0;
    for (path, text) in pages() {
        for target in commands(&text).into_iter().filter_map(make_target) {
            assert!(targets.contains(&target), "{}: make {target}", path.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn every_message_in_the_troubleshooting_table_exists() {
    let sources = ["services", "deploy"].map(|folder| texts(&root().join(folder))).concat();
    let sources = format!("{sources}{}", read("Makefile"));
    let page = read("docs/troubleshooting.md");
    let seen = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let messages: Vec<_> = seen.flat_map(code).filter(|text| text.split(' ').count() > 3).collect();
    assert!(messages.len() > 4, "{messages:?}");
    for message in messages {
        assert!(sources.contains(message), "no program says {message:?}");
    }
}

/// The names of metrics in a text, as they stand between these characters.
fn metrics(text: &str, quote: char) -> BTreeSet<&str> {
    let is_name = |word: &&str| {
        word.starts_with("shoal_")
            && word.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
    };
    text.split(quote).filter(is_name).collect()
}

#[test]
fn the_observability_page_has_all_metrics_and_no_other() {
    let crates = ["common", "dht-node", "peer", "tracker"];
    let sources = crates.map(|name| texts(&root().join("services").join(name).join("src")));
    let sources = sources.concat();
    let page = read("docs/observability.md");
    assert_eq!(metrics(&page, '`'), metrics(&sources, '"'));
}

/// All files in a folder, with string literals over several lines joined.
fn texts(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("it is a directory");
    let texts = entries.map(|entry| {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            return texts(&path);
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.split("\\\n").map(str::trim_start).collect()
    });
    texts.collect()
}
