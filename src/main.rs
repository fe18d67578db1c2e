//! Runs the command line.

use vedm::{cli, native};

fn main() {
    native::tune_allocator();
    let status = cli::status(std::env::args_os());
    // Destructors of libtorch take as long as its start, and give memory back that the system takes anyway.
    native::exit_at_once(status)
}
