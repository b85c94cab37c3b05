//! `shoal dht`: values in the ring, and the ring itself.

mod circle;
mod ring;

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use bytes::Bytes;
use serde_json::json;
use shoal_common::text::printable;
use shoal_core::ring::Position;
use shoal_proto::dht::v1::{
    Condition, DeleteRequest, GetRequest, GetResponse, LookupRequest, LookupResponse, PutRequest,
    Target, condition, target,
};
use tokio::task::spawn_blocking;

use crate::{
    args::{DhtArgs, DhtCommand, DhtGetArgs, DhtPutArgs, DhtRmArgs, Format},
    exit::{Exit, Failure},
    output::{self, Align, Table},
    progress::Progress,
    ring::{Client, Repeat, RingSession},
};

/// The longest value: 64 KiB.
const MAX_VALUE_BYTES: u64 = 64 << 10;

pub(crate) async fn run(args: DhtArgs, format: Format, progress: &Progress) -> anyhow::Result<()> {
    let ring = RingSession::new(&args.ring.nodes);
    match args.command {
        DhtCommand::Put(args) => put(ring, args, format).await,
        DhtCommand::Get(args) => get(ring, args, format).await,
        DhtCommand::Rm(args) => remove(ring, args, progress).await,
        DhtCommand::Lookup(args) => look_up(ring, args.key, format).await,
        DhtCommand::Ring(args) => ring::run(ring, args, format).await,
    }
}

async fn put(mut ring: RingSession, args: DhtPutArgs, format: Format) -> anyhow::Result<()> {
    let value = match args.value.as_str() {
        "-" => spawn_blocking(read_value).await??,
        _ => args.value.into(),
    };
    let absent = args.if_absent.then_some(condition::Kind::Absent(true));
    let kind = absent.or(args.if_version.map(condition::Kind::Version));
    let request = PutRequest {
        key: args.key.into(),
        value,
        ttl: args.ttl.map(prost_types::Duration::try_from).transpose()?,
        condition: kind.map(|kind| Condition { kind: Some(kind) }),
        ..PutRequest::default()
    };
    let repeat = repeat(request.condition.as_ref());
    let put = async |mut client: Client| client.put(request.clone()).await;
    let answer = ring.call(repeat, put).await?;
    match format {
        Format::Json => output::json(
            &json!({ "version": answer.version, "durable_copies": answer.durable_copies }),
        )?,
        Format::Human => output::line(format!(
            "durable copies: {}, version: {}",
            answer.durable_copies,
            printable(&answer.version)
        ))?,
    }
    Ok(())
}

/// All of stdin; an error if it is longer than a value may be.
fn read_value() -> anyhow::Result<Bytes> {
    let mut value = Vec::new();
    io::stdin().lock().take(MAX_VALUE_BYTES + 1).read_to_end(&mut value)?;
    if value.len() as u64 > MAX_VALUE_BYTES {
        let message = format!("a value has at most {MAX_VALUE_BYTES} bytes, but stdin has more");
        return Err(Failure::new(Exit::Usage, message).into());
    }
    Ok(value.into())
}

const fn repeat(condition: Option<&Condition>) -> Repeat {
    if condition.is_some() { Repeat::Harmful } else { Repeat::Harmless }
}

async fn get(mut ring: RingSession, args: DhtGetArgs, format: Format) -> anyhow::Result<()> {
    let request = GetRequest { key: args.key.into(), direct: false };
    let get = async |mut client: Client| client.get(request.clone()).await;
    let answer = match ring.call(Repeat::Harmless, get).await {
        // As for grep and test: scripts check whether there is a value.
        Err(failure) if failure.exit() == Exit::NotFound => {
            return Err(Failure::new(Exit::Failed, failure.to_string()).into());
        }
        answer => answer?,
    };
    if args.version {
        eprintln!("{}", printable(&answer.version));
    }
    match format {
        Format::Json => output::json(&value_json(&answer))?,
        // Files and programs get the bytes unchanged, terminals get escaped text.
        Format::Human if io::stdout().is_terminal() => {
            output::line(String::from_utf8_lossy(&answer.value))?;
        }
        Format::Human => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&answer.value)?;
            stdout.flush()?;
        }
    }
    Ok(())
}

/// The value as text if it is text, else in hex digits.
fn value_json(answer: &GetResponse) -> serde_json::Value {
    let text = std::str::from_utf8(&answer.value).ok();
    let hex = text.is_none().then(|| answer.value.iter().map(|b| format!("{b:02x}")).collect());
    let expires_unix_s = answer.expires_at.as_ref().map(|at| at.seconds);
    json!({
        "value": text,
        "value_hex": hex.map(|digits: Vec<String>| digits.concat()),
        "version": answer.version,
        "expires_unix_s": expires_unix_s,
    })
}

async fn remove(mut ring: RingSession, args: DhtRmArgs, progress: &Progress) -> anyhow::Result<()> {
    let kind = args.if_version.map(condition::Kind::Version);
    let request = DeleteRequest {
        key: args.key.into(),
        condition: kind.map(|kind| Condition { kind: Some(kind) }),
        ..DeleteRequest::default()
    };
    let repeat = repeat(request.condition.as_ref());
    let delete = async |mut client: Client| client.delete(request.clone()).await;
    let answer = ring.call(repeat, delete).await?;
    progress.note(&format!(
        "removed durably at {}",
        output::count(answer.durable_copies.into(), "node")
    ));
    Ok(())
}

async fn look_up(mut ring: RingSession, key: String, format: Format) -> anyhow::Result<()> {
    let position = Position::of_key(key.as_bytes());
    let target = Target { kind: Some(target::Kind::Key(key.into())) };
    let request = LookupRequest { target: Some(target) };
    let look_up = async |mut client: Client| client.lookup(request.clone()).await;
    let answer = ring.call(Repeat::Harmless, look_up).await?;
    match format {
        Format::Json => output::json(&path_json(position, &answer))?,
        Format::Human => output::line(describe_path(position, &answer))?,
    }
    Ok(())
}

fn describe_path(position: Position, answer: &LookupResponse) -> String {
    let mut table = Table::new([
        ("ASKED", Align::Right),
        ("POSITION", Align::Left),
        ("ADDRESS", Align::Left),
        ("NODE ID", Align::Left),
    ]);
    let asked = answer.path.iter().enumerate().map(|(index, node)| ((index + 1).to_string(), node));
    let owner = answer.owner.iter().map(|owner| ("owner".to_owned(), owner));
    for (label, node) in asked.chain(owner) {
        table.row([label, node.position.clone(), node.address.clone(), node.node_id.clone()]);
    }
    let hops = output::count(answer.hops.into(), "hop");
    let timeouts = output::count(answer.timeouts.into(), "timeout");
    format!("the key's position is {position}\n{}\n{hops}, {timeouts}", table.render())
}

fn path_json(position: Position, answer: &LookupResponse) -> serde_json::Value {
    json!({
        "position": position.to_string(),
        "owner": answer.owner.as_ref().map(ring::node_json),
        "path": answer.path.iter().map(ring::node_json).collect::<Vec<_>>(),
        "hops": answer.hops,
        "timeouts": answer.timeouts,
    })
}

#[cfg(test)]
mod tests {
    use shoal_proto::dht::v1::NodeInfo;

    use super::*;

    #[test]
    fn a_path_ends_at_the_owner() {
        let node = |position: &str| NodeInfo {
            position: position.to_owned(),
            address: "10.0.0.1:7071".to_owned(),
            node_id: "2f1e".to_owned(),
            ..NodeInfo::default()
        };
        let position = Position::from_u128(0xb);
        let answer = LookupResponse {
            path: vec![node("05"), node("0a")],
            owner: Some(node("0c")),
            hops: 1,
            timeouts: 0,
        };
        assert_eq!(
            describe_path(position, &answer),
            "\
the key's position is 0000000000000000000000000000000b
ASKED  POSITION  ADDRESS        NODE ID
    1  05        10.0.0.1:7071  2f1e
    2  0a        10.0.0.1:7071  2f1e
owner  0c        10.0.0.1:7071  2f1e
1 hop, 0 timeouts"
        );
        assert_eq!(path_json(position, &answer)["owner"]["position"], "0c");
    }

    #[test]
    fn a_value_that_is_not_text_is_hex_in_json() {
        let answer = |value: &'static [u8]| GetResponse {
            value: value.into(),
            version: "v".to_owned(),
            expires_at: None,
        };
        assert_eq!(value_json(&answer(b"text"))["value"], "text");
        let binary = value_json(&answer(b"\xff\x00"));
        assert_eq!((&binary["value"], &binary["value_hex"]), (&json!(null), &json!("ff00")));
    }
}
