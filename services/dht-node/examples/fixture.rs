use bytes::Bytes;
use shoal_core::ring::{NodeId, Version};
use shoal_dht_node::store::*;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(format!("{dir}/node-id"), "4b0e3a52-7f3f-4a3b-9a43-3f8c0f2d6e11\n").unwrap();
    let store = Store::open(DataDir::open(dir.as_ref()).unwrap()).unwrap();
    let node = NodeId::new(uuid::Uuid::from_u128(7));
    let rec = |k: &'static str, wall_ms, v: Option<Vec<u8>>, e| Record {
        key: Bytes::from(k).try_into().unwrap(),
        version: Version { wall_ms, counter: 0, node },
        value: v.map(|v| Bytes::from(v).try_into().unwrap()),
        expires_ms: e,
    };
    let recs = [
        rec("llama-3", 1_764_000_000_000, Some(vec![7; 300]), None),
        rec("session", 1_764_000_000_500, Some(b"abc".to_vec()), Some(1_764_000_900_000)),
        rec("gone", 1_764_000_000_001, Some(b"x".to_vec()), None),
        rec("gone", 1_764_000_001_000, None, None),
    ];
    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for r in recs {
        rt.block_on(store.write(move |t| t.merge(&r))).unwrap();
    }
    rt.block_on(store.write(|t| t.put_meta("custody", b"some bytes"))).unwrap();
}
