//! Rows of logits that do not depend on how many tokens were computed with them.
//!
//! ggml computes a batch of one token with other kernels than a batch of several: attention over 512 cached tokens or
//! more is split among the threads, and products of unquantised matrices take another order of summation. The last bits
//! differ, quantised activations make more of it (a logit moves by tenths), and a greedy reply takes another turn.
//! ggml's CPU backend has a switch that keeps it to one order. llama.cpp does not hand its backends out, except through a
//! C++ method of the context that is called here by its linker name: the bindings are pinned to one exact version,
//! and a name that is gone fails the build, not the reply.

use llama_cpp_sys_2 as sys;

/// The CPU backend of a context, which lives as long as the context.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady(sys::ggml_backend_t);

#[cfg(not(target_env = "msvc"))]
unsafe extern "C" {
    /// `ggml_backend_sched_t llama_context::get_sched() const`.
    #[link_name = "_ZNK13llama_context9get_schedEv"]
    fn llama_context_get_sched(context: *const sys::llama_context) -> sys::ggml_backend_sched_t;
}

impl Steady {
    /// The switch of a context; None where it cannot be reached, or where other devices compute, too.
    ///
    /// # Safety
    /// The context must be alive; what is returned must not outlive it.
    #[cfg(not(target_env = "msvc"))]
    pub(super) unsafe fn of(context: *const sys::llama_context) -> Option<Self> {
        // SAFETY: a method without arguments takes the object as its only argument, by the C++ ABI of every platform but
        // MSVC's; the scheduler and its backends belong to the context, which is alive.
        unsafe {
            let scheduler = llama_context_get_sched(context);
            if scheduler.is_null() {
                return None;
            }
            // Rows from another device may differ whatever the CPU does.
            if sys::ggml_backend_sched_get_n_backends(scheduler) != 1 {
                return None;
            }
            let backend = sys::ggml_backend_sched_get_backend(scheduler, 0);
            sys::ggml_backend_is_cpu(backend).then_some(Self(backend))
        }
    }

    /// The switch of a context; None where it cannot be reached.
    #[cfg(target_env = "msvc")]
    pub(super) unsafe fn of(_context: *const sys::llama_context) -> Option<Self> {
        None
    }

    /// Whether the next computation keeps to one order of summation.
    pub(super) fn set(self, steady: bool) {
        // SAFETY: the backend is that of a context which is alive, and it is the CPU's.
        unsafe { sys::ggml_backend_cpu_set_use_ref(self.0, steady) };
    }
}
