//! Memory goes back to the system once it is no longer needed: the allocator would keep it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};

/// Until what was in use has been freed, and for as long no second time: others wait meanwhile for
/// memory.
const PAUSE: Duration = Duration::from_secs(5);

/// Gives back what the allocator holds and nobody uses. It takes some milliseconds: call it where
/// blocking is fine.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: it is declared as glibc declares it, and may be called at any time.
    unsafe extern "C" {
        safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    malloc_trim(0);
}

/// Other allocators give memory back themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

/// Gives memory back in a moment, on a thread of its own. Outside a runtime it does nothing.
pub(crate) fn give_back_soon() {
    static WAITING: AtomicBool = AtomicBool::new(false);
    let Ok(runtime) = Handle::try_current() else { return };
    if WAITING.swap(true, Ordering::Relaxed) {
        return;
    }
    runtime.spawn(async {
        sleep(PAUSE).await;
        WAITING.store(false, Ordering::Relaxed);
        // A runtime that is ending has no threads for it, and no need.
        let _ = tokio::task::spawn_blocking(give_back).await;
    });
}
