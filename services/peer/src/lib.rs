//! The peer service.
