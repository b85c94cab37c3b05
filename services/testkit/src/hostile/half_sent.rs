//! Calls whose message is never completed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{task::JoinHandle, time::timeout};
use tonic::Code;

use super::body::{call, connect, framed};

/// Calls without their last byte. Dropping them cancels them.
#[derive(Debug)]
pub struct HalfSent(Vec<JoinHandle<Code>>);

impl HalfSent {
    /// Starts `calls` calls, each over its own connection, with a message of `bytes` bytes except
    /// the last one.
    pub async fn start(address: &str, method: &'static str, bytes: usize, calls: usize) -> Self {
        let sent: Bytes = framed(&vec![0; bytes - 1], bytes as u32);
        let channels = join_all((0..calls).map(|_| connect(address))).await;
        let calls = channels.into_iter().map(|channel| {
            let channel = channel.expect("the server listens");
            tokio::spawn(call(channel, method, sent.clone(), false))
        });
        Self(calls.collect())
    }

    /// Waits until the server has ended all calls, and returns the statuses; `None` after
    /// `patience`.
    pub async fn ended(mut self, patience: Duration) -> Option<Vec<Code>> {
        let calls = std::mem::take(&mut self.0);
        let ended = timeout(patience, join_all(calls)).await.ok()?;
        Some(ended.into_iter().map(|code| code.expect("a call does not panic")).collect())
    }
}

impl Drop for HalfSent {
    fn drop(&mut self) {
        for call in &self.0 {
            call.abort();
        }
    }
}
