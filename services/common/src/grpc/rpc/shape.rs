//! The memory of a decoded message, computed from its bytes before it is decoded.
//!
//! Two bytes can encode an empty element of a list, which takes two hundred in memory. The shapes
//! of all messages are derived from the descriptors; walking a message with its shape allocates
//! nothing.

use std::collections::{HashMap, HashSet};

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// A `String` or a `Bytes` without its contents; the latter is the larger.
const TEXT_BYTES: usize = 32;
/// A `Vec`.
const LIST_BYTES: usize = 24;
/// A scalar, or the tag of an enum, at most.
const WORD_BYTES: usize = 8;
/// A list that grows has room for up to twice as many elements as it holds; and for four once there
/// is one, which is why a list's first element costs twice as much.
const GROWTH: usize = 2;
/// The allocator's overhead for a block of memory.
const BLOCK_BYTES: usize = 16;
/// Fields of a message, at most: one bit each.
const MAX_FIELDS: usize = u64::BITS as usize;
/// Nesting of messages; prost refuses more than 100.
const MAX_DEPTH: usize = 32;

/// The bytes are not protobuf of this edition, or nested too deeply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The shapes of messages.
#[derive(Debug, Default)]
pub(crate) struct Shapes(Vec<Shape>);

/// The index of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShapeId(usize);

/// The fields of a message, by number.
#[derive(Debug)]
struct Shape(Vec<(u32, Field)>);

#[derive(Clone, Copy, Debug)]
struct Field {
    kind: Kind,
    /// Bytes allocated for each element of a list; 0 if there is one place, within the message.
    element: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Varint,
    Fixed(usize),
    Text,
    /// Prost passes `Bytes` on without a copy: they are part of the received message.
    Bytes,
    Message(ShapeId),
}

impl Shapes {
    /// The shapes of all messages of these descriptors, and their ids by full name.
    pub(crate) fn of(sets: &[FileDescriptorSet]) -> (Self, HashMap<String, ShapeId>) {
        let mut messages = HashMap::new();
        for file in sets.iter().flat_map(|set| &set.file) {
            for message in &file.message_type {
                collect(&format!(".{}", file.package()), message, &mut messages);
            }
        }
        let ids: HashMap<String, ShapeId> =
            messages.keys().enumerate().map(|(n, name)| (name.clone(), ShapeId(n))).collect();
        let shapes = messages.values().map(|message| shape(message, &messages, &ids)).collect();
        (Self(shapes), ids)
    }

    /// Bytes that decoding the message allocates, at most.
    pub(crate) fn cost(&self, message: ShapeId, bytes: &[u8]) -> Result<usize, Malformed> {
        self.cost_within(message, bytes, MAX_DEPTH)
    }

    fn cost_within(
        &self,
        message: ShapeId,
        mut bytes: &[u8],
        depth: usize,
    ) -> Result<usize, Malformed> {
        let shape = &self.0[message.0];
        let mut cost = 0;
        // The lists that have an element.
        let mut begun = 0_u64;
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let field = shape.field(key >> 3);
            let before = cost;
            cost += match key & 7 {
                0 => {
                    varint(&mut bytes)?;
                    field.map_or(0, |(_, field)| field.element)
                }
                1 => {
                    take(&mut bytes, 8)?;
                    field.map_or(0, |(_, field)| field.element)
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).map_err(|_| Malformed)?;
                    let inner = take(&mut bytes, length)?;
                    match field {
                        None => 0,
                        Some((_, field)) => self.cost_of(field, inner, depth)?,
                    }
                }
                5 => {
                    take(&mut bytes, 4)?;
                    field.map_or(0, |(_, field)| field.element)
                }
                // Groups, which proto3 does not have.
                _ => return Err(Malformed),
            };
            if let Some((at, field)) = field.filter(|_| cost > before) {
                let bit = 1 << at;
                cost += if begun & bit == 0 { field.element } else { 0 };
                begun |= bit;
            }
        }
        Ok(cost)
    }

    fn cost_of(&self, field: Field, inner: &[u8], depth: usize) -> Result<usize, Malformed> {
        Ok(match field.kind {
            Kind::Varint => field.element * inner.iter().filter(|byte| **byte < 0x80).count(),
            Kind::Fixed(width) => field.element * (inner.len() / width),
            Kind::Bytes => field.element,
            Kind::Text if inner.is_empty() => field.element,
            Kind::Text => field.element + inner.len() + BLOCK_BYTES,
            Kind::Message(_) if depth == 0 => return Err(Malformed),
            Kind::Message(message) => {
                field.element + self.cost_within(message, inner, depth - 1)?
            }
        })
    }
}

impl Shape {
    /// A field and its index among the message's.
    fn field(&self, number: u64) -> Option<(usize, Field)> {
        let number = u32::try_from(number).ok()?;
        let at = self.0.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some((at, self.0[at].1))
    }
}

type Messages<'a> = HashMap<String, &'a DescriptorProto>;

fn collect<'a>(scope: &str, message: &'a DescriptorProto, messages: &mut Messages<'a>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, messages);
    }
    messages.insert(name, message);
}

fn shape(
    message: &DescriptorProto,
    messages: &Messages<'_>,
    ids: &HashMap<String, ShapeId>,
) -> Shape {
    let mut fields: Vec<_> = message
        .field
        .iter()
        .map(|field| {
            let kind = match field.r#type() {
                Type::Double | Type::Fixed64 | Type::Sfixed64 => Kind::Fixed(8),
                Type::Float | Type::Fixed32 | Type::Sfixed32 => Kind::Fixed(4),
                Type::String => Kind::Text,
                Type::Bytes => Kind::Bytes,
                Type::Message | Type::Group => {
                    ids.get(field.type_name()).map_or(Kind::Text, |id| Kind::Message(*id))
                }
                _ => Kind::Varint,
            };
            let list = field.label() == Label::Repeated;
            let element =
                if list { GROWTH * element_size(field, messages, &mut HashSet::new()) } else { 0 };
            (field.number().cast_unsigned(), Field { kind, element })
        })
        .collect();
    fields.sort_by_key(|(number, _)| *number);
    assert!(fields.len() <= MAX_FIELDS, "{} has too many fields", message.name());
    Shape(fields)
}

/// Bytes of a message's type, without what it points to.
fn size<'a>(
    message: &'a DescriptorProto,
    messages: &Messages<'a>,
    within: &mut HashSet<String>,
) -> usize {
    let mut sum = 0;
    // A oneof has room for its largest field.
    let mut choices: HashMap<i32, usize> = HashMap::new();
    for field in &message.field {
        let size = if field.label() == Label::Repeated {
            LIST_BYTES
        } else {
            element_size(field, messages, within)
                + if field.proto3_optional() || field.r#type() == Type::Message {
                    WORD_BYTES
                } else {
                    0
                }
        };
        match field.oneof_index {
            Some(choice) if !field.proto3_optional() => {
                let largest = choices.entry(choice).or_default();
                *largest = size.max(*largest);
            }
            _ => sum += size,
        }
    }
    sum + choices.values().map(|largest| largest + WORD_BYTES).sum::<usize>()
}

fn element_size<'a>(
    field: &'a FieldDescriptorProto,
    messages: &Messages<'a>,
    within: &mut HashSet<String>,
) -> usize {
    match field.r#type() {
        Type::String | Type::Bytes => TEXT_BYTES,
        Type::Message | Type::Group => {
            let name = field.type_name();
            // A message that contains itself is boxed.
            if !within.insert(name.to_owned()) {
                return WORD_BYTES;
            }
            let size = messages.get(name).map_or(TEXT_BYTES, |found| size(found, messages, within));
            within.remove(name);
            size
        }
        _ => WORD_BYTES,
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for at in 0..10 {
        let byte = *bytes.get(at).ok_or(Malformed)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use shoal_proto::{
        control::v1 as control, dht::v1 as dht, peer::v1 as peer, tracker::v1 as tracker,
        types::v1 as types,
    };

    use super::*;

    fn shapes() -> (Shapes, HashMap<String, ShapeId>) {
        let set = FileDescriptorSet::decode(shoal_proto::FILE_DESCRIPTOR_SET).expect("valid");
        Shapes::of(&[set])
    }

    #[test]
    fn no_type_is_larger_than_its_shape_says() {
        let set = FileDescriptorSet::decode(shoal_proto::FILE_DESCRIPTOR_SET).expect("valid");
        let mut messages = HashMap::new();
        for file in &set.file {
            for message in &file.message_type {
                collect(&format!(".{}", file.package()), message, &mut messages);
            }
        }
        macro_rules! check {
            ($($package:ident :: $name:ident),* $(,)?) => {$(
                let full = format!(".shoal.{}.v1.{}", stringify!($package), stringify!($name));
                let told = size(messages[&full], &messages, &mut HashSet::new());
                assert!(told >= size_of::<$package::$name>(), "{full}: {told}");
                assert!(told <= 3 * size_of::<$package::$name>() + 64, "{full}: {told}");
            )*};
        }
        check!(
            types::PeerInfo,
            tracker::SwarmInfo,
            tracker::AnnounceRequest,
            peer::PieceRange,
            peer::LinkMessage,
            dht::NodeInfo,
            dht::NodeState,
            dht::Rumour,
            dht::KeyRange,
            dht::RangeReplicaSet,
            dht::ReplicaSet,
            dht::Record,
            dht::Digest,
            dht::KeyVersion,
            dht::AcceptedProposal,
            dht::PutRequest,
            control::FilePriority,
            control::ContentStatus,
            control::NeighbourStatus,
            control::TrackerStatus,
            control::UploadRequest,
        );
    }

    #[test]
    fn empty_elements_cost_what_they_take_and_not_what_they_came_in() {
        let (shapes, ids) = shapes();
        let rumours =
            dht::GossipRequest { rumours: vec![dht::Rumour::default(); 1000], digest: vec![] };
        let bytes = rumours.encode_to_vec();
        assert_eq!(bytes.len(), 2000);
        let cost = shapes.cost(ids[".shoal.dht.v1.GossipRequest"], &bytes).expect("it is sound");
        assert!(cost >= 1000 * size_of::<dht::Rumour>(), "{cost}");
    }

    #[test]
    fn lists_of_few_elements_cost_the_room_for_several() {
        let (shapes, ids) = shapes();
        for members in 1..10 {
            let set = dht::ReplicaSet {
                members: vec![dht::NodeInfo::default(); members],
                ..<_>::default()
            };
            let set = dht::RangeReplicaSet { replica_set: Some(set), range: None };
            let bytes = dht::Superseded { by: vec![set; 20] }.encode_to_vec();
            let decoded = dht::Superseded::decode(&*bytes).expect("it was encoded");
            let sets = decoded.by.iter().filter_map(|set| set.replica_set.as_ref());
            let members = sets.map(|set| set.members.capacity()).sum::<usize>();
            let taken = decoded.by.capacity() * size_of::<dht::RangeReplicaSet>()
                + members * size_of::<dht::NodeInfo>();
            let cost = shapes.cost(ids[".shoal.dht.v1.Superseded"], &bytes).expect("it is sound");
            assert!(cost >= taken, "{taken} bytes cost {cost}");
        }
    }

    #[test]
    fn packed_numbers_and_texts_are_counted() {
        let (shapes, ids) = shapes();
        let have = peer::Have { pieces: vec![1; 500] }.encode_to_vec();
        let cost = shapes.cost(ids[".shoal.peer.v1.Have"], &have).expect("it is sound");
        assert!(cost >= 500 * size_of::<u32>(), "{cost}");
        let keys = dht::ReadRecordsRequest { keys: vec![vec![7; 100].into(); 10] }.encode_to_vec();
        let cost =
            shapes.cost(ids[".shoal.dht.v1.ReadRecordsRequest"], &keys).expect("it is sound");
        assert!((10 * size_of::<bytes::Bytes>()..2000).contains(&cost), "{cost}");
    }

    #[test]
    fn what_prost_would_not_read_or_skip_is_malformed() {
        let (shapes, ids) = shapes();
        let gossip = ids[".shoal.dht.v1.GossipRequest"];
        // A group around what follows, a length beyond the end, an endless number.
        for bytes in [&[0x83, 1, 10, 0][..], &[10, 5, 0], &[0xff; 11], &[8]] {
            assert_eq!(shapes.cost(gossip, bytes), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (shapes, ids) = shapes();
            for id in ids.values() {
                let _ = shapes.cost(*id, &bytes);
            }
        }
    }
}
