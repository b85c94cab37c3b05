//! The steps, in this order. Each sets the number of peers that it needs, and also works alone.

mod ring;
mod swarm;
mod whole;

use super::{Step, grpcurl};

pub(super) const START: Step = Step {
    name: "the cluster comes up healthy within 60 s",
    services: &["tracker", "dht-node", "peer"],
    run: whole::comes_up,
};

pub(super) const ALL: &[Step] = &[
    Step {
        name: "images are small, labelled, and run as an unprivileged user",
        services: &[],
        run: whole::images_are_bare,
    },
    Step {
        name: "64 MB published to one peer reach 12 others unchanged",
        services: &["tracker", "peer"],
        run: swarm::reaches_all,
    },
    Step {
        name: "grpcurl lists and calls the services",
        services: &["tracker-1", "dht-node-1", "peer"],
        run: grpcurl::lists_and_calls,
    },
    Step {
        name: "downloads continue without trackers, and new peers join through the ring",
        services: &["tracker", "peer"],
        run: swarm::outlives_the_trackers,
    },
    Step {
        name: "no download fails while the peers scale to 20 and back to 4",
        services: &["peer"],
        run: swarm::scales_under_traffic,
    },
    Step {
        name: "the keys of a killed ring node can be read within 5 s",
        services: &["dht-node"],
        run: ring::goes_on_without_one,
    },
    Step {
        name: "no acknowledged key is lost when two of five ring nodes are killed",
        services: &["dht-node"],
        run: ring::loses_no_key,
    },
    Step {
        name: "a peer that was disconnected from the network continues its download",
        services: &["peer"],
        run: swarm::survives_a_cut,
    },
    Step {
        name: "every service restarts under load without a call failing",
        services: &["tracker", "dht-node", "peer"],
        run: whole::restarts_one_by_one,
    },
    Step {
        name: "keys in the volumes survive the removal of the cluster",
        services: &["dht-node"],
        run: ring::keeps_what_volumes_hold,
    },
    Step {
        name: "50 peers download 100 MB each, with little memory",
        services: &["tracker", "peer"],
        run: swarm::fifty_peers,
    },
];

pub(super) const END: Step = Step {
    name: "all containers stop within their grace period with status 0",
    services: &[],
    run: whole::ends_in_order,
};
