//! completions/ holds what clap generates from the command line.

use clap_complete::Shell;

use crate::support::snapshot;

#[test]
fn completions_are_current() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    for (shell, name) in
        [(Shell::Bash, "vedm.bash"), (Shell::Zsh, "_vedm"), (Shell::Fish, "vedm.fish")]
    {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut vedm::cli::command(), "vedm", &mut text);
        snapshot(&folder.join(name), &String::from_utf8(text).unwrap());
    }
}
