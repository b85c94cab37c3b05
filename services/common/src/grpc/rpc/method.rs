//! The existing methods, and the limits of their messages. Only these may become labels of a
//! metric; otherwise a stranger could create any number of them by calling methods that do not
//! exist.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::shape::{Malformed, ShapeId, Shapes};

/// Bytes of a message, unless [`longest_request`] or [`longest_response`] says otherwise.
const USUAL_BYTES: usize = 256 << 10;
/// Bytes of a message of ring records: a batch has 1 MiB of keys and values.
const RECORDS_BYTES: usize = 4 << 20;
/// tonic's own limit.
const LONGEST_BYTES: usize = 4 << 20;

/// A method of one of our services.
#[derive(Debug)]
pub(crate) struct Method {
    /// Full name of its service.
    pub(super) service: String,
    /// Its name.
    pub(super) name: String,
    /// It has a stream of requests.
    pub(super) streams_requests: bool,
    /// It has a stream of responses.
    pub(super) streams_responses: bool,
    request: Received,
    response: Received,
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    shape: ShapeId,
    /// Bytes, at most.
    pub(super) longest: usize,
}

impl Received {
    /// Bytes that decoding it allocates, at most.
    pub(super) fn cost(self, message: &[u8]) -> Result<usize, Malformed> {
        METHODS.shapes.cost(self.shape, message)
    }
}

impl Method {
    /// The message that its server receives.
    pub(super) const fn request(&self) -> Received {
        self.request
    }

    /// The message that its client receives.
    pub(super) const fn response(&self) -> Received {
        self.response
    }

    /// Whether the data plane moves its blocks, and limits them itself.
    pub(crate) fn is_bulk(&self) -> bool {
        self.name == "RequestPiece"
    }

    /// Whether its stream of requests may pause for any time: a link is quiet when there is nothing
    /// to say.
    pub(super) fn may_pause(&self) -> bool {
        self.name == "Exchange"
    }
}

/// The method of a request to this path, `/SERVICE/METHOD`.
pub(crate) fn called_by(path: &str) -> Option<&'static Method> {
    METHODS.by_path.get(path)
}

struct Methods {
    by_path: HashMap<String, Method>,
    shapes: Shapes,
}

static METHODS: LazyLock<Methods> = LazyLock::new(all);

fn longest_request(service: &str, method: &str) -> usize {
    match (service, method) {
        // The size of the largest announce.
        ("shoal.tracker.v1.TrackerService" | "grpc.health.v1.Health", _) => 8 << 10,
        ("shoal.dht.v1.ReplicaService", "Replicate" | "Supply" | "HandIn") => RECORDS_BYTES,
        // A thousand keys of 256 bytes; a block or a chunk of 256 KiB, and the fields around it.
        (_, "ReadRecords" | "Exchange" | "Upload") => 512 << 10,
        // Sixty-four ranges have about 1,400.
        (_, "RequestPiece") => 16 << 10,
        _ => USUAL_BYTES,
    }
}

fn longest_response(service: &str, method: &str) -> usize {
    match (service, method) {
        (_, "Exchange") => 512 << 10,
        (_, "ListNodes" | "GetState") => LONGEST_BYTES,
        ("shoal.tracker.v1.TrackerService" | "shoal.dht.v1.DhtService", _) => USUAL_BYTES,
        _ => LONGEST_BYTES,
    }
}

fn all() -> Methods {
    let sets =
        [shoal_proto::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET].map(|encoded| {
            FileDescriptorSet::decode(encoded).expect("descriptors made by the build are valid")
        });
    let (shapes, ids) = Shapes::of(&sets);
    let mut by_path = HashMap::new();
    for file in sets.iter().flat_map(|set| &set.file) {
        for service in &file.service {
            let service_name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let name = method.name();
                let received = |of: &str, longest| Received { shape: ids[of], longest };
                let found = Method {
                    service: service_name.clone(),
                    name: name.to_owned(),
                    streams_requests: method.client_streaming(),
                    streams_responses: method.server_streaming(),
                    request: received(method.input_type(), longest_request(&service_name, name)),
                    response: received(method.output_type(), longest_response(&service_name, name)),
                };
                by_path.insert(format!("/{service_name}/{name}"), found);
            }
        }
    }
    Methods { by_path, shapes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_path_and_strange_paths_are_not() {
        let method = called_by("/shoal.tracker.v1.TrackerService/Announce").expect("it exists");
        assert_eq!(method.service, "shoal.tracker.v1.TrackerService");
        assert_eq!(method.name, "Announce");
        assert!(called_by("/grpc.health.v1.Health/Check").is_some());
        for path in ["/", "/metrics", "/shoal.tracker.v1.TrackerService/Anounce"] {
            assert!(called_by(path).is_none(), "{path}");
        }
    }
}
