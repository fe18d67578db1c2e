//! The images of a directory.

use std::path::{Path, PathBuf};

use super::{has_image_name, head, is_image};
use crate::pipeline::Input;

/// The images of a directory in the order of their names, directories in between where `recursive`.
///
/// Hidden files are skipped, so is what is no file (a pipe would wait for ever). Links are followed to
/// files only: a link to a directory could lead back up.
pub(super) struct Walk {
    /// What is left of the directories that are open, the innermost last.
    open: Vec<std::vec::IntoIter<PathBuf>>,
    recursive: bool,
    failed: Option<Input>,
}

impl Walk {
    pub(super) fn new(folder: &Path, recursive: bool) -> Self {
        let mut walk = Walk { open: Vec::new(), recursive, failed: None };
        walk.enter(folder);
        walk
    }

    fn enter(&mut self, folder: &Path) {
        let names = std::fs::read_dir(folder).and_then(|entries| {
            entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()
        });
        match names {
            Ok(mut paths) => {
                paths.sort();
                self.open.push(paths.into_iter());
            }
            Err(error) => {
                let name = folder.display().to_string();
                self.failed = Some(Input::failed(name, format!("can't be listed: {error}")));
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Input;

    fn next(&mut self) -> Option<Input> {
        loop {
            if let Some(failed) = self.failed.take() {
                return Some(failed);
            }
            let Some(path) = self.open.last_mut()?.next() else {
                self.open.pop();
                continue;
            };
            let Some(name) = path.file_name().filter(|name| !is_hidden(name)) else { continue };
            let name = name.to_string_lossy();
            let Ok(kind) = path.metadata().map(|metadata| metadata.file_type()) else {
                // A link to nowhere: told if it was a picture.
                if has_image_name(&name) {
                    return Some(Input::file(path));
                }
                continue;
            };
            if kind.is_dir() {
                if self.recursive && !path.is_symlink() {
                    self.enter(&path);
                }
            } else if kind.is_file()
                && (has_image_name(&name) || is_image(&name, &head(&path, 64).unwrap_or_default()))
            {
                return Some(Input::file(path));
            }
        }
    }
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}
