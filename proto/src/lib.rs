//! The protobuf messages and gRPC services of shoal, generated from `shoal/*/v1/*.proto`.

#![allow(missing_docs, clippy::pedantic)]

/// The encoded descriptors of all services, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shoal.bin"));

/// Types that several services use.
pub mod types {
    pub mod v1 {
        tonic::include_proto!("shoal.types.v1");
    }
}

/// The tracker.
pub mod tracker {
    pub mod v1 {
        tonic::include_proto!("shoal.tracker.v1");
    }
}

/// The peer's service for other peers.
pub mod peer {
    pub mod v1 {
        tonic::include_proto!("shoal.peer.v1");
    }
}

/// A peer's local API.
pub mod control {
    pub mod v1 {
        tonic::include_proto!("shoal.control.v1");
    }
}

/// The ring.
pub mod dht {
    pub mod v1 {
        tonic::include_proto!("shoal.dht.v1");
    }
}
