//! Downloads complete although a neighbour violates the protocol.

use shoal_testkit::{
    adversary::{Adversary, Vice},
    cluster::{Cluster, assert_same},
};

/// Downloads 8 MB from a slow honest seeder and an adversary. Returns the adversary, whether it was
/// banned, and the bytes wasted.
fn completes_beside(vice: Vice) -> (Adversary, bool, u64) {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8_000_000, 1);
    let seeder = cluster.seed(&file, &["--up", "4MB/s"]);
    let adversary = Adversary::join(vice, &seeder.id, &seeder.address, &cluster.tracker());
    let getter = cluster.get_with_log(&seeder.id, "peer", "shoal_peer=debug");
    let completed = getter.completed();
    assert_same(&file, &getter.directory.join("data.bin"));
    let wasted = completed["wasted_bytes"].as_u64().expect("it reports the wasted bytes");
    let banned = getter.process.stderr().contains("banned");
    (adversary, banned, wasted)
}

#[test]
fn a_poisoner_is_banned_and_wastes_few_bytes() {
    let (adversary, banned, wasted) = completes_beside(Vice::Poisons);
    assert!(adversary.requests() > 0, "it received no request");
    assert!(banned);
    assert!(wasted > 0 && wasted < 4_000_000, "{wasted} bytes were wasted");
}

#[test]
fn a_neighbour_that_unchokes_and_never_sends_does_not_stall_the_download() {
    let (adversary, ..) = completes_beside(Vice::Stalls);
    assert!(adversary.requests() > 0, "it received no request");
}

#[test]
fn a_neighbour_that_claims_pieces_it_lacks_does_not_stall_the_download() {
    let (adversary, ..) = completes_beside(Vice::Lies);
    assert!(adversary.requests() > 0, "it received no request");
}

#[test]
fn a_neighbour_that_sends_an_unrequested_piece_is_banned() {
    let (adversary, banned, _) = completes_beside(Vice::SendsAnother);
    assert!(adversary.requests() > 0, "it received no request");
    assert!(banned);
}

#[test]
fn a_neighbour_that_names_nonexistent_pieces_is_banned() {
    let (adversary, banned, _) = completes_beside(Vice::Babbles);
    assert!(adversary.links() > 0, "it got no link");
    assert!(banned);
}

#[test]
fn a_neighbour_of_another_protocol_version_is_not_used() {
    let (adversary, ..) = completes_beside(Vice::IsFromTheFuture);
    assert!(adversary.links() > 0, "it got no link");
    assert_eq!(adversary.requests(), 0);
}

#[test]
fn a_forged_manifest_is_rejected() {
    completes_beside(Vice::ForgesManifest);
}

#[test]
fn a_flood_of_requests_does_not_starve_other_peers() {
    completes_beside(Vice::Floods);
}
