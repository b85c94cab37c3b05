//! What is tried, in this order. Each step says how many peers it wants, and works alone too.

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
        name: "images are small, labelled, and run as nobody",
        services: &[],
        run: whole::images_are_bare,
    },
    Step {
        name: "64 MB published to one peer reach 12 others byte for byte",
        services: &["tracker", "peer"],
        run: swarm::reaches_all,
    },
    Step {
        name: "grpcurl lists and calls the services",
        services: &["tracker-1", "dht-node-1", "peer"],
        run: grpcurl::lists_and_calls,
    },
    Step {
        name: "downloads go on without trackers, and new peers come by the ring",
        services: &["tracker", "peer"],
        run: swarm::outlives_the_trackers,
    },
    Step {
        name: "no download fails while peers become 20 and 4 again",
        services: &["peer"],
        run: swarm::scales_under_traffic,
    },
    Step {
        name: "the keys of a killed ring node are read again within 5 s",
        services: &["dht-node"],
        run: ring::goes_on_without_one,
    },
    Step {
        name: "two of five ring nodes are killed, and no acknowledged key is lost",
        services: &["dht-node"],
        run: ring::loses_no_key,
    },
    Step {
        name: "a peer that was cut off from the network goes on",
        services: &["peer"],
        run: swarm::survives_a_cut,
    },
    Step {
        name: "every service restarts under load without a call failing",
        services: &["tracker", "dht-node", "peer"],
        run: whole::restarts_one_by_one,
    },
    Step {
        name: "what the volumes hold outlives the cluster",
        services: &["dht-node"],
        run: ring::keeps_what_volumes_hold,
    },
    Step {
        name: "50 peers get 100 MB each, and need little memory",
        services: &["tracker", "peer"],
        run: swarm::fifty_peers,
    },
];

pub(super) const END: Step = Step {
    name: "all containers stop within their grace period with status 0",
    services: &[],
    run: whole::ends_in_order,
};
