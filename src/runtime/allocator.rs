//! How much memory the C library keeps for itself.
//!
//! glibc gives each thread an arena of its own, up to eight a core, and memory that was freed in one serves no other and hardly ever goes back to the system. This daemon has some ten threads of which
//! two or three work at a time: measured, the node that writes a million rows in one transaction needs 124 MB with two arenas after other work, and 211 MB without a bound.
//!
//! Invariant: what the operator has set (`MALLOC_ARENA_MAX`) counts.

/// Bounds the arenas. Before any thread is started.
#[allow(unsafe_code)]
pub fn bound_arenas() {
    #[cfg(target_env = "gnu")]
    {
        const ARENAS: nix::libc::c_int = 2;
        if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
            // SAFETY: it takes two numbers, and no other thread is there that could allocate meanwhile.
            unsafe {
                nix::libc::mallopt(nix::libc::M_ARENA_MAX, ARENAS);
            }
        }
    }
}
