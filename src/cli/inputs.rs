//! What the user names as images becomes a list of inputs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::pipeline::Input;

/// Files as they are named; directories by their images, sorted, hidden files skipped.
///
/// Files that do not exist stay in the list: they fail as inputs, not as the run.
pub(super) fn gather(images: &[PathBuf], recursive: bool) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for path in images {
        if path.as_os_str() == "-" {
            if inputs.iter().any(|input| matches!(input, Input::Stdin)) {
                bail!("- (standard input) is named twice");
            }
            inputs.push(Input::Stdin);
        } else if path.is_dir() {
            let before = inputs.len();
            walk(path, recursive, &mut inputs)?;
            if inputs.len() == before {
                let hint =
                    if recursive { "" } else { "; --recursive searches its directories too" };
                bail!("no images in the directory {path:?}{hint}");
            }
        } else {
            inputs.push(Input::File(path.clone()));
        }
    }
    Ok(inputs)
}

fn walk(folder: &Path, recursive: bool, inputs: &mut Vec<Input>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("can't list {folder:?}"))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("can't list {folder:?}"))?;
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // A link to a directory could lead back up: links are followed to files only.
        let is_link = path.is_symlink();
        if hidden {
            continue;
        }
        if path.is_dir() {
            if recursive && !is_link {
                walk(&path, recursive, inputs)?;
            }
        } else if looks_like_image(&path) {
            inputs.push(Input::File(path));
        }
    }
    Ok(())
}

/// By its first bytes; or by its name, so that a damaged picture is told and not passed over.
fn looks_like_image(path: &Path) -> bool {
    const NAMES: &[&str] =
        &["png", "jpg", "jpeg", "webp", "gif", "tif", "tiff", "bmp", "pnm", "pbm", "pgm", "ppm"];
    let extension = path.extension().and_then(|extension| extension.to_str());
    if extension.is_some_and(|e| NAMES.contains(&e.to_ascii_lowercase().as_str())) {
        return true;
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    read.is_ok() && ::image::guess_format(&head).is_ok()
}
