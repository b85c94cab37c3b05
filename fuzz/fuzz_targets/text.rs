//! Text from users, files and peers: ids, links, names, addresses, sizes, rates, times.

#![no_main]

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use libfuzzer_sys::fuzz_target;
use shoal_common::units::{ByteSize, Rate, duration};
use shoal_core::{
    Address, PeerId,
    content::{ContentId, Link, Name, Wanted},
    ring::{NodeId, Version},
};
use shoal_fuzz::frugally;

fuzz_target!(|text: &str| {
    round_trip::<ContentId>(text);
    round_trip::<PeerId>(text);
    round_trip::<NodeId>(text);
    round_trip::<Version>(text);
    round_trip::<Link>(text);
    round_trip::<Name>(text);
    round_trip::<Address>(text);
    round_trip::<ByteSize>(text);
    round_trip::<Rate>(text);
    let _ = frugally(text.len(), || text.parse::<Wanted>());
    let _ = frugally(text.len(), || duration::parse(text));
});

/// A parsed value can be written, and parsed again to the same value.
fn round_trip<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    let Ok(parsed) = frugally(text.len(), || text.parse::<T>()) else { return };
    let written = parsed.to_string();
    assert_eq!(written.parse::<T>().expect("a written value is parsed"), parsed);
}
