//! Runs the command line.

use vedm::{cli, native};

// Help and mistakes are told before libtorch is ready, and a model's memory is got ready meanwhile.
#[cfg(not(test))] // whose arguments are others
vedm::before_libraries!(cli::foresee);

fn main() {
    native::wait_for_foresight();
    native::tune_allocator();
    let status = cli::status(std::env::args_os());
    // Destructors of libtorch take as long as its start, and give memory back that the system takes anyway.
    native::exit_at_once(status)
}
