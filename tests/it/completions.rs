//! completions/ and assets/man/ hold what clap generates from the command line.

use std::path::{Path, PathBuf};

use clap_complete::Shell;

use crate::support::snapshot;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The names of a folder's files, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn completions_are_current() {
    let shells = [
        (Shell::Bash, "vedm.bash"),
        (Shell::Zsh, "_vedm"),
        (Shell::Fish, "vedm.fish"),
        (Shell::PowerShell, "_vedm.ps1"),
        (Shell::Elvish, "vedm.elv"),
    ];
    for (shell, name) in shells {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut vedm::cli::command(), "vedm", &mut text);
        snapshot(&folder("completions").join(name), &String::from_utf8(text).unwrap());
    }
    let mut expected = shells.map(|(_, name)| name.to_string());
    expected.sort();
    assert_eq!(names(&folder("completions")), expected);
}

#[test]
fn man_pages_are_current() {
    let made = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(vedm::cli::command(), made.path()).unwrap();
    let pages = names(made.path());
    assert!(pages.contains(&"vedm-ocr.1".to_string()), "{pages:?}");
    for page in &pages {
        let text = std::fs::read_to_string(made.path().join(page)).unwrap();
        snapshot(&folder("assets/man").join(page), &text);
    }
    assert_eq!(names(&folder("assets/man")), pages);
}
