//! What nodes ask each other, and how a node answers.

use std::{sync::Arc, time::Instant};

use shoal_core::ring::{Answer, Contact, Found, Input, Position, Question, Silence, Source, State};

use super::world::{Host, LookupKey};

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// A brain's question.
    Ask(Contact, Question),
    /// The state of whoever is at an address.
    Meet(Arc<str>),
    /// A lookup's question for a position.
    Find(LookupKey, Contact, Position),
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Answer),
    State(State),
    Found(Found),
}

/// What the one who asked is told in the end.
#[derive(Debug)]
pub(super) enum Told {
    Brain(Input),
    Lookup(LookupKey, Contact, Option<Found>),
}

impl Body {
    pub(super) fn address(&self) -> &Arc<str> {
        match self {
            Self::Ask(node, _) | Self::Find(_, node, _) => &node.address,
            Self::Meet(address) => address,
        }
    }

    /// The node that is asked, if that is known.
    pub(super) const fn node(&self) -> Option<&Contact> {
        match self {
            Self::Ask(node, _) | Self::Find(_, node, _) => Some(node),
            Self::Meet(_) => None,
        }
    }

    /// How a host answers the one at an address, and what its brain is to be told.
    pub(super) fn answer(
        &self,
        from: &str,
        host: &mut Host,
        now: Instant,
    ) -> (Reply, Option<Input>) {
        let state = || host.view.state.clone();
        let source = || Source::of_address(from);
        match self {
            Self::Find(_, _, position) => (Reply::Found(host.view.find_successor(*position)), None),
            Self::Meet(_) => (Reply::State(state()), None),
            Self::Ask(_, Question::State) => (Reply::Answer(Answer::State(state())), None),
            Self::Ask(_, Question::Notify(sender)) => {
                (Reply::Answer(Answer::Noticed), Some(Input::Notified(source(), sender.clone())))
            }
            Self::Ask(_, Question::Probe(sender)) => {
                let next = host.view.find_successor(sender.node.position.next());
                (Reply::Answer(Answer::Probed(state(), next)), None)
            }
            Self::Ask(_, Question::Gossip(news, digest)) => {
                let answer = host.brain.gossiped(now, &source(), news, Some(digest));
                (Reply::Answer(Answer::Gossip(answer)), None)
            }
        }
    }

    /// What the one who asked, at `asked`, is told if there is this reply, or none.
    pub(super) fn told(self, asked: Instant, reply: Option<Reply>) -> Told {
        match (self, reply) {
            (Self::Find(lookup, node, _), Some(Reply::Found(found))) => {
                Told::Lookup(lookup, node, Some(found))
            }
            (Self::Find(lookup, node, _), _) => Told::Lookup(lookup, node, None),
            (Self::Meet(address), Some(Reply::State(state))) => {
                Told::Brain(Input::Met(address, state))
            }
            (Self::Meet(address), _) => Told::Brain(Input::Unmet(address)),
            (Self::Ask(node, _), Some(Reply::Answer(answer))) => {
                Told::Brain(Input::Answered(node, answer))
            }
            (Self::Ask(node, question), _) => {
                let why = Silence::NoAnswer;
                Told::Brain(Input::Unanswered { node, question, asked, why })
            }
        }
    }
}
