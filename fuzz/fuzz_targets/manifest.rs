//! Manifests and lists of piece hashes, as any peer may send them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::content::{Manifest, PieceHashes};
use shoal_fuzz::frugally;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (manifest, hashes) = input;
    let Ok(parsed) = frugally(manifest.len(), || Manifest::decode(manifest)) else { return };
    assert_eq!(parsed.encode(), manifest, "two manifests with one id");
    let layout = parsed.layout();
    let total: u64 = layout.pieces().map(|piece| u64::from(layout.length_of(piece))).sum();
    assert_eq!(total, layout.total_bytes(), "the pieces do not add up to the content");
    let _ = frugally(hashes.len(), || PieceHashes::verify(&parsed, hashes));
});
