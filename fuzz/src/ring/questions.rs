//! Answers to the calls of a ring node.

use std::time::Instant;

use arbitrary::Arbitrary;
use bytes::Bytes;
use prost::Message as _;
use shoal_common::fuzzing::Receiver;
use shoal_core::ring::{Answer, Input, Outcome, Output, Question, Silence};
use shoal_dht_node::fuzzing::{answer, found};
use shoal_proto::dht::v1 as pb;

use super::{Found, ME, Rumour, State, id};
use crate::receive;

/// Another node's answer to any call.
#[derive(Arbitrary, Debug)]
pub struct Reply {
    state: State,
    found: Found,
    rumours: Vec<Rumour>,
}

impl Reply {
    /// The response to a call.
    pub fn message(&self, asked: &Output) -> Vec<u8> {
        let (state, found) = (self.state.message(), self.found.message());
        match asked {
            Output::LookUp(..) | Output::Changed => found.encode_to_vec(),
            Output::Meet(_) | Output::Ask(_, Question::State) => {
                pb::GetStateResponse { state, ..Default::default() }.encode_to_vec()
            }
            Output::Ask(_, Question::Notify(_)) => pb::NotifyResponse { state }.encode_to_vec(),
            Output::Ask(_, Question::Probe(_)) => {
                pb::ProbeResponse { state, next: Some(found) }.encode_to_vec()
            }
            Output::Ask(_, Question::Gossip(..)) => {
                let rumours = self.rumours.iter().map(|rumour| rumour.message()).collect();
                pb::GossipResponse { rumours }.encode_to_vec()
            }
        }
    }
}

/// The input for a response to a call. An invalid response counts as no answer.
pub fn answered(now: Instant, asked: Output, response: &[u8]) -> Option<Input> {
    match asked {
        Output::Changed => None,
        Output::LookUp(purpose, ..) => {
            let found = client("FindSuccessor", response, found);
            let outcome = found.map(|found| Outcome {
                owner: found.node,
                // A lookup calls only others.
                predecessor: found.closer.iter().find(|node| node.id != id(ME)).cloned(),
                successors: found.successors,
                path: found.closer,
                asked: 1,
                hops: 1,
                timeouts: 0,
            });
            Some(Input::LookedUp(purpose, outcome))
        }
        Output::Meet(address) => {
            let answer = client("GetState", response, |message| answer(&Question::State, message));
            Some(match answer {
                Some(Answer::State(state)) => Input::Met(address, state),
                _ => Input::Unmet(address),
            })
        }
        Output::Ask(node, question) => {
            let method = match question {
                Question::State => "GetState",
                Question::Notify(_) => "Notify",
                Question::Probe(_) => "Probe",
                Question::Gossip(..) => "Gossip",
            };
            Some(match client(method, response, |message| answer(&question, message)) {
                Some(answer) => Input::Answered(node, answer),
                None => Input::Unanswered { node, question, asked: now, why: Silence::NoAnswer },
            })
        }
    }
}

/// The input for a call without a response.
pub fn unanswered(now: Instant, asked: Output, why: Silence) -> Option<Input> {
    match asked {
        Output::Changed => None,
        Output::LookUp(purpose, ..) => Some(Input::LookedUp(purpose, None)),
        Output::Meet(address) => Some(Input::Unmet(address)),
        Output::Ask(node, question) => Some(Input::Unanswered { node, question, asked: now, why }),
    }
}

fn client<T>(method: &str, response: &[u8], parse: impl FnOnce(Bytes) -> Option<T>) -> Option<T> {
    receive(&format!("/shoal.dht.v1.DhtService/{method}"), Receiver::Client, response, parse)
}
