//! Every RPC, and every reason for its refusal.

use std::{collections::HashSet, time::Duration};

use shoal_common::{
    admin::Admin,
    advertised::AdvertisedAddresses,
    channel::{Channel, Options},
    server,
};
use shoal_core::Address;
use shoal_proto::{
    tracker::v1::{
        AnnounceEvent, AnnounceRequest, AnnounceResponse, GetSwarmRequest, ListSwarmsRequest,
        tracker_service_client::TrackerServiceClient,
    },
    types::v1::{Location, PeerInfo},
};
use shoal_tracker::{LimitSettings, Percent, RunError, Settings};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::process::DEADLINE;

/// A tracker that stops when it is dropped.
struct Running {
    client: TrackerServiceClient<Channel>,
    channel: Channel,
    stop: DropGuard,
    ended: JoinHandle<Result<(), RunError>>,
}

/// A tracker that accepts any announced address: all connections of these tests come from one host.
async fn start(settings: Settings) -> Running {
    start_as_is(Settings { advertised_addresses: AdvertisedAddresses::Any, ..settings }).await
}

async fn start_as_is(settings: Settings) -> Running {
    let anywhere = address("127.0.0.1:0");
    let listener = server::bind(&anywhere).await.expect("a port is free");
    let address = Address::from(listener.local_addr().expect("it is bound"));
    let shutdown = CancellationToken::new();
    let settings = Settings { listen: anywhere, admin: Admin::Off, ..settings };
    let ended = tokio::spawn(shoal_tracker::run(settings, listener, shutdown.clone()));
    let channel = Channel::connect(&address, &Options::default()).await.expect("it listens");
    let client = TrackerServiceClient::new(channel.clone());
    Running { client, channel, stop: shutdown.drop_guard(), ended }
}

impl Running {
    async fn announce(&mut self, request: AnnounceRequest) -> Result<AnnounceResponse, Status> {
        Ok(self.client.announce(request).await?.into_inner())
    }

    /// The ids of the swarms on each page.
    async fn pages(&mut self, page_size: u32) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListSwarmsRequest { page_size, page_token };
            let page = self.client.list_swarms(request).await.expect("a valid token").into_inner();
            pages.push(page.swarms.into_iter().map(|swarm| swarm.content_id).collect());
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return pages;
            }
        }
    }
}

fn address(text: &str) -> Address {
    text.parse().expect(text)
}

fn content_id(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

fn peer_id(n: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{n:02x}")
}

/// Peer `n` announces content 0.
pub(crate) fn announce(n: u8) -> AnnounceRequest {
    AnnounceRequest {
        content_id: content_id(0),
        peer: Some(PeerInfo {
            peer_id: peer_id(n),
            address: format!("10.0.0.{n}:7072"),
            location: None,
            complete: false,
        }),
        ..AnnounceRequest::default()
    }
}

fn event(n: u8, event: AnnounceEvent) -> AnnounceRequest {
    AnnounceRequest { event: event.into(), ..announce(n) }
}

fn with_peer(change: impl FnOnce(&mut PeerInfo)) -> AnnounceRequest {
    let mut request = announce(1);
    change(request.peer.as_mut().expect("it has a peer"));
    request
}

fn get(n: u8) -> GetSwarmRequest {
    GetSwarmRequest { content_id: content_id(n), max_peers: 0 }
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().expect("a BadRequest detail");
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn peers_of_a_swarm_learn_about_each_other() {
    let mut tracker = start(Settings::default()).await;
    let first = tracker.announce(event(1, AnnounceEvent::Started)).await.expect("it is valid");
    assert_eq!(first.peers, []);
    assert!(first.warming);
    assert_eq!(first.observed_address, "10.0.0.1:7072");
    let interval = Duration::try_from(first.interval.expect("it is given")).expect("not negative");
    assert!((27.0..=33.0).contains(&interval.as_secs_f64()));

    let second = tracker.announce(announce(2)).await.expect("it is valid");
    assert_eq!(second.peers.len(), 1);
    assert_eq!(second.peers[0].peer_id, peer_id(1));
    assert_eq!(second.peers[0].address, "10.0.0.1:7072");
    assert_eq!((second.complete_count, second.incomplete_count), (0, 2));
}

#[tokio::test]
async fn completion_and_leaving_take_effect_at_once() {
    let mut tracker = start(Settings::default()).await;
    tracker.announce(announce(1)).await.expect("it is valid");
    let done = tracker.announce(event(2, AnnounceEvent::Completed)).await.expect("it is valid");
    assert_eq!((done.complete_count, done.incomplete_count), (1, 1));
    let left = tracker.announce(event(1, AnnounceEvent::Stopped)).await.expect("it is valid");
    assert_eq!(left.peers, []);
    assert_eq!((left.complete_count, left.incomplete_count), (1, 0));
    let swarm = tracker.client.get_swarm(get(0)).await.expect("it is known").into_inner();
    assert_eq!(swarm.peers.len(), 1);
    assert!(swarm.peers[0].complete);
}

#[tokio::test]
async fn an_unspecified_host_becomes_the_observed_one() {
    let mut tracker = start(Settings::default()).await;
    for host in ["0.0.0.0", "[::]", ""] {
        let request = with_peer(|peer| peer.address = format!("{host}:7099"));
        let answer = tracker.announce(request).await.expect("it is valid");
        assert_eq!(answer.observed_address, "127.0.0.1:7099");
    }
    let swarm = tracker.client.get_swarm(get(0)).await.expect("it is known").into_inner();
    assert_eq!(swarm.peers[0].address, "127.0.0.1:7099");
}

#[tokio::test]
async fn an_answer_has_at_most_numwant_and_at_most_200_peers() {
    let mut tracker = start(Settings::default()).await;
    for n in 0..=250 {
        tracker.announce(announce(n)).await.expect("it is valid");
    }
    for (numwant, given) in [(0, 50), (7, 7), (200, 200), (u32::MAX, 200)] {
        let answer = tracker.announce(AnnounceRequest { numwant, ..announce(0) }).await;
        let peers = answer.expect("it is valid").peers;
        let ids: HashSet<_> = peers.iter().map(|peer| &peer.peer_id).collect();
        assert_eq!(ids.len(), given);
        assert!(!ids.contains(&peer_id(0)));
    }
    let request = GetSwarmRequest { max_peers: 3, ..get(0) };
    let swarm = tracker.client.get_swarm(request).await.expect("it is known").into_inner();
    assert_eq!(swarm.peers.len(), 3);
    assert_eq!(swarm.swarm.expect("it is given").incomplete_count, 251);
}

#[tokio::test]
async fn part_of_an_answer_prefers_peers_of_the_same_zone() {
    let half = Percent::try_from(50).expect("it is valid");
    let mut tracker = start(Settings { near_percent: half, ..Settings::default() }).await;
    let located = |n: u8| {
        let mut request = AnnounceRequest { numwant: 10, ..announce(n) };
        let zone = if n < 10 { "near" } else { "far" }.to_owned();
        let location = Location { zone, ..Location::default() };
        request.peer.as_mut().expect("it has a peer").location = Some(location);
        request
    };
    for n in 0..=250 {
        tracker.announce(located(n)).await.expect("it is valid");
    }
    let peers = tracker.announce(located(0)).await.expect("it is valid").peers;
    let zone = |peer: &PeerInfo| peer.location.clone().unwrap_or_default().zone;
    assert!(peers.iter().filter(|peer| zone(peer) == "near").count() >= 5);
    assert!(peers.iter().any(|peer| zone(peer) == "far"));
}

#[tokio::test]
async fn swarms_are_listed_page_by_page_in_order() {
    let mut tracker = start(Settings::default()).await;
    assert_eq!(tracker.pages(0).await, [Vec::<String>::new()]);
    for n in [0xff, 0x00, 0x10, 0x11, 0x80] {
        let request = AnnounceRequest { content_id: content_id(n), ..announce(1) };
        tracker.announce(request).await.expect("it is valid");
    }
    let sorted: Vec<_> = [0x00, 0x10, 0x11, 0x80, 0xff].map(content_id).into();
    assert_eq!(tracker.pages(0).await, [&sorted[..]]);
    assert_eq!(tracker.pages(5).await, [&sorted[..]]);
    assert_eq!(tracker.pages(2).await, [&sorted[..2], &sorted[2..4], &sorted[4..]]);
}

#[tokio::test]
async fn a_peer_that_misses_two_announces_is_removed() {
    let interval = Duration::from_millis(200);
    let mut tracker = start(Settings { interval, ..Settings::default() }).await;
    tracker.announce(announce(1)).await.expect("it is valid");
    timeout(DEADLINE, async {
        while tracker.client.get_swarm(get(0)).await.is_ok() {
            sleep(interval / 10).await;
        }
    })
    .await
    .expect("it is removed in time");
    let status = tracker.client.get_swarm(get(0)).await.expect_err("no peer is left");
    assert_eq!(status.code(), Code::NotFound);
    let answer = tracker.announce(announce(2)).await.expect("it is valid");
    assert_eq!(answer.peers, []);
    assert!(!answer.warming, "more than an interval has passed");
}

#[tokio::test]
async fn a_refusal_names_every_invalid_field() {
    let mut tracker = start(Settings::default()).await;
    let location = |location| with_peer(|peer| peer.location = Some(location));
    let long = "x".repeat(64);
    for (request, field) in [
        (AnnounceRequest { content_id: "abc".to_owned(), ..announce(1) }, "content_id"),
        (
            AnnounceRequest { content_id: content_id(0xab).to_uppercase(), ..announce(1) },
            "content_id",
        ),
        (AnnounceRequest { peer: None, ..announce(1) }, "peer"),
        (AnnounceRequest { event: 9, ..announce(1) }, "event"),
        (with_peer(|peer| peer.peer_id = "me".to_owned()), "peer.peer_id"),
        (with_peer(|peer| peer.address = "10.0.0.1".to_owned()), "peer.address"),
        (with_peer(|peer| peer.address = "10.0.0.1:0".to_owned()), "peer.address"),
        (with_peer(|peer| peer.address = format!("{}:1", "a".repeat(300))), "peer.address"),
        (
            location(Location { region: long.clone(), ..Location::default() }),
            "peer.location.region",
        ),
        (location(Location { zone: long.clone(), ..Location::default() }), "peer.location.zone"),
        (location(Location { node: long, ..Location::default() }), "peer.location.node"),
    ] {
        let status = tracker.announce(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(fields(&status), [field]);
    }
    let nothing = AnnounceRequest { peer: Some(PeerInfo::default()), ..AnnounceRequest::default() };
    let status = tracker.announce(nothing).await.expect_err("all is missing");
    assert_eq!(fields(&status), ["content_id", "peer.peer_id", "peer.address"]);

    let request = ListSwarmsRequest { page_size: 1, page_token: "2".to_owned() };
    let status = tracker.client.list_swarms(request).await.expect_err("no page token");
    assert_eq!(
        (status.code(), fields(&status)),
        (Code::InvalidArgument, vec!["page_token".into()])
    );
    let status = tracker.client.get_swarm(GetSwarmRequest::default()).await.expect_err("no id");
    assert_eq!(
        (status.code(), fields(&status)),
        (Code::InvalidArgument, vec!["content_id".into()])
    );
}

#[tokio::test]
async fn a_request_of_many_kilobytes_is_not_read() {
    let mut tracker = start(Settings::default()).await;
    let request = AnnounceRequest { content_id: "a".repeat(20_000), ..announce(1) };
    let status = tracker.announce(request).await.expect_err("it is too long");
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn each_limit_refuses_with_a_time_to_retry() {
    let settings = |limits| Settings { limits, ..Settings::default() };
    let limits = LimitSettings::default();
    let other_swarm = AnnounceRequest { content_id: content_id(1), ..announce(2) };
    for (limits, request, word) in [
        (LimitSettings { swarms: 1, ..limits.clone() }, other_swarm, "swarms"),
        (LimitSettings { peers: 1, ..limits.clone() }, announce(2), "at most 1 peers are kept"),
        (LimitSettings { peers_per_swarm: 1, ..limits.clone() }, announce(2), "a swarm"),
        (LimitSettings { peers_per_address: 1, ..limits }, announce(2), "one address"),
    ] {
        let mut tracker = start(settings(limits)).await;
        tracker.announce(announce(1)).await.expect("there is room for one");
        let status = tracker.announce(request).await.expect_err("there is no room");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains(word), "{status}");
        let retry = status.get_details_retry_info().expect("a RetryInfo detail");
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(30)));
        tracker.announce(announce(1)).await.expect("a known peer stays");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_for_a_new_one_and_a_busy_one_is_not() {
    let limits = LimitSettings { connections: 1, ..LimitSettings::default() };
    let listener = server::bind(&address("127.0.0.1:0")).await.expect("a port is free");
    let bound = Address::from(listener.local_addr().expect("it is bound"));
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let advertised_addresses = AdvertisedAddresses::Any;
    let settings =
        Settings { admin: Admin::Off, advertised_addresses, limits, ..Settings::default() };
    tokio::spawn(shoal_tracker::run(settings, listener, shutdown));
    let call = async |channel| TrackerServiceClient::new(channel).announce(announce(1)).await;

    let first = Channel::connect(&bound, &Options::default()).await.expect("it listens");
    call(first.clone()).await.expect("there is room for one");
    let busy = Channel::connect(&bound, &Options::default()).await.expect("the first is idle");
    let watch = HealthCheckRequest::default();
    let _watched = HealthClient::new(busy.clone()).watch(watch).await.expect("it is known");
    call(Channel::lazy(&bound, &Options::default())).await.expect_err("it is full");
    call(busy).await.expect("the busy one stays open");
}

#[tokio::test]
async fn a_tracker_is_healthy_until_it_is_told_to_stop() {
    let tracker = start(Settings::default()).await;
    let mut health = HealthClient::new(tracker.channel.clone());
    for service in ["", "liveness", "shoal.tracker.v1.TrackerService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.expect("it is known").into_inner();
        assert_eq!(answer.status().as_str_name(), "SERVING", "{service}");
    }
    let mut readiness = health.watch(HealthCheckRequest::default()).await.expect("it is known");
    let mut next = async || {
        let answer = readiness.get_mut().message().await.expect("the call is open");
        answer.expect("the call is open").status().as_str_name()
    };
    assert_eq!(next().await, "SERVING");
    drop(tracker.stop);
    assert_eq!(timeout(DEADLINE, next()).await.expect("it changes in time"), "NOT_SERVING");
    let ended = timeout(DEADLINE, tracker.ended).await.expect("it ends in time");
    ended.expect("it does not panic").expect("it ends without an error");
}

#[tokio::test]
async fn reflection_lists_exactly_the_services() {
    let tracker = start(Settings::default()).await;
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "shoal.tracker.v1.TrackerService",
    ];
    assert_eq!(reflected_v1(tracker.channel.clone()).await, expected);
    assert_eq!(reflected_v1alpha(tracker.channel.clone()).await, expected);
}

macro_rules! reflected {
    ($name:ident, $version:ident) => {
        async fn $name(channel: Channel) -> Vec<String> {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(channel);
            let call = client.server_reflection_info(tokio_stream::once(request)).await;
            let answer = call.expect("it is served").into_inner().message().await;
            let answer = answer.expect("it answers").expect("it answers");
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("{answer:?} is no list");
            };
            let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
            names.sort();
            names
        }
    };
}

reflected!(reflected_v1, v1);
reflected!(reflected_v1alpha, v1alpha);

#[tokio::test]
async fn an_address_of_another_host_is_refused() {
    let mut tracker = start_as_is(Settings::default()).await;
    let refusal = tracker.announce(announce(1)).await.expect_err("it is another host's");
    assert_eq!(refusal.code(), Code::InvalidArgument);
    let violations = refusal.get_details_bad_request().expect("it says what is wrong");
    assert!(violations.field_violations[0].description.contains("not where you are seen"));
    for address in ["0.0.0.0:7072", "127.0.0.1:7072"] {
        let mut own = announce(1);
        own.peer.as_mut().expect("it names the peer").address = address.to_owned();
        let answer = tracker.announce(own).await.expect("it is its own");
        assert_eq!(answer.observed_address, "127.0.0.1:7072");
    }
}
