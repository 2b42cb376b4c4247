//! glibc's allocator, told to waste less.
//!
//! It makes up to eight arenas per core, one after the other as threads meet, and memory that RocksDB
//! frees in one of them does not serve the others. With as many arenas as cores a run at full speed
//! takes a quarter less memory (docs/design/memory.md). `MALLOC_ARENA_MAX` in the environment goes
//! before this.

/// To be called before threads are started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn limit_arenas() {
    const ARENAS: libc::c_int = 2;
    if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
        return;
    }
    #[expect(unsafe_code, reason = "a setting that only C can reach")]
    // SAFETY: `mallopt` takes two numbers, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Other allocators have no such setting.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn limit_arenas() {}
