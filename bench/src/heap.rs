//! How much heap something takes: every allocation of this program is counted. What a C library (zstd, xz)
//! allocates is not: it must be asked.

use std::alloc::System;

use peakmem_alloc::{INSTRUMENTED_SYSTEM, PeakMemAlloc, PeakMemAllocTrait};

#[global_allocator]
static ALLOCATOR: &PeakMemAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Runs `work`, and says how many bytes more than before were live at the worst moment of it. Other threads'
/// allocations count too, so the caller must be alone.
pub(crate) fn peak_bytes_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    ALLOCATOR.reset_peak_memory();
    let done = work();
    (done, ALLOCATOR.get_peak_memory())
}
