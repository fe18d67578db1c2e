//! SIGINT, SIGTERM and SIGHUP: the first asks the run to come to a good end, the second ends it at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::{native, stderr};

/// The exit status of an interrupted run.
pub const INTERRUPTED: i32 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Listens from now on; may be called once a process. The first signal is answered by `first`, the
/// second, before the process ends, by `second`.
pub fn listen(first: &'static str, second: &'static str) -> Result<()> {
    ctrlc::set_handler(move || {
        if ASKED.swap(true, Ordering::SeqCst) {
            stderr::say(format_args!("vedm: {second}"));
            native::exit_at_once(INTERRUPTED);
        }
        stderr::say(format_args!("vedm: {first}"));
    })
    .context("can't listen for interrupts")
}

/// From now on a signal ends the process at once, and `folder`, which is being filled, is removed before. The
/// last folder counts; not to be called beside `listen`.
pub fn abandon(folder: &Path) -> Result<()> {
    static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);
    // A poisoned lock means that another thread panicked; there is nothing here to be spoilt.
    let filled = || FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    if filled().replace(folder.to_path_buf()).is_some() {
        return Ok(());
    }
    ctrlc::set_handler(move || {
        let folder = filled().clone().unwrap_or_default();
        // Whoever fills it goes on meanwhile, until the folder itself is gone.
        let _ = (0..100).find(|_| fs::remove_dir_all(&folder).is_ok() || !folder.exists());
        stderr::say("vedm: interrupted");
        native::exit_at_once(INTERRUPTED);
    })
    .context("can't listen for interrupts")
}

/// True once somebody has asked the run to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// What long work looks at now and then.
pub fn flag() -> &'static AtomicBool {
    &ASKED
}
