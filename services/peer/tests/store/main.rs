//! The store, from outside: what a peer may rely on whatever happens to its disk and its process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attempts;
mod data_dir;
mod disk;
mod download;
mod empty;
mod export;
mod hash;
mod import;
mod in_place;
mod one_shot;
mod place;
mod resume;
mod support;
