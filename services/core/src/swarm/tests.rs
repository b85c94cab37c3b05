//! The behaviour of a swarm, in the textbook's words.

mod choking;
mod picking;
mod pieces;
mod serving;
mod trouble;
