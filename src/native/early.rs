//! A look at the command line before libtorch's own initialisers run, which take most of the time to `main`.

use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};

use super::environment;

/// What a program does with its arguments there, in a thread of its own. `main` waits for it, but not for what it
/// returns, which is done next.
pub type Foresee = fn(Vec<OsString>) -> Option<Box<dyn FnOnce()>>;

/// Has a program begin with a [`Foresee`] before its libraries are ready. Nothing that it calls may need them.
#[macro_export]
macro_rules! before_libraries {
    ($foresee:path) => {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        const _: () = {
            use std::ffi::{c_char, c_int};
            type List = *const *const c_char;

            unsafe extern "C" fn start(count: c_int, arguments: List, environment: List) {
                // SAFETY: these are the loader's.
                unsafe { $crate::native::start_early(count, arguments, environment, $foresee) }
            }

            /// Runs before the libraries' own initialisers.
            #[used]
            #[unsafe(link_section = ".preinit_array")]
            static START: unsafe extern "C" fn(c_int, List, List) = start;
        };
    };
}

/// Whether the thread still looks at the arguments.
static LOOKS: Mutex<bool> = Mutex::new(false);
static HAS_LOOKED: Condvar = Condvar::new();

/// Returns once the arguments have been looked at, where somebody does that.
pub fn wait_for_foresight() {
    let mut looks = LOOKS.lock().unwrap_or_else(PoisonError::into_inner);
    while *looks {
        looks = HAS_LOOKED.wait(looks).unwrap_or_else(PoisonError::into_inner);
    }
}

fn looks(still: bool) {
    *LOOKS.lock().unwrap_or_else(PoisonError::into_inner) = still;
    HAS_LOOKED.notify_all();
}

/// The first version of glibc that is ready for threads before any initialiser has run.
const WITH_THREADS: [u32; 2] = [2, 34];

/// Bytes of stack, as many as the main thread usually has: what is called here was written for that one.
const STACK: usize = 8 << 20;

unsafe extern "C" {
    /// Where the C library looks for variables.
    static mut environ: *const *const c_char;
}

struct Start {
    arguments: Vec<OsString>,
    foresee: Foresee,
}

/// Starts the thread.
///
/// # Safety
/// The arguments are those that the loader hands to a function of `.preinit_array`, which calls this.
pub unsafe fn start_early(
    count: c_int,
    arguments: *const *const c_char,
    variables: *const *const c_char,
    foresee: Foresee,
) {
    // SAFETY: the loader's lists, which live as long as the process. No other thread runs yet.
    unsafe {
        // First, as this may start the program anew. The linker says which function of the array is the first, so
        // it may have been called already, and then finds nothing to do.
        environment::set(count, arguments, variables);
        // A file that is opened must not become a standard stream, which the runtime sees to later.
        let closed = |stream| libc::fcntl(stream, libc::F_GETFD) == -1;
        if !has_threads() || (0..3).any(closed) {
            return;
        }
        // The C library sets this in its own initialiser, to the same.
        if environ.is_null() {
            environ = variables;
        }
        let count = usize::try_from(count).unwrap_or(0);
        let argument = |at| CStr::from_ptr(*arguments.add(at)).to_bytes().to_vec();
        let arguments = (0..count).map(|at| OsString::from_vec(argument(at))).collect();
        let start = Box::into_raw(Box::new(Start { arguments, foresee }));
        let mut settings = std::mem::zeroed();
        let mut thread = std::mem::zeroed();
        looks(true);
        let failed = libc::pthread_attr_init(&raw mut settings) != 0
            || libc::pthread_attr_setstacksize(&raw mut settings, STACK) != 0
            || libc::pthread_attr_setdetachstate(&raw mut settings, libc::PTHREAD_CREATE_DETACHED)
                != 0
            || libc::pthread_create(&raw mut thread, &raw const settings, enter, start.cast()) != 0;
        if failed {
            drop(Box::from_raw(start));
            looks(false);
        }
    }
}

/// The thread.
extern "C" fn enter(start: *mut c_void) -> *mut c_void {
    // SAFETY: `start_early` gave this one away. A signal is ignored, as Rust's runtime will do it.
    let start = unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        *Box::from_raw(start.cast::<Start>())
    };
    // What fails here fails again where it is told.
    let next = catch_unwind(AssertUnwindSafe(|| (start.foresee)(start.arguments)));
    looks(false);
    if let Ok(Some(next)) = next {
        let _ = catch_unwind(AssertUnwindSafe(next));
    }
    std::ptr::null_mut()
}

fn has_threads() -> bool {
    // SAFETY: a string that lives as long as the process.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    [0; 2].map(|_| numbers.next().unwrap_or(0)) >= WITH_THREADS
}
