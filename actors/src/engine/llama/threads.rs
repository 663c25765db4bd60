//! The compute threads of a context.
//!
//! OpenMP keeps its own. Without it ggml would create and join its threads for every graph, unless it is given a pool.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

/// What computes the graphs of one context; must outlive the context's last graph.
#[derive(Debug)]
pub(super) struct Threads {
    pool: Option<NonNull<sys::ggml_threadpool>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(pool) = self.pool {
            // SAFETY: made by ggml, owned alone, and the context that used it is gone.
            unsafe { sys::ggml_threadpool_free(pool.as_ptr()) }
        }
    }
}

impl Threads {
    /// Gives the context `n_threads` threads.
    pub(super) fn attach(ctx: NonNull<sys::llama_context>, n_threads: u32) -> Self {
        let pool = if cfg!(feature = "openmp") || n_threads < 2 { None } else { new_pool(n_threads) };
        if let Some(pool) = pool {
            // SAFETY: both are alive; a null second pool means that one serves single tokens and batches.
            unsafe { sys::llama_attach_threadpool(ctx.as_ptr(), pool.as_ptr(), std::ptr::null_mut()) }
        }
        Self { pool }
    }
}

fn new_pool(n_threads: u32) -> Option<NonNull<sys::ggml_threadpool>> {
    let n_threads = i32::try_from(n_threads).ok()?;
    // SAFETY: no precondition; the parameters are ggml's defaults.
    unsafe {
        let mut params = sys::ggml_threadpool_params_default(n_threads);
        NonNull::new(sys::ggml_threadpool_new(&raw mut params))
    }
}
