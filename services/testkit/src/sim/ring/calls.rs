//! Calls between nodes, and a node's answers.

use std::time::Instant;

use shoal_core::{
    Address,
    ring::{Answer, Contact, Found, Input, Introducer, Position, Question, Silence, State},
};

use super::world::{Host, LookupKey};

/// A request.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// A question of a state machine.
    Ask(Contact, Question),
    /// A request for the state of the node at an address.
    Meet(Address),
    /// A lookup's question for the owner of a position.
    Find(LookupKey, Contact, Position),
}

/// An answer.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Answer),
    State(State),
    Found(Found),
}

/// The result of a call, for the caller.
#[derive(Debug)]
pub(super) enum Delivery {
    StateMachine(Input),
    Lookup(LookupKey, Contact, Option<Found>),
}

impl Body {
    pub(super) fn address(&self) -> &Address {
        match self {
            Self::Ask(node, _) | Self::Find(_, node, _) => &node.address,
            Self::Meet(address) => address,
        }
    }

    /// The called node, if it is known.
    pub(super) const fn node(&self) -> Option<&Contact> {
        match self {
            Self::Ask(node, _) | Self::Find(_, node, _) => Some(node),
            Self::Meet(_) => None,
        }
    }

    /// A host's answer to the caller at an address, and the input for the host's state machine.
    pub(super) fn answer(
        &self,
        from: &Address,
        host: &mut Host,
        now: Instant,
    ) -> (Reply, Option<Input>) {
        let state = || host.routing_table.state.clone();
        let source = || Introducer::of_address(from);
        match self {
            Self::Find(_, _, position) => {
                (Reply::Found(host.routing_table.find_successor(*position)), None)
            }
            Self::Meet(_) => (Reply::State(state()), None),
            Self::Ask(_, Question::State) => (Reply::Answer(Answer::State(state())), None),
            Self::Ask(_, Question::Notify(sender)) => {
                (Reply::Answer(Answer::Noticed), Some(Input::Notified(source(), sender.clone())))
            }
            Self::Ask(_, Question::Probe(sender)) => {
                let next = host.routing_table.find_successor(sender.node.position.next());
                (Reply::Answer(Answer::Probed(state(), next)), None)
            }
            Self::Ask(_, Question::Gossip(news, digest)) => {
                let answer = host.state_machine.gossiped(now, &source(), news, Some(digest));
                (Reply::Answer(Answer::Gossip(answer)), None)
            }
        }
    }

    /// The result of a call sent at `asked`, with this reply or without one.
    pub(super) fn into_delivery(self, asked: Instant, reply: Option<Reply>) -> Delivery {
        match (self, reply) {
            (Self::Find(lookup, node, _), Some(Reply::Found(found))) => {
                Delivery::Lookup(lookup, node, Some(found))
            }
            (Self::Find(lookup, node, _), _) => Delivery::Lookup(lookup, node, None),
            (Self::Meet(address), Some(Reply::State(state))) => {
                Delivery::StateMachine(Input::Met(address, state))
            }
            (Self::Meet(address), _) => Delivery::StateMachine(Input::Unmet(address)),
            (Self::Ask(node, _), Some(Reply::Answer(answer))) => {
                Delivery::StateMachine(Input::Answered(node, answer))
            }
            (Self::Ask(node, question), _) => {
                let why = Silence::NoAnswer;
                Delivery::StateMachine(Input::Unanswered { node, question, asked, why })
            }
        }
    }
}
