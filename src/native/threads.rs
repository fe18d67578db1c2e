//! Work divided among the threads that libtorch computes with.

use std::any::Any;
use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// GCC's OpenMP: runs the function in that many threads of the pool.
type GompParallel =
    unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// The entry of the OpenMP library that libtorch computes with, if it is GCC's.
fn gomp_parallel() -> Option<GompParallel> {
    static FOUND: OnceLock<Option<GompParallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            // SAFETY: looks a name up; the name stands for this signature since GCC 4.9.
            unsafe {
                let found = libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr());
                (!found.is_null()).then(|| std::mem::transmute::<*mut c_void, GompParallel>(found))
            }
        }
        #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
        None
    })
}

/// Threads that libtorch computes with.
pub fn thread_count() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

/// Does `work` for each of `tasks`, in the threads that libtorch computes with, which wait for more work
/// by spinning: a second pool of threads would have to share the cores with them.
pub fn parallel<T: Send>(tasks: Vec<T>, work: impl Fn(T) + Send + Sync) {
    let threads = thread_count();
    if tasks.len() < 2 || threads < 2 {
        return tasks.into_iter().for_each(work);
    }
    let Some(start) = gomp_parallel() else {
        use rayon::iter::{IntoParallelIterator, ParallelIterator};
        return tasks.into_par_iter().for_each(work);
    };
    let shared = Shared {
        tasks: tasks.into_iter().map(|task| Mutex::new(Some(task))).collect(),
        next: AtomicUsize::new(0),
        work,
        panic: Mutex::new(None),
    };
    // SAFETY: `shared` outlives the call, which ends when every thread has left `enter`.
    unsafe { start(entry(&shared), (&raw const shared).cast_mut().cast(), threads as c_uint, 0) };
    if let Some(panic) = shared.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
}

/// What the threads of `parallel` share.
struct Shared<T, F> {
    tasks: Vec<Mutex<Option<T>>>,
    next: AtomicUsize,
    work: F,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// `enter` for the type of `shared`.
fn entry<T: Send, F: Fn(T) + Sync>(_: &Shared<T, F>) -> unsafe extern "C" fn(*mut c_void) {
    enter::<T, F>
}

/// One thread: takes tasks until there are none.
unsafe extern "C" fn enter<T: Send, F: Fn(T) + Sync>(data: *mut c_void) {
    // SAFETY: `parallel` gave a `Shared<T, F>`, which may be used from several threads.
    let shared = unsafe { &*data.cast_const().cast::<Shared<T, F>>() };
    let take = |slot: &Mutex<Option<T>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let all = AssertUnwindSafe(|| {
        while let Some(slot) = shared.tasks.get(shared.next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(task) = take(slot) {
                (shared.work)(task);
            }
        }
    });
    // A panic must not pass through C.
    if let Err(panic) = catch_unwind(all) {
        *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
}
