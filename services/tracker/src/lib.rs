//! The tracker service.
