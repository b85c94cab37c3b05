//! Contents that are listed by a name of the ring. A name is followed: when it is set to another
//! content, that one is wanted.

use std::{collections::BTreeMap, time::Duration};

use rand::RngExt as _;
use shoal_common::{
    ring_client::{Node, RingClient},
    status,
};
use shoal_core::{
    Address,
    backoff::Backoff,
    content::{ContentId, Name},
};
use shoal_proto::dht::v1::GetRequest;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::listing::{Lister, Listing, Look};
use crate::options::Options;

/// Longest wait for the ring, for all names together: a node itself tries for five seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a known name is resolved again; jittered.
const FOLLOW_EVERY: Duration = Duration::from_secs(30);

/// The first pause before an unknown name is resolved again; it grows.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

pub(super) struct NamedContents {
    names: Vec<Followed>,
    ring: RingClient,
}

struct Followed {
    name: Name,
    /// Its last known content.
    content: Option<ContentId>,
    due: Instant,
    backoff: Backoff,
}

impl NamedContents {
    pub(super) fn new(names: Vec<Name>, ring_nodes: Vec<Address>) -> Self {
        let follow = |name| Followed {
            name,
            content: None,
            due: Instant::now(),
            backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF),
        };
        Self { names: names.into_iter().map(follow).collect(), ring: RingClient::new(ring_nodes) }
    }

    /// The contents of the names, as far as they are known.
    pub(super) async fn look(&mut self) -> Look {
        let deadline = Instant::now() + PATIENCE;
        for followed in &mut self.names {
            if followed.due <= Instant::now() {
                let found = look_up(&mut self.ring, &followed.name, deadline).await;
                followed.note(found);
            }
        }
        let known = self.names.iter().filter_map(|followed| followed.content);
        let contents: BTreeMap<_, _> = known.map(|id| (id, Options::default())).collect();
        Look {
            listings: vec![Listing { lister: Lister::Settings, contents }],
            is_partial: self.names.iter().any(|followed| followed.content.is_none()),
        }
    }
}

impl Followed {
    fn note(&mut self, found: Result<ContentId, String>) {
        let name = &self.name;
        let wait = match found {
            Ok(id) => {
                if self.content != Some(id) {
                    info!(%name, content_id = %id, "found by its name");
                }
                self.content = Some(id);
                self.backoff.reset();
                FOLLOW_EVERY.mul_f64(rand::rng().random_range(0.75..1.25))
            }
            Err(error) => {
                // The last known content stays.
                let wait = self.backoff.next(&mut rand::rng());
                if self.content.is_none() {
                    warn!(%name, %error, ?wait, "not found by its name, looked up again later");
                } else {
                    debug!(%name, %error, ?wait, "not found by its name, looked up again later");
                }
                wait
            }
        };
        self.due = Instant::now() + wait;
    }
}

async fn look_up(
    ring: &mut RingClient,
    name: &Name,
    deadline: Instant,
) -> Result<ContentId, String> {
    let mut passed_over = Vec::new();
    let Some(Node { mut client, .. }) = ring.node(deadline, &mut passed_over).await else {
        let reasons: Vec<_> = passed_over.iter().map(ToString::to_string).collect();
        return Err(format!("no node of the ring answers: {}", reasons.join(", ")));
    };
    let request = GetRequest { key: name.key().into(), direct: false };
    let refused = match timeout_at(deadline, client.get(request)).await {
        Ok(Ok(answer)) => {
            let value = answer.into_inner().value;
            let id = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
            return id.ok_or_else(|| "its value in the ring is not a content id".to_owned());
        }
        Ok(Err(status)) if status.code() == tonic::Code::NotFound => {
            return Err("the ring has no value for the name".to_owned());
        }
        Ok(Err(refusal)) => status::words(&refusal),
        Err(_) => "no answer in time".to_owned(),
    };
    ring.pass_over();
    Err(refused)
}
