//! What the fuzz targets share: an allocator that counts, messages as they come from the network,
//! shells around the brains, and a clock.

pub mod ring;
pub mod roster;
pub mod swarm;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use bytes::Bytes;
use shoal_common::fuzzing::{Receiver, cost, pass};

/// Bytes that a parser may allocate for each byte it is given.
const MAX_BYTES_PER_BYTE: usize = 16;

/// Bytes that any parser may allocate besides, for error messages and the first growth of vectors.
const ALLOWANCE: usize = 4096;

/// And of a message: the bounds of messages take so much for what however few bytes decode to.
const MESSAGE_ALLOWANCE: usize = ALLOWANCE + (16 << 10);

/// Bytes of the flag and the length that go before a message.
pub const HEAD_BYTES: usize = 5;

#[global_allocator]
static ALLOCATOR: Counting = Counting { allocated: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

/// Counts the bytes that are allocated, and the most there were at a time.
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

// SAFETY: every call is passed on to the system's allocator as it came.
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

    /// Large blocks grow in place, by pages: what is copied meanwhile does not count.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.removed(layout.size());
        self.added(new_size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Runs something, and tells how many bytes it had allocated at a time, at most.
pub fn measured<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.allocated.load(Ordering::Relaxed);
    ALLOCATOR.peak.store(before, Ordering::Relaxed);
    let result = run();
    (result, ALLOCATOR.peak.load(Ordering::Relaxed) - before)
}

/// Runs a parser over `received` bytes, and fails if it allocates more than 16 bytes for each.
pub fn frugally<T>(received: usize, parse: impl FnOnce() -> T) -> T {
    within(received, ALLOWANCE, parse)
}

fn within<T>(received: usize, allowance: usize, parse: impl FnOnce() -> T) -> T {
    let (parsed, allocated) = measured(parse);
    let allowed = received * MAX_BYTES_PER_BYTE + allowance;
    assert!(allocated <= allowed, "{allocated} bytes are allocated for {received} received");
    parsed
}

/// Has a message pass the bounds of messages and then a parser, as a server does with a request and a
/// client with a response, and fails if the two allocate more than 16 bytes for each received.
pub fn receive<T>(
    path: &str,
    by: Receiver,
    message: &[u8],
    parse: impl FnOnce(Bytes) -> Option<T>,
) -> Option<T> {
    let frame = Bytes::from(framed(message));
    // What is made once, by whoever comes first, is nobody's.
    let _ = cost(path, by, &[]);
    within(message.len(), MESSAGE_ALLOWANCE, || {
        let (mut passed, ended) = pass(path, by, vec![frame]);
        ended.ok()?;
        parse(passed.pop()?.slice(HEAD_BYTES..))
    })
}

/// A message with its head.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// Bytes cut into frames of these lengths, in turns.
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

/// Some instant from which virtual time runs.
pub fn epoch() -> Instant {
    Instant::now()
}
