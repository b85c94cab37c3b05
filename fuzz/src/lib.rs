//! Shared by the fuzz targets: a counting allocator, messages as received from the network,
//! manifests, shells around the state machines, and a clock.

pub mod content;
pub mod peer_list;
pub mod ring;
pub mod swarm;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use bytes::Bytes;
use shoal_common::fuzzing::{Receiver, cost, pass};

/// Bytes that a parser may allocate for each byte of input.
const MAX_BYTES_PER_BYTE: usize = 16;

/// Further bytes that any parser may allocate, for error messages and the first growth of vectors.
const ALLOWANCE: usize = 4096;

/// The same for a message: the check before decoding always allows 16 KiB more.
const MESSAGE_ALLOWANCE: usize = ALLOWANCE + (16 << 10);

/// Bytes of the flag and the length before a message.
pub const HEAD_BYTES: usize = 5;

#[global_allocator]
static ALLOCATOR: Counting = Counting { allocated: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

/// Counts the allocated bytes, and their maximum.
struct Counting {
    allocated: AtomicUsize,
    peak: AtomicUsize,
}

impl Counting {
    fn added(&self, bytes: usize) {
        let now = self.allocated.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn removed(&self, bytes: usize) {
        self.allocated.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.added(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.removed(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    /// Large blocks grow in place, by pages: a copy does not count twice.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.removed(layout.size());
        self.added(new_size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Runs a closure. Returns its result, and the most bytes that it had allocated at a time.
pub fn measured<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.allocated.load(Ordering::Relaxed);
    ALLOCATOR.peak.store(before, Ordering::Relaxed);
    let result = run();
    (result, ALLOCATOR.peak.load(Ordering::Relaxed) - before)
}

/// Runs a parser over `received` bytes; fails if it allocates more than 16 bytes for each.
pub fn frugally<T>(received: usize, parse: impl FnOnce() -> T) -> T {
    within(received, ALLOWANCE, parse)
}

fn within<T>(received: usize, allowance: usize, parse: impl FnOnce() -> T) -> T {
    let (parsed, allocated) = measured(parse);
    let allowed = received * MAX_BYTES_PER_BYTE + allowance;
    assert!(allocated <= allowed, "{allocated} bytes are allocated for {received} received");
    parsed
}

/// Checks a message and parses it, as a server does with a request and a client with a response;
/// fails if that allocates more than 16 bytes for each received byte.
pub fn receive<T>(
    path: &str,
    by: Receiver,
    message: &[u8],
    parse: impl FnOnce(Bytes) -> Option<T>,
) -> Option<T> {
    let frame = Bytes::from(framed(message));
    // Allocations that happen once per process do not count.
    let _ = cost(path, by, &[]);
    within(message.len(), MESSAGE_ALLOWANCE, || {
        let (mut passed, ended) = pass(path, by, vec![frame]);
        ended.ok()?;
        parse(passed.pop()?.slice(HEAD_BYTES..))
    })
}

/// A message with its flag and length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// Bytes split into frames of these lengths, repeated in turn.
pub fn cut(bytes: &[u8], lengths: &[u8]) -> Vec<Bytes> {
    let mut lengths = lengths.iter().map(|length| usize::from(*length) + 1).cycle();
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(lengths.next().unwrap_or(rest.len()).min(rest.len()));
        frames.push(Bytes::copy_from_slice(frame));
        rest = after;
    }
    frames
}

/// The start of virtual time.
pub fn epoch() -> Instant {
    Instant::now()
}
