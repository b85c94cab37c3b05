//! Tests of the store's public interface: its guarantees whatever happens to the disk and the
//! process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod data_dir;
mod digests;
mod disk;
mod reading;
#[expect(unreachable_pub, reason = "it is public in the testkit")]
#[path = "../../../testkit/src/small_disk.rs"]
mod small_disk;
mod support;
mod writing;
