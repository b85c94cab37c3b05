//! The store, from outside: what a node may rely on whatever happens to its disk and its process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod data_dir;
mod digests;
mod disk;
mod reading;
mod support;
mod writing;
