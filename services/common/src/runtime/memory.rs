//! How the allocator treats freed memory: it keeps some while it is being reused, and gives all of
//! it back afterwards.

#[cfg(target_env = "gnu")]
use std::ffi::c_int;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};

/// Until the memory in use has been freed, and the pause before the next time: other threads wait
/// for memory in the meantime.
const PAUSE: Duration = Duration::from_secs(5);

/// Free bytes that stay at the end of a heap to be used again; each thread that moves blocks has a
/// heap. More than a connection for blocks may have in flight, see [`Http2::BULK`]: its memory is
/// allocated and freed all the time.
///
/// [`Http2::BULK`]: crate::http2::Http2::BULK
#[cfg(target_env = "gnu")]
const KEPT_BYTES: c_int = 8 << 20;
/// A longer block of memory is mapped from the system and unmapped when it is freed. A piece that
/// is assembled in memory and a message are not longer.
#[cfg(target_env = "gnu")]
const MAPPED_FROM_BYTES: c_int = 4 << 20;

/// Makes the allocator keep some freed memory. By default glibc gives back everything beyond 128
/// KiB, or beyond twice the longest block that happened to be mapped before: on a thread that moves
/// blocks that is most of its memory, and the system then zeroes each page again.
#[cfg(target_env = "gnu")]
pub fn keep_some() {
    // As in glibc's malloc.h.
    const TRIM_THRESHOLD: c_int = -1;
    const MMAP_THRESHOLD: c_int = -3;
    // SAFETY: it is declared as glibc declares it, and may be called at any time.
    unsafe extern "C" {
        safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    mallopt(TRIM_THRESHOLD, KEPT_BYTES);
    mallopt(MMAP_THRESHOLD, MAPPED_FROM_BYTES);
}

/// Other allocators need no advice.
#[cfg(not(target_env = "gnu"))]
pub fn keep_some() {}

/// Gives unused memory of the allocator back to the system. It takes some milliseconds: call it
/// where blocking is allowed.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: it is declared as glibc declares it, and may be called at any time.
    unsafe extern "C" {
        safe fn malloc_trim(pad: usize) -> c_int;
    }
    malloc_trim(0);
}

/// Other allocators give memory back themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

/// Gives memory back after a moment, on a thread of its own. Outside a runtime it does nothing.
pub(crate) fn give_back_soon() {
    static WAITING: AtomicBool = AtomicBool::new(false);
    let Ok(runtime) = Handle::try_current() else { return };
    if WAITING.swap(true, Ordering::Relaxed) {
        return;
    }
    runtime.spawn(async {
        sleep(PAUSE).await;
        WAITING.store(false, Ordering::Relaxed);
        // A runtime that is ending has no threads for it, and does not need it.
        let _ = tokio::task::spawn_blocking(give_back).await;
    });
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::{fs, hint::black_box};

    use super::*;

    const BLOCK_BYTES: usize = 256 << 10;

    /// Pages that the system has given this thread so far.
    fn faults() -> usize {
        let stat = fs::read_to_string("/proc/thread-self/stat").expect("Linux tells");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
        fields.split(' ').nth(7).expect("minflt").parse().expect("a number")
    }

    #[test]
    fn memory_of_blocks_in_flight_is_used_again_and_not_asked_for_anew() {
        keep_some();
        // As much as a connection for blocks may have in flight.
        let in_flight = || {
            let blocks: Vec<_> = (0..20).map(|_| vec![1_u8; BLOCK_BYTES]).collect();
            drop(black_box(blocks));
        };
        in_flight();
        let before = faults();
        (0..10).for_each(|_| in_flight());
        let pages = 10 * 20 * BLOCK_BYTES / 4096;
        let faults = faults() - before;
        assert!(faults < pages / 10, "{faults} faults for {pages} pages");
    }
}
