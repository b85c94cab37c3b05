//! The disk of a peer: hashes, reads and writes contents, and keeps the data directory.
//!
//! ```text
//! DIR/VERSION              the format of the data directory
//! DIR/control.sock         the local API, unless it listens elsewhere
//! DIR/lock                 locked by the process that has the directory open
//! DIR/store.redb           descriptors, options, pins and times of last use
//! DIR/contents/ID/manifest the encoded manifest
//! DIR/contents/ID/blobs/N  the blobs, sparse, written in place
//! DIR/contents/ID/held.log the pieces held
//! DIR/import/              contents that are being imported or deleted; emptied on opening
//! ```
//!
//! Invariants: a piece is held only after its verified bytes were written; a checkpoint covers a
//! piece only if its bytes were synced after they were written; a directory under `contents` that
//! the database does not know was left by a crash and is deleted. Only threads that do slow disk
//! work (a sync, a commit, the deletion of a directory) wait for a lock that is held during such
//! work.
//!
//! All calls block on the disk and do not belong on an async worker, except [`Stored::read`] and
//! [`Stored::accept`] on the I/O threads, which do nothing else.

mod arrangement;
mod catalogue;
mod content;
mod error;
mod exchange;
mod file_system;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod hash;
mod names;
mod probe;
mod rooted_path;
#[cfg(test)]
mod tests;

pub use catalogue::{Entry, Need, Reservation, Store};
pub use content::{Accepted, Stored, Verified};
pub use error::{Paths, StoreError};
pub(crate) use exchange::check_destination;
pub use exchange::{Exported, Import, OneShot, find_at};
pub use hash::{HashOptions, Hashed, Links, hash, hash_at, hash_until};
pub use rooted_path::RootedPath;
