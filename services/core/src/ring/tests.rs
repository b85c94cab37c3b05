//! Membership: single steps, the textbook's examples, histories that broke Chord, an exhaustive
//! model, and invalid messages.

mod counts;
mod garbage;
mod model;
mod network;
mod steps;
mod textbook;
mod traces;
