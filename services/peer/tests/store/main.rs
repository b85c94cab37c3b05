//! Tests of the store's public interface: its guarantees whatever happens to the disk and the
//! process.

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
#[expect(unreachable_pub, reason = "it is public in the testkit")]
#[path = "../../../testkit/src/small_disk.rs"]
mod small_disk;
mod support;
