//! Commands of local clients.

use std::sync::Arc;

use tracing::Span;

use super::{Engine, event::Command};

impl Engine {
    pub(super) fn obey(&mut self, command: Command, asked: &Span) {
        // The caller may have gone: an answer without a receiver is no error.
        match command {
            Command::Add { stored, options, done } => {
                drop(done.send(self.add(&stored, options, asked)));
            }
            Command::Fetch { id, options, make_room, done } => {
                drop(done.send(self.fetch(id, options, make_room, asked)));
            }
            Command::Remove { id, done } => drop(done.send(self.remove(id))),
            Command::List { done } => {
                let statuses = self.contents.keys().map(|key| Arc::new(self.status(*key)));
                drop(done.send(statuses.collect()));
            }
            Command::Watch { id, done } => {
                let key = self.ids.get(&id).copied();
                drop(done.send(key.map(|key| self.watch(key))));
            }
            Command::Explain { id, done } => {
                let key = self.ids.get(&id).copied();
                drop(done.send(key.map(|key| self.explain(key))));
            }
        }
    }
}
