//! The methods that there are: only these may become labels of a metric, or a stranger could make
//! any number of them by calling what does not exist.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// A method of a service of ours.
#[derive(Debug)]
pub(super) struct Method {
    /// Full name of its service.
    pub(super) service: String,
    /// Its name.
    pub(super) name: String,
}

/// The method called by a request to this path, `/SERVICE/METHOD`.
pub(super) fn called_by(path: &str) -> Option<&'static Method> {
    static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(all);
    METHODS.get(path)
}

fn all() -> HashMap<String, Method> {
    let mut methods = HashMap::new();
    for encoded in [shoal_proto::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        let set =
            FileDescriptorSet::decode(encoded).expect("descriptors made by the build are valid");
        for file in &set.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    methods.insert(
                        format!("/{service_name}/{}", method.name()),
                        Method { service: service_name.clone(), name: method.name().to_owned() },
                    );
                }
            }
        }
    }
    methods
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
