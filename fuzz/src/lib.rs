//! What the fuzz targets share: an allocator that counts, and a clock.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

/// Bytes that a parser may allocate for each byte it is given.
const MAX_BYTES_PER_BYTE: usize = 16;

/// Bytes that any parser may allocate besides, for error messages and the first growth of vectors.
const ALLOWANCE: usize = 4096;

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
}

/// Runs a parser over `received` bytes, and fails if it allocates more than 16 bytes for each.
pub fn frugally<T>(received: usize, parse: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.allocated.load(Ordering::Relaxed);
    ALLOCATOR.peak.store(before, Ordering::Relaxed);
    let parsed = parse();
    let allocated = ALLOCATOR.peak.load(Ordering::Relaxed) - before;
    let allowed = received * MAX_BYTES_PER_BYTE + ALLOWANCE;
    assert!(allocated <= allowed, "{allocated} bytes are allocated for {received} received");
    parsed
}

/// Some instant from which virtual time runs.
pub fn epoch() -> Instant {
    Instant::now()
}
