//! Runs the command line and turns its outcome into an exit status.

use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::process::exit;

use vedm::cli::{self, Verdict};
use vedm::stderr::visible;

fn main() {
    vedm::native::tune_allocator();
    // A panic is a bug of ours: one sentence tells it, not a stack trace.
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(AssertUnwindSafe(cli::run));
    // `exit` skips the destructors of the model: the system frees its memory at once.
    match outcome {
        Ok(Ok(Verdict::Done)) => exit(0),
        Ok(Ok(Verdict::SomeFailed)) => exit(2),
        Ok(Ok(Verdict::Interrupted)) => exit(130),
        Ok(Err(error)) if is_broken_pipe(&error) => exit(0),
        Ok(Err(error)) => {
            eprintln!("vedm: error: {}", visible(&format!("{error:#}"), true));
            exit(1)
        }
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            eprintln!("vedm: error: internal error (please report it): {}", first_line(text));
            exit(1)
        }
    }
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let json =
            cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        io == Some(ErrorKind::BrokenPipe) || json == Some(ErrorKind::BrokenPipe)
    })
}

/// libtorch's messages carry its C++ stack below the first line.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
