//! Lines on standard error that leave a progress bar whole.

use std::io::Write;

use indicatif::ProgressBar;

/// Writes a line above the bar, where there is one. A closed standard error is no reason to stop.
pub fn line(bar: Option<&ProgressBar>, line: &str) {
    let print = || {
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}
