//! The command `shoal`.
