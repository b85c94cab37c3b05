//! Moves whole contents into the store and out of it: imports, exports, and downloads without a
//! data directory.

mod export;
mod import;
mod one_shot;
mod tree;

pub(crate) use self::export::check_destination;
pub use self::{
    export::{Exported, find_at},
    import::Import,
    one_shot::OneShot,
};
