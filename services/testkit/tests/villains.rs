//! Downloads complete although a neighbour breaks the rules.

use shoal_testkit::{
    cluster::{Cluster, assert_same},
    villain::{Vice, Villain},
};

/// A download of 8 MB from a slow honest seeder and a villain; true if the villain was banned.
fn completes_beside(vice: Vice) -> (Villain, bool, u64) {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8_000_000, 1);
    let seeder = cluster.seed(&file, &["--up", "4MB/s"]);
    let villain = Villain::join(vice, &seeder.id, &seeder.address, &cluster.tracker());
    let getter = cluster.get_with_log(&seeder.id, "peer", "shoal_peer=debug");
    let completed = getter.completed();
    assert_same(&file, &getter.directory.join("data.bin"));
    let wasted = completed["wasted_bytes"].as_u64().expect("it says what was wasted");
    let banned = getter.process.stderr().contains("banned");
    (villain, banned, wasted)
}

#[test]
fn a_poisoner_is_banned_and_costs_only_what_it_sent() {
    let (villain, banned, wasted) = completes_beside(Vice::Poisons);
    assert!(villain.requests() > 0, "it was never asked");
    assert!(banned);
    assert!(wasted > 0 && wasted < 4_000_000, "{wasted} bytes were wasted");
}

#[test]
fn one_that_never_sends_what_it_promised_does_not_stall_the_download() {
    let (villain, ..) = completes_beside(Vice::Stalls);
    assert!(villain.requests() > 0, "it was never asked");
}

#[test]
fn one_that_claims_what_it_does_not_hold_does_not_stall_the_download() {
    let (villain, ..) = completes_beside(Vice::Lies);
    assert!(villain.requests() > 0, "it was never asked");
}

#[test]
fn one_that_sends_another_piece_than_was_asked_for_is_banned() {
    let (villain, banned, _) = completes_beside(Vice::SendsAnother);
    assert!(villain.requests() > 0, "it was never asked");
    assert!(banned);
}

#[test]
fn one_that_names_pieces_that_do_not_exist_is_banned() {
    let (villain, banned, _) = completes_beside(Vice::Babbles);
    assert!(villain.links() > 0, "it was never linked to");
    assert!(banned);
}

#[test]
fn one_of_another_version_is_left_alone() {
    let (villain, ..) = completes_beside(Vice::IsFromTheFuture);
    assert!(villain.links() > 0, "it was never linked to");
    assert_eq!(villain.requests(), 0);
}

#[test]
fn a_forged_manifest_is_not_believed() {
    completes_beside(Vice::ForgesManifest);
}

#[test]
fn a_flood_of_requests_does_not_starve_the_others() {
    completes_beside(Vice::Floods);
}
