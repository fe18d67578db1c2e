//! The module as a whole: against the reference, against damaged files, and what it promises itself.
#![allow(clippy::unwrap_used)]

mod behaviour;
mod golden;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Lays out the files of a case as a checkpoint directory.
fn materialise(case: &Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, source) in case["files"].as_object().unwrap() {
        let source = fixtures().join("files").join(source.as_str().unwrap());
        fs::copy(source, dir.path().join(name)).unwrap();
    }
    for (name, content) in case["json"].as_object().unwrap() {
        fs::write(dir.path().join(name), content.to_string()).unwrap();
    }
    dir
}

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(fixtures().join("files").join(name)).unwrap()
}
