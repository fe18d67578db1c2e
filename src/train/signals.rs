//! SIGINT, SIGTERM and SIGHUP: the first asks the run to save and leave, the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::native;

/// The exit status of an interrupted run.
pub const INTERRUPTED: i32 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Listens from now on. May be called once a process.
pub fn listen() -> Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            eprintln!("vedm: stopped at once; what the last checkpoint holds is safe");
            native::exit_at_once(INTERRUPTED);
        }
        eprintln!("vedm: stopping: a checkpoint is saved first; interrupt again to stop at once");
    })
    .context("can't listen for interrupts")
}

/// True once somebody has asked the run to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// What generation looks at between tokens.
pub fn flag() -> &'static AtomicBool {
    &ASKED
}
