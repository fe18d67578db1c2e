//! What libraries read from the environment while they are loaded, before any line of `main`.

use std::ffi::{CStr, c_char, c_int};

struct Setting {
    variable: &'static CStr,
    /// Whoever has set one of these has said what is to be.
    said: &'static [&'static [u8]],
}

/// How long the threads of GCC's OpenMP look for more work before they go to sleep: some 30 microseconds,
/// as long as a step of a model leaves them without. Their own choice, 300,000, is a thousand times that
/// once another process wants the cores: threads that only look for work then use up the share of those
/// that have some (measured: up to five times slower).
const PATIENCE: Setting = Setting { variable: c"GOMP_SPINCOUNT=10000", said: WAITING };

/// In training, whose pauses are longer: some 150 microseconds.
const MORE_PATIENCE: Setting = Setting { variable: c"GOMP_SPINCOUNT=50000", said: WAITING };

const WAITING: &[&[u8]] = &[b"GOMP_SPINCOUNT=", b"OMP_WAIT_POLICY="];

/// Memory in pages of 2 MB where the system has them (`madvise`): a step of training passes through a
/// gigabyte. Elsewhere less memory counts for more.
const LARGE_PAGES: Setting =
    Setting { variable: c"GLIBC_TUNABLES=glibc.malloc.hugetlb=1", said: &[b"GLIBC_TUNABLES="] };

/// What a shell leaves in the environment for the command itself: its own path.
const LEFT: &[u8] = b"_=";

/// Adds the settings of which the user has said nothing: one in the place of what the shell left there, and
/// otherwise the program is started anew.
///
/// At this point nothing has been initialised yet, but libtorch's addresses have been looked up, so that a
/// new start costs some 15 milliseconds.
pub(super) unsafe extern "C" fn set(
    count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    // SAFETY: the loader hands out lists of strings that end with null; no other thread runs yet.
    unsafe {
        let trains = count > 1 && CStr::from_ptr(*arguments.add(1)).to_bytes() == b"train";
        let mut patience = Some(if trains { MORE_PATIENCE } else { PATIENCE });
        let mut large_pages = trains.then_some(LARGE_PAGES);
        let (mut variables, mut left) = (Vec::new(), None);
        while let variable = *environment.add(variables.len())
            && !variable.is_null()
        {
            let bytes = CStr::from_ptr(variable).to_bytes();
            for setting in [&mut patience, &mut large_pages] {
                setting.take_if(|s| s.said.iter().any(|name| bytes.starts_with(name)));
            }
            if bytes.starts_with(LEFT) {
                left = Some(variables.len());
            }
            variables.push(variable);
        }
        if let (Some(setting), None, Some(place)) = (&patience, &large_pages, left) {
            // The list lies on the stack, and is what the libraries read from here on.
            *environment.add(place).cast_mut() = setting.variable.as_ptr();
            return;
        }
        let settings = [patience, large_pages].into_iter().flatten();
        let known = variables.len();
        variables.extend(settings.map(|setting| setting.variable.as_ptr()));
        if variables.len() == known {
            return;
        }
        variables.push(std::ptr::null());
        // By its own name, which is shown in lists of processes.
        let mut path = [0 as c_char; libc::PATH_MAX as usize];
        let room = path.len() - 1;
        let found = libc::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr(), room);
        // Without a base the loader was called by name, and this would be its path.
        if found > 0 && libc::getauxval(libc::AT_BASE) != 0 {
            // Where that fails all stays as it was.
            libc::execve(path.as_ptr(), arguments, variables.as_ptr());
        }
    }
}

/// Runs before the libraries' own initialisers.
#[used]
#[unsafe(link_section = ".preinit_array")]
static SET: unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char) = set;
