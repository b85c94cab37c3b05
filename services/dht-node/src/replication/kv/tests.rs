//! A primary with two replicas that answer writes, only store them, or receive none.

use std::{
    convert::Infallible,
    future::pending,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use shoal_common::{
    health::Health,
    server::{self, Limits},
};
use shoal_core::ring::{Contact, Lineage, Stamp};
use shoal_proto::dht::v1::replica_service_server::ReplicaServiceServer;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
    service::Routes,
};
use uuid::Uuid;

use super::*;
use crate::{
    replication::local_replica::Quota,
    service::Replica,
    storage::{DataDir, Store, Value},
};

/// A longer wait never ends.
const PATIENCE: Duration = Duration::from_secs(20);

const UNLIMITED: Quota = Quota { bytes: u64::MAX, keys: u64::MAX };

/// How a replica takes writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// It does not receive them.
    Deaf,
    /// It stores them, and does not answer.
    Mute,
}

#[derive(Clone)]
struct Moody<S> {
    inner: S,
    mood: watch::Receiver<Mood>,
}

impl<S: NamedService> NamedService for Moody<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Moody<S>
where
    S: Service<http::Request<Body>, Error = Infallible>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = BoxFuture<S::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_write = request.uri().path().ends_with("/Replicate");
        let mood = if is_write { *self.mood.borrow() } else { Mood::Well };
        let answer = self.inner.call(request);
        Box::pin(async move {
            if mood == Mood::Deaf {
                pending::<()>().await;
            }
            let answer = answer.await;
            if mood == Mood::Mute {
                pending::<()>().await;
            }
            answer
        })
    }
}

/// The first of the nodes is the primary of everything.
struct Bench {
    _directories: Vec<TempDir>,
    replicas: Vec<LocalReplica>,
    moods: Vec<watch::Sender<Mood>>,
    set: ReplicaSet,
    primary: Primary,
    values: Values,
    _end: DropGuard,
}

impl Bench {
    /// With memory for this many small writes.
    async fn new(indeterminate: usize) -> Self {
        Self::with_quotas(indeterminate, [UNLIMITED; 3]).await
    }

    async fn with_quotas(indeterminate: usize, quotas: [Quota; 3]) -> Self {
        let (mut directories, mut replicas, mut members) = (Vec::new(), Vec::new(), Vec::new());
        let mut listeners = Vec::new();
        for quota in quotas {
            let directory = tempfile::tempdir().unwrap();
            let store = DataDir::open(directory.path()).and_then(Store::open).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (id, address) = (store.node_id(), listener.local_addr().unwrap());
            let position = Position::of_node(id, 0);
            members.push(Contact { position, id, address: address.into() });
            replicas.push(LocalReplica::new(id, store, quota));
            listeners.push(listener);
            directories.push(directory);
        }
        let set = ReplicaSet { lineage: Lineage(Uuid::nil()), epoch: 1, members };
        let end = CancellationToken::new();
        let mut moods = Vec::new();
        for (local, listener) in replicas.iter().zip(listeners).skip(1) {
            let (sender, mood) = watch::channel(Mood::Well);
            let (_, values) = values_of(local, WriteMemory::default()).await;
            let replica = ReplicaServiceServer::new(Replica { local: local.clone(), values });
            let routes = Routes::new(Moody { inner: replica, mood });
            let end = end.clone();
            tokio::spawn(async move {
                server::serve(listener, routes, &Limits::default(), end).await;
            });
            moods.push(sender);
        }
        // A key of one byte, and a value of one.
        let memory = WriteMemory::new(indeterminate * 514);
        let (primary, values) = values_of(&replicas[0], memory).await;
        let renewals = primary.clone();
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            renewals.keep(|_| ()).await;
        }));
        let mut bench = Self {
            _directories: directories,
            replicas,
            moods,
            set,
            primary,
            values,
            _end: end.drop_guard(),
        };
        bench.begin_term(1).await;
        bench
    }

    /// The primary has had a set of this epoch chosen, with its own records and the last replica's.
    async fn begin_term(&mut self, epoch: u64) {
        self.set.epoch = epoch;
        for local in &self.replicas {
            local.learn(everywhere(), self.set.clone()).await.unwrap();
        }
        self.primary.enter(everywhere(), &self.set);
        self.until(|| self.values.may_answer(Position::from_u128(7))).await;
    }

    fn are(&self, moods: [Mood; 2]) {
        for (sender, mood) in self.moods.iter().zip(moods) {
            sender.send_replace(mood);
        }
    }

    async fn put(&self, name: &str, value: &str, if_now: Condition) -> Result<Version, KvError> {
        let write = Write {
            key: key(name),
            value: Some(Value::try_from(Bytes::copy_from_slice(value.as_bytes())).unwrap()),
            expires_ms: None,
            condition: if_now,
            min_copies: 0,
        };
        Ok(self.values.write(write, StartWindow::until(None)).await?.version)
    }

    async fn delete(&self, name: &str) -> Result<Written, KvError> {
        let write = Write {
            key: key(name),
            value: None,
            expires_ms: None,
            condition: Condition::None,
            min_copies: 0,
        };
        self.values.write(write, StartWindow::until(None)).await
    }

    /// Waits until the condition holds.
    async fn until(&self, mut is_so: impl FnMut() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap();
    }

    /// The value of a key as clients read it.
    fn read(&self, name: &str) -> Option<String> {
        value_of(self.values.get(&key(name)).unwrap())
    }

    /// What a replica has of a key.
    fn on_replica(&self, replica: usize, name: &str) -> Option<Record> {
        self.replicas[replica].store.get(&key(name)).unwrap()
    }
}

async fn values_of(local: &LocalReplica, memory: WriteMemory) -> (Primary, Values) {
    let supervisor = Supervisor::new(Health::new(&[]).await);
    let (id, position) = (local.me, Position::of_node(local.me, 0));
    let calls = Calls::new(&Contact { position, id, address: "127.0.0.1:1".parse().unwrap() });
    let primary = Primary::new(local.clone(), calls.clone(), Duration::from_secs(3600));
    (primary.clone(), Values::start(local.clone(), primary, calls, memory, &supervisor))
}

fn everywhere() -> KeyRange {
    KeyRange::whole(Position::from_u128(u128::MAX))
}

fn key(name: &str) -> Key {
    Bytes::copy_from_slice(name.as_bytes()).try_into().unwrap()
}

fn value_of(record: Option<Record>) -> Option<String> {
    let value = record?.value?;
    Some(String::from_utf8(value.as_bytes().to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_memory_for_it_is_not_begun_and_indeterminate_ones_come_first() {
    let bench = Arc::new(Bench::new(2).await);
    let before = bench.put("a", "0", Condition::None).await.unwrap();
    bench.are([Mood::Mute, Mood::Deaf]);
    let indeterminate = tokio::join!(
        bench.put("a", "1", Condition::Version(before)),
        bench.put("b", "1", Condition::None)
    );
    for outcome in <[_; 2]>::from(indeterminate) {
        assert!(matches!(outcome, Err(KvError::Unknown(_))), "{outcome:?}");
    }
    assert_eq!(value_of(bench.on_replica(1, "a")).as_deref(), Some("1"));
    let refused = bench.put("c", "1", Condition::None).await;
    assert!(matches!(refused, Err(KvError::TooManyIndeterminate)), "{refused:?}");
    assert_eq!(bench.on_replica(1, "c"), None);
    assert_eq!((bench.read("a").as_deref(), bench.read("b")), (Some("0"), None));

    bench.are([Mood::Deaf, Mood::Well]);
    let refused = bench.put("a", "2", Condition::Version(before)).await;
    assert!(matches!(refused, Err(KvError::Condition(Some(now))) if now > before), "{refused:?}");
    assert_eq!(bench.read("a").as_deref(), Some("1"));
    // What nobody writes again is resolved as well, and leaves its memory to others.
    bench.until(|| bench.read("b").is_some()).await;
    bench.put("c", "1", Condition::Absent).await.unwrap();
    assert_eq!(bench.read("b").as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_found_on_a_replica_does_not_overtake_an_indeterminate_write() {
    let bench = Bench::new(9).await;
    let before = bench.put("a", "0", Condition::None).await.unwrap();
    // Two writes that expected the same.
    let found = Version { counter: before.counter + 1, ..before };
    let found = Record { stamp: Stamp::of(found), ..bench.on_replica(0, "a").unwrap() };
    bench.are([Mood::Deaf, Mood::Deaf]);
    let unknown = bench.put("a", "1", Condition::Version(before)).await;
    assert!(matches!(unknown, Err(KvError::Unknown(_))), "{unknown:?}");

    let refused = bench.values.absorb(vec![found.clone()], Some(&bench.set)).await;
    assert!(matches!(refused, Err(KvError::EarlierUnresolved(_))), "{refused:?}");
    assert_eq!(bench.on_replica(0, "a").unwrap().stamp.version, before);
    bench.are([Mood::Deaf, Mood::Well]);
    bench.values.absorb(vec![found], Some(&bench.set)).await.unwrap();
    for node in [0, 2] {
        assert_eq!(value_of(bench.on_replica(node, "a")).as_deref(), Some("1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indeterminate_write_of_an_earlier_term_is_left_to_the_reconfiguration() {
    let mut bench = Bench::new(9).await;
    let before = bench.put("a", "0", Condition::None).await.unwrap();
    bench.are([Mood::Mute, Mood::Deaf]);
    let unknown = bench.put("a", "1", Condition::Version(before)).await;
    assert!(matches!(unknown, Err(KvError::Unknown(_))), "{unknown:?}");
    let left = bench.on_replica(1, "a").unwrap();

    // It has not read the first replica.
    bench.begin_term(3).await;
    bench.are([Mood::Deaf, Mood::Well]);
    let earlier = ReplicaSet { epoch: 1, ..bench.set.clone() };
    bench.values.absorb(vec![left.clone()], Some(&earlier)).await.unwrap();
    let after = bench.put("a", "2", Condition::Version(before)).await.unwrap();
    assert!(after > left.stamp.version);
    assert_eq!(bench.read("a").as_deref(), Some("2"));
    bench.are([Mood::Well, Mood::Well]);
    bench.values.absorb(vec![left], Some(&bench.set)).await.unwrap();
    assert_eq!(bench.read("a").as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_years_ahead_has_no_lasting_effect() {
    const YEARS_MS: u64 = 10 * 365 * 86_400_000;
    let mut bench = Bench::new(9).await;
    let plain = bench.put("a", "0", Condition::None).await.unwrap();
    let ahead = Version { wall_ms: plain.wall_ms + YEARS_MS, ..plain };
    let record = Record { stamp: Stamp::of(ahead), ..bench.on_replica(0, "a").unwrap() };
    bench.values.absorb(vec![record], Some(&bench.set)).await.unwrap();
    assert_eq!(bench.on_replica(0, "a").unwrap().stamp.version, ahead);

    let within = bench.put("a", "1", Condition::Version(ahead)).await.unwrap();
    assert!(within > ahead);
    assert!(bench.put("b", "1", Condition::None).await.unwrap().wall_ms < ahead.wall_ms);
    bench.begin_term(3).await;
    let after = bench.put("a", "2", Condition::Version(within)).await.unwrap();
    assert!(after > within && after.wall_ms < ahead.wall_ms);
    assert_eq!(bench.read("a").as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_missing_key_leaves_nothing_once_all_replicas_are_known_to_lack_it() {
    let mut bench = Bench::new(9).await;
    // Left on one of them before the term began, which does not know of it.
    let left = bench.put("left", "0", Condition::None).await.unwrap();
    let left = Record { stamp: Stamp::of(left), ..bench.on_replica(0, "left").unwrap() };
    let left = Record { key: key("a"), ..left };
    let planted = left.clone();
    bench.replicas[2].store.write(move |txn| txn.merge(&planted)).await.unwrap();
    bench.begin_term(3).await;
    let all_same = || bench.primary.were_all_same(key("a").position(), &bench.set);
    bench.delete("a").await.unwrap();
    assert!(bench.on_replica(0, "a").is_some_and(|record| record.is_tombstone()));
    bench.until(|| bench.on_replica(2, "a").is_some_and(|record| record.is_tombstone())).await;
    bench.until(all_same).await;

    let before = bench.replicas[0].store.usage();
    for name in ["a", "b", "c"] {
        let written = bench.delete(name).await.unwrap();
        assert_eq!(written.durable_copies, 3);
    }
    assert_eq!(bench.replicas[0].store.usage(), before);
    assert_eq!((bench.on_replica(1, "b"), bench.on_replica(2, "b")), (None, None));
    // What is there, or may be on a replica, is removed as ever.
    bench.delete("left").await.unwrap();
    assert!(bench.on_replica(0, "left").unwrap().is_tombstone());
    bench.are([Mood::Mute, Mood::Deaf]);
    let unknown = bench.put("d", "1", Condition::None).await;
    assert!(matches!(unknown, Err(KvError::Unknown(_))), "{unknown:?}");
    bench.are([Mood::Well, Mood::Well]);
    bench.delete("d").await.unwrap();
    assert!(bench.on_replica(0, "d").unwrap().is_tombstone());
    // A majority has it already, with or without this one.
    bench.until(|| bench.on_replica(1, "d").is_some_and(|record| record.is_tombstone())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_refuses_writes_that_take_more_room_and_nothing_else() {
    let refused = |written: Result<Version, KvError>, limit, at: &Contact| match written {
        Err(KvError::Full { limit: full, node }) => {
            assert_eq!((full, node), (limit, at.address.clone()));
        }
        other => panic!("{other:?}"),
    };
    // Each of these small records takes 256 bytes.
    let quota = Quota { bytes: 2 * 256 + 100, keys: u64::MAX };
    for (quota, limit) in [(quota, "limits.quota"), (Quota { keys: 2, ..UNLIMITED }, "limits.keys")]
    {
        let bench = Bench::with_quotas(9, [quota, UNLIMITED, UNLIMITED]).await;
        bench.put("a", "0", Condition::None).await.unwrap();
        bench.put("b", "0", Condition::None).await.unwrap();
        refused(bench.put("c", "0", Condition::None).await, limit, bench.set.primary());
        let status = tonic::Status::from(bench.put("c", "0", Condition::None).await.unwrap_err());
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(status.message().contains("remove keys"), "{status:?}");
        bench.put("a", "1", Condition::None).await.unwrap();
        bench.delete("b").await.unwrap();
        // Handed over by the primary of another set.
        let record = Record { key: key("d"), ..bench.on_replica(0, "a").unwrap() };
        bench.values.absorb(vec![record], Some(&bench.set)).await.unwrap();
        assert_eq!(bench.read("d").as_deref(), Some("1"));
    }
    let bench = Bench::with_quotas(9, [UNLIMITED, UNLIMITED, Quota { keys: 1, ..UNLIMITED }]).await;
    bench.put("a", "0", Condition::None).await.unwrap();
    let full = || bench.primary.full_replica(key("b").position(), &bench.set).is_some();
    bench.until(full).await;
    let limits = "limits.quota or limits.keys";
    refused(bench.put("b", "0", Condition::None).await, limits, &bench.set.members[2]);
    bench.put("a", "1", Condition::None).await.unwrap();
}
