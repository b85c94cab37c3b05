//! Unanswered calls: how long to wait for an answer, and when a silent node counts as dead.

mod failure_detector;
mod timeouts;

pub(super) use failure_detector::FailureDetector;
pub use timeouts::{TimeoutSettings, Timeouts};
