//! Compiles the `.proto` files without protoc, and stores their descriptors for gRPC reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

const PROTOS: [&str; 6] = [
    "shoal/types/v1/types.proto",
    "shoal/tracker/v1/tracker.proto",
    "shoal/peer/v1/peer.proto",
    "shoal/control/v1/control.proto",
    "shoal/dht/v1/dht.proto",
    "shoal/dht/v1/replica.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=shoal");
    let mut descriptors = protox::compile(PROTOS, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("shoal.bin"), descriptors.encode_to_vec())?;
    leave_out(&mut descriptors, "PeerService", "RequestPiece");
    tonic_prost_build::configure()
        // `Bytes` instead of `Vec<u8>`: blocks and bitfields are passed on without a copy.
        .bytes(".shoal.peer.v1")
        .bytes(".shoal.control.v1.UploadRequest")
        .bytes(".shoal.dht.v1")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Removes a method, so that no code is generated for it: it is served with its own codec.
fn leave_out(descriptors: &mut FileDescriptorSet, service: &str, method: &str) {
    for found in descriptors.file.iter_mut().flat_map(|file| &mut file.service) {
        if found.name() == service {
            found.method.retain(|found| found.name() != method);
        }
    }
}
