//! Everything that touches the disk: hashing, reading and writing contents, and the data directory.
//!
//! ```text
//! DIR/VERSION              the format of all this
//! DIR/control.sock         the local API, unless it listens elsewhere
//! DIR/lock                 held by the process that has it open
//! DIR/store.redb           manifests, piece hashes, what is pinned and when it was used
//! DIR/contents/ID/data     the file, or the directory of files; sparse, written in place
//! DIR/contents/ID/held.log the pieces held
//! DIR/import/              contents that are streamed in or being deleted; emptied when opened
//! ```
//!
//! Invariants: a piece counts as held only after its verified bytes were written; a checkpoint vouches
//! for a piece only if its bytes were synced after they were written; a directory under `contents` that
//! the database does not know is left over from a crash and is deleted. A lock that is held over slow
//! work on the disk (a sync, a commit, the deletion of a directory) is one that only such work waits
//! for.
//!
//! All calls block on the disk: they do not belong on an async worker, but for [`Stored::read`] and
//! [`Stored::accept`] on the threads that do nothing else.

mod accept;
mod assembly;
mod content;
mod data_dir;
mod database;
mod error;
mod export;
mod files;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod hash;
mod held;
mod import;
mod one_shot;
mod place;
mod probe;
mod reservation;
mod rows;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

pub use accept::Accepted;
pub use content::Stored;
pub use data_dir::Store;
pub use database::Entry;
pub use error::StoreError;
pub use export::Exported;
pub(crate) use export::check_destination;
pub use hash::{Hashed, hash, hash_at, hash_until};
pub use import::{Import, ImportPlan};
pub use one_shot::OneShot;
pub use place::Place;
pub use reservation::Reservation;
