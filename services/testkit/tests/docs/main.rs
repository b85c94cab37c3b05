//! The documentation: its commands run and print what it says, and its settings, messages and make
//! targets exist.

mod references;
mod settings;
mod shell;
mod tours;
mod transcript;

use std::{fs, path::PathBuf};

fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect()
}

/// A file of the repository.
fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
