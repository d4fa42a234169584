//! The heap of the process, which all of its threads share.

/// Makes every thread allocate from one heap. Call it before there is a second thread.
///
/// By default glibc gives each thread a heap of its own, so that many of them need not wait for each other. Here two
/// take turns: what one reads the other keeps, and a heap for each would leave gaps in both. It is an eighth of the
/// memory with 10,000 Services. Other C libraries share one heap already.
pub fn share() {
    // SAFETY: it sets a number of the allocator, which has a lock for that. Where it fails, all is as by default.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}
