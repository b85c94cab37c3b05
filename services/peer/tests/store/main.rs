//! Tests of the store's public interface: its guarantees whatever happens to the disk and the
//! process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attempts;
mod data_dir;
mod disk;
mod download;
mod empty;
mod export;
mod file_names;
mod formats;
mod hash;
mod holes;
mod import;
mod in_place;
mod killed;
mod links;
mod long_manifest;
mod modes;
mod one_shot;
mod packs;
mod place;
mod resume;
mod round_trip;
#[expect(unreachable_pub, reason = "it is public in the testkit")]
#[path = "../../../testkit/src/small_disk.rs"]
mod small_disk;
mod support;
