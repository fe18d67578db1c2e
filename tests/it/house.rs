//! The house's own rules: imports go downward, files stay small, `unsafe` has one room.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::tests_folder;

/// Floors from the ground up; a module imports from floors below, or from neighbours named here.
const FLOORS: &[&[&str]] = &[
    &["native", "fetch", "archive", "metrics", "formats", "splitmix", "stderr"],
    &["nn", "image", "text", "checkpoint", "device", "hub", "signals"],
    &["encoders", "decoders", "models", "lines"],
    &["ved"],
    &["pipeline"],
    &["train"],
    &["cli"],
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&source(), &mut found);
    assert!(found.len() > 20, "the walk found too little: {found:?}");
    found
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The first part of a file's path: its module.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

/// Every module named after `crate::` outside of comments.
fn imports(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = Vec::new();
    for line in code {
        for rest in line.split("crate::").skip(1) {
            let names = rest.trim_start_matches('{');
            let name: String =
                names.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push(name);
            // `use crate::{a, b::c}`: the other members of the braces.
            if let Some(members) = rest.strip_prefix('{') {
                let members = members.split('}').next().unwrap_or_default();
                for member in members.split(',').skip(1) {
                    found.push(member.trim().split("::").next().unwrap_or_default().to_string());
                }
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_go_downward() {
    let mut wrong = Vec::new();
    for path in all_files() {
        let from = module(&path);
        if from == "lib" || from == "main" {
            continue;
        }
        let own = floor(&from).unwrap_or_else(|| panic!("{from} has no floor"));
        for to in imports(&fs::read_to_string(&path).unwrap()) {
            let below = floor(&to).is_some_and(|floor| floor < own);
            if to != from && !below {
                wrong.push(format!("{}: {from} imports {to}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pixels_know_no_tensors() {
    for path in all_files().iter().filter(|path| module(path) == "image") {
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains("tch::"), "{} uses tensors", path.display());
    }
}

#[test]
fn unsafe_has_one_room() {
    for path in all_files() {
        let text = fs::read_to_string(&path).unwrap();
        let uses = text.contains("unsafe {") || text.contains("allow(unsafe_code)");
        assert!(!uses || module(&path) == "native", "{}: unsafe is native's", path.display());
        assert!(uses || !path.ends_with("native.rs"), "the search found no unsafe at all");
    }
}

#[test]
fn standard_error_has_one_door() {
    for path in all_files().iter().filter(|path| module(path) != "stderr") {
        let text = fs::read_to_string(path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        // They panic where standard error is closed or full (and `println!` where standard output is).
        let panics = code.filter(|line| line.contains("print!(") || line.contains("println!("));
        assert_eq!(panics.collect::<Vec<_>>(), [""; 0], "{}: say it with stderr", path.display());
    }
}

#[test]
fn files_stay_readable() {
    let mut long = Vec::new();
    for path in all_files() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > 400 {
            long.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(long.is_empty(), "more than 400 lines:\n{}", long.join("\n"));
}

#[test]
fn every_architecture_has_a_row() {
    for (folder, table) in [("encoders", "ENCODERS"), ("decoders", "DECODERS")] {
        let index = fs::read_to_string(source().join(folder).join("mod.rs")).unwrap();
        let start = index.find(&format!("{table}: &[")).unwrap();
        let rows = &index[start..start + index[start..].find("];").unwrap()];
        for entry in fs::read_dir(source().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let stem = name.trim_end_matches(".rs").to_string();
            let text = fs::read_to_string(source().join(folder).join(&name)).unwrap();
            let has_row = text.contains("Arch = ") || text.contains("Arch {\n    model_type");
            if stem != "mod" && has_row {
                assert!(rows.contains(&format!("{stem}::")), "{name} has no row in {table}");
            }
        }
    }
}

#[test]
fn goldens_come_from_the_reference() {
    assert!(tests_folder("golden").join("make.py").is_file());
}
