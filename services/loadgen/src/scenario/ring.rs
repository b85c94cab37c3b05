//! Calls to the ring: lookups of random keys, and reads and writes of small values.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use shoal_proto::dht::v1::{
    GetRequest, LookupRequest, PutRequest, Target, dht_service_client::DhtServiceClient,
    target::Kind,
};
use tonic::Status;
use uuid::Uuid;

use super::scatter;
use crate::{
    args::ValueArgs,
    record::Operation,
    targets::{Connected, in_turn},
};

/// Writes in flight while the keys are prepared.
const PREPARING: usize = 16;

/// How much longer than a run the values live.
const EXTRA_TTL: Duration = Duration::from_secs(600);

pub(super) struct Lookup {
    nodes: Vec<Connected>,
}

impl Lookup {
    pub(super) fn new(nodes: Vec<Connected>) -> Self {
        Self { nodes }
    }

    pub(super) async fn call(&self, number: u64) -> Result<u64, Status> {
        let key = scatter(number).to_be_bytes().to_vec();
        let request = LookupRequest { target: Some(Target { kind: Some(Kind::Key(key.into())) }) };
        let mut client = DhtServiceClient::new(in_turn(&self.nodes, number));
        Ok(client.lookup(request).await?.into_inner().encoded_len() as u64)
    }
}

pub(super) struct Kv {
    nodes: Vec<Connected>,
    /// Part of every key of this run.
    run: Uuid,
    values: ValueArgs,
    value: Bytes,
    ttl: Duration,
}

impl Kv {
    /// Writes every key once, so that each can be read.
    pub(super) async fn prepare(
        nodes: Vec<Connected>,
        values: ValueArgs,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        let kv = Self {
            nodes,
            run: Uuid::new_v4(),
            values,
            value: vec![7; values.value_size.bytes() as usize].into(),
            ttl: duration + EXTRA_TTL,
        };
        let keys = stream::iter(0..u64::from(values.keys)).map(|key| kv.put(key, key));
        let written = keys.buffer_unordered(PREPARING).try_for_each(|_| async { Ok(()) }).await;
        written
            .map_err(|status| anyhow::anyhow!(shoal_common::status::words(&status)))
            .context("cannot write the keys before the run")?;
        Ok(kv)
    }

    pub(super) fn operation(&self, number: u64) -> Operation {
        // An f64 holds 53 bits.
        let fraction = (scatter(number) >> 11) as f64 / (1_u64 << 53) as f64;
        if fraction < self.values.reads { Operation::Get } else { Operation::Put }
    }

    pub(super) async fn call(&self, number: u64) -> Result<u64, Status> {
        let key = scatter(!number) % u64::from(self.values.keys);
        if self.operation(number) == Operation::Put {
            return self.put(number, key).await;
        }
        let mut client = DhtServiceClient::new(in_turn(&self.nodes, number));
        let request = GetRequest { key: self.key(key), direct: false };
        Ok(client.get(request).await?.into_inner().encoded_len() as u64)
    }

    async fn put(&self, number: u64, key: u64) -> Result<u64, Status> {
        let mut client = DhtServiceClient::new(in_turn(&self.nodes, number));
        let request = PutRequest {
            key: self.key(key),
            value: self.value.clone(),
            ttl: self.ttl.try_into().ok(),
            ..PutRequest::default()
        };
        Ok(client.put(request).await?.into_inner().encoded_len() as u64)
    }

    fn key(&self, number: u64) -> Bytes {
        format!("loadgen/{}/{number}", self.run).into()
    }
}
