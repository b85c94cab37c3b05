use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use shoal_core::ring::*;
use shoal_dht_node::store::*;
use std::{
    sync::{Arc, atomic::*},
    time::*,
};
fn rec(n: u64, wall_ms: u64, len: usize) -> Record {
    let node = NodeId::new(uuid::Uuid::from_u128(7));
    Record {
        key: Bytes::from(format!("key/{n:012}")).try_into().unwrap(),
        version: Version { wall_ms, counter: 0, node },
        value: Some(Bytes::from(vec![n as u8; len]).try_into().unwrap()),
        expires_ms: None,
    }
}
fn main() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let figures = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    let commits = || {
        figures
            .render()
            .lines()
            .find_map(|l| {
                l.strip_prefix("shoal_dht_commits_total ").map(|v| v.parse::<f64>().unwrap())
            })
            .unwrap_or(0.0)
    };
    let dir = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or("/tmp".into())).unwrap();
    let len: usize = std::env::args().nth(2).map_or(100, |v| v.parse().unwrap());
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // raw fsync
    {
        use std::os::unix::fs::FileExt;
        let f = std::fs::File::create(dir.path().join("raw")).unwrap();
        f.set_len(1 << 20).unwrap();
        let b = vec![1u8; 4096];
        let t = Instant::now();
        for i in 0..300u64 {
            f.write_all_at(&b, (i % 256) * 4096).unwrap();
            f.sync_data().unwrap();
        }
        println!("raw 4 KiB write+fdatasync: {:?}", t.elapsed() / 300);
    }
    let store = Store::open(DataDir::open(&dir.path().join("d")).unwrap()).unwrap();
    let counter = Arc::new(AtomicU64::new(0));
    for writers in [1usize, 16, 256] {
        let until = Instant::now() + Duration::from_secs(5);
        let (c0, n0, t0) = (commits(), counter.load(Ordering::Relaxed), Instant::now());
        let lat = rt.block_on(async {
            let tasks: Vec<_> = (0..writers)
                .map(|_| {
                    let (s, c) = (store.clone(), counter.clone());
                    tokio::spawn(async move {
                        let mut lat = vec![];
                        while Instant::now() < until {
                            let n = c.fetch_add(1, Ordering::Relaxed);
                            let r = rec(n, 1, len);
                            let t = Instant::now();
                            s.write(move |x| x.merge(&r)).await.unwrap();
                            lat.push(t.elapsed());
                        }
                        lat
                    })
                })
                .collect();
            let mut all = vec![];
            for t in tasks {
                all.extend(t.await.unwrap());
            }
            all.sort();
            all
        });
        let (n, c, dt) =
            (counter.load(Ordering::Relaxed) - n0, commits() - c0, t0.elapsed().as_secs_f64());
        println!(
            "{writers} writers: {:.0} puts/s, {:.3} commits/put, {:.0} commits/s, put p50 {:?} p99 {:?}",
            n as f64 / dt,
            c / n as f64,
            c / dt,
            lat[lat.len() / 2],
            lat[lat.len() * 99 / 100]
        );
    }
    let total = counter.load(Ordering::Relaxed);
    let gets = |label: &str| {
        let mut lat = vec![];
        let mut x = 1u64;
        for _ in 0..200_000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let k = rec((x >> 33) % total, 1, 0).key;
            let t = Instant::now();
            assert!(store.get(&k).unwrap().is_some());
            lat.push(t.elapsed());
        }
        lat.sort();
        println!(
            "get {label}: mean {:?} p50 {:?} p99 {:?} p99.9 {:?} max {:?}",
            lat.iter().sum::<Duration>() / lat.len() as u32,
            lat[lat.len() / 2],
            lat[lat.len() * 99 / 100],
            lat[lat.len() * 999 / 1000],
            lat[lat.len() - 1]
        );
    };
    gets("idle");
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            let (s, stop) = (store.clone(), stop.clone());
            rt.spawn(async move {
                let mut w = 2;
                while !stop.load(Ordering::Relaxed) {
                    w += 1;
                    let r = rec(i, w, len);
                    s.write(move |x| x.merge(&r)).await.unwrap();
                }
            })
        })
        .collect();
    gets("with 64 writers");
    stop.store(true, Ordering::Relaxed);
    rt.block_on(async {
        for t in tasks {
            t.await.unwrap();
        }
    });
    for (label, range) in [
        ("whole", KeyRange::whole(Position::from_u128(u128::MAX))),
        (
            "cut anywhere 1/20",
            KeyRange {
                after: Position::from_u128(u128::MAX / 3),
                last: Position::from_u128(u128::MAX / 3 + u128::MAX / 20),
            },
        ),
    ] {
        let t = Instant::now();
        for _ in 0..1000 {
            std::hint::black_box(store.summary(range).unwrap());
        }
        println!("summary {label}: {:?}", t.elapsed() / 1000);
    }
    println!(
        "records {}, file {} MB",
        store.record_count(),
        std::fs::metadata(dir.path().join("d/ring.redb")).unwrap().len() >> 20
    );
    drop(store);
    let t = Instant::now();
    let store = Store::open(DataDir::open(&dir.path().join("d")).unwrap()).unwrap();
    println!("open of {}: {:?}", store.record_count(), t.elapsed());
}
