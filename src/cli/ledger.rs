//! `--errors`: the inputs that failed, one JSON object a line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, json};

use super::inputs::name_bytes;
use crate::pipeline::Record;

/// The file of failures; it is there, and empty, after a run without any.
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
    /// The image that was written last as a whole.
    last: Option<(String, Option<PathBuf>)>,
}

impl Ledger {
    pub(super) fn create(path: &Path) -> Result<Ledger> {
        let file = File::create(path).with_context(|| format!("can't write {path:?}"))?;
        Ok(Ledger { path: path.to_path_buf(), file, last: None })
    }

    /// One failure, of a page or the whole image; on the disk when this returns. Several of one image whose
    /// pages are not told apart are one line.
    pub(super) fn write(
        &mut self,
        record: &Record,
        page: Option<usize>,
        error: &anyhow::Error,
    ) -> Result<()> {
        let whole = page.is_none().then(|| (record.image.clone(), record.origin.clone()));
        if whole.is_some() && self.last == whole {
            return Ok(());
        }
        self.last = whole;
        let mut map = Map::new();
        map.insert("image".into(), json!(record.image));
        if let Some(bytes) = record.origin.as_deref().and_then(name_bytes) {
            map.insert("image_bytes".into(), json!(bytes));
        }
        if let Some(page) = page {
            map.insert("page".into(), json!(page));
        }
        map.insert("error".into(), json!(format!("{error:#}")));
        let line = serde_json::to_string(&map)? + "\n";
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.flush())
            .with_context(|| format!("can't write {:?}", self.path))
    }
}
