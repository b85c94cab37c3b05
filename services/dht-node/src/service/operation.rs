//! Operations on keys, executed on this node or on the node that serves the key.

use std::time::Duration;

use prost_types::Timestamp;
use shoal_common::{status::Violations, units::duration};
use shoal_core::ring::{Position, Version};
use shoal_proto::dht::v1::{self as pb, condition};
use tonic::{Response, Status};

use crate::{
    network::calls::Client,
    replication::kv::{Condition, KvError, Values, Write, Written},
    routing::router::{Effect, Operation},
    storage::{Key, Record, Value},
    time::{StartWindow, unix_ms},
    wire,
};

/// The longest time to live of a value: ten years.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Reads a key.
pub(super) struct Get(pub(super) Key);

/// Sets or removes a key.
pub(super) struct Change<R> {
    write: Write,
    request: R,
}

/// A request that changes a key.
pub(super) trait ChangeRequest: Clone + Sync {
    type Answer: Send;

    fn not_after(&self) -> Option<Timestamp>;

    /// Has the node that serves the key execute it, by this time.
    fn send(
        self,
        client: Client,
        not_after: Timestamp,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send;

    fn answer(version: String, durable_copies: u32) -> Self::Answer;
}

impl Operation for Get {
    type Answer = pb::GetResponse;

    fn position(&self) -> Position {
        self.0.position()
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn here(&self, values: &Values) -> Result<pb::GetResponse, Status> {
        let missing = || Status::not_found("the key has no value");
        values.get(&self.0)?.and_then(value_of).ok_or_else(missing)
    }

    async fn there(
        &self,
        mut client: Client,
        _not_after_ms: u64,
    ) -> Result<pb::GetResponse, Status> {
        let request = pb::GetRequest { key: self.0.as_bytes().clone(), direct: true };
        Ok(client.get(request).await?.into_inner())
    }
}

impl<R: ChangeRequest> Operation for Change<R> {
    type Answer = R::Answer;

    fn position(&self) -> Position {
        self.write.key.position()
    }

    fn effect(&self) -> Effect {
        self.write.effect()
    }

    async fn here(&self, values: &Values) -> Result<R::Answer, Status> {
        let window = window_of(self.request.not_after())?;
        let Written { version, durable_copies } = values.write(self.write.clone(), window).await?;
        Ok(R::answer(version.to_string(), durable_copies as u32))
    }

    async fn there(&self, client: Client, not_after_ms: u64) -> Result<R::Answer, Status> {
        in_time(window_of(self.request.not_after())?)?;
        let not_after = wire::timestamp(not_after_ms);
        Ok(self.request.clone().send(client, not_after).await?.into_inner())
    }
}

impl ChangeRequest for pb::PutRequest {
    type Answer = pb::PutResponse;

    fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    async fn send(
        self,
        mut client: Client,
        not_after: Timestamp,
    ) -> Result<Response<pb::PutResponse>, Status> {
        client.put(Self { direct: true, not_after: Some(not_after), ..self }).await
    }

    fn answer(version: String, durable_copies: u32) -> pb::PutResponse {
        pb::PutResponse { version, durable_copies }
    }
}

impl ChangeRequest for pb::DeleteRequest {
    type Answer = pb::DeleteResponse;

    fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    async fn send(
        self,
        mut client: Client,
        not_after: Timestamp,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        client.delete(Self { direct: true, not_after: Some(not_after), ..self }).await
    }

    fn answer(version: String, durable_copies: u32) -> pb::DeleteResponse {
        pb::DeleteResponse { version, durable_copies }
    }
}

impl Write {
    fn effect(&self) -> Effect {
        if self.condition == Condition::None { Effect::Same } else { Effect::Once }
    }
}

impl TryFrom<pb::PutRequest> for Change<pb::PutRequest> {
    type Error = Status;

    fn try_from(request: pb::PutRequest) -> Result<Self, Status> {
        Ok(Self { write: write_of(&request)?, request })
    }
}

impl TryFrom<pb::DeleteRequest> for Change<pb::DeleteRequest> {
    type Error = Status;

    fn try_from(request: pb::DeleteRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let key = violations.take("key", Key::try_from(request.key.clone()));
        let condition = violations.take("condition", condition_of(request.condition.as_ref()));
        let (Some(key), Some(condition)) = (key, condition) else { return Err(violations.into()) };
        let min_copies = request.min_copies as usize;
        let write = Write { key, value: None, expires_ms: None, condition, min_copies };
        Ok(Self { write, request })
    }
}

fn window_of(not_after: Option<Timestamp>) -> Result<StartWindow, Status> {
    Ok(StartWindow::until(not_after.map(wire::parse_timestamp).transpose()?))
}

fn in_time(window: StartWindow) -> Result<(), KvError> {
    if window.is_open() { Ok(()) } else { Err(KvError::TooLate) }
}

fn value_of(record: Record) -> Option<pb::GetResponse> {
    let expires_at = record.expires_ms.map(wire::timestamp);
    let version = record.stamp.version.to_string();
    record.value.map(|value| pb::GetResponse {
        value: value.as_bytes().clone(),
        version,
        expires_at,
    })
}

fn write_of(request: &pb::PutRequest) -> Result<Write, Status> {
    let mut violations = Violations::default();
    let key = violations.take("key", Key::try_from(request.key.clone()));
    let value = violations.take("value", Value::try_from(request.value.clone()));
    let condition = violations.take("condition", condition_of(request.condition.as_ref()));
    let ttl = violations.take("ttl", ttl_of(request.ttl.as_ref()));
    let (Some(key), Some(value), Some(condition), Some(ttl)) = (key, value, condition, ttl) else {
        return Err(violations.into());
    };
    Ok(Write {
        key,
        value: Some(value),
        expires_ms: ttl.map(|ttl| unix_ms().saturating_add(ttl.as_millis() as u64)),
        condition,
        min_copies: request.min_copies as usize,
    })
}

fn ttl_of(ttl: Option<&prost_types::Duration>) -> Result<Option<Duration>, String> {
    let Some(ttl) = ttl else { return Ok(None) };
    let ttl = duration::from_message(*ttl).map_err(|error| error.to_string())?;
    let range = Duration::from_millis(1)..=MAX_TTL;
    range.contains(&ttl).then_some(Some(ttl)).ok_or_else(|| "is from 1 ms to 10 years".to_owned())
}

fn condition_of(condition: Option<&pb::Condition>) -> Result<Condition, String> {
    use condition::Kind;
    match condition.and_then(|condition| condition.kind.as_ref()) {
        None | Some(Kind::Absent(false)) => Ok(Condition::None),
        Some(Kind::Absent(true)) => Ok(Condition::Absent),
        Some(Kind::Version(version)) => {
            let version = version.parse::<Version>();
            version.map(Condition::Version).map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_times_are_refused_and_overflow_nothing() {
        let ttl = |seconds, nanos| ttl_of(Some(&prost_types::Duration { seconds, nanos }));
        let ten_years = MAX_TTL.as_secs().cast_signed();
        assert_eq!(ttl_of(None), Ok(None));
        assert_eq!(ttl(0, 1_000_000), Ok(Some(Duration::from_millis(1))));
        assert_eq!(ttl(ten_years, 0), Ok(Some(MAX_TTL)));
        for (seconds, nanos) in [
            (0, 0),
            (0, 999_999),
            (0, -1),
            (-1, 0),
            (ten_years, 1),
            (u64::MAX.cast_signed(), 0),
            (i64::MAX, i32::MAX),
            (i64::MIN, i32::MIN),
            (i64::MAX, i32::MIN),
        ] {
            assert!(ttl(seconds, nanos).is_err(), "{seconds} s and {nanos} ns");
        }
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (0, 1_000_000_000),
            (i64::MIN, i32::MIN),
            (i64::MAX, 0),
            (i64::MAX, i32::MAX),
        ] {
            assert!(window_of(Some(Timestamp { seconds, nanos })).is_err());
        }
        // The last time that milliseconds can express.
        let last = wire::timestamp(u64::MAX);
        assert!(window_of(Some(last)).is_ok_and(|window| !window.is_open()));
        assert_eq!(wire::parse_timestamp(last), Ok(u64::MAX));
    }
}
