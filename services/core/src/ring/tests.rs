//! Membership step by step, as the textbook tells it, by traces that once broke Chord, by exhaustive
//! search, and with garbage.

mod counts;
mod garbage;
mod model;
mod network;
mod steps;
mod textbook;
mod traces;
