//! What the cache holds, for a report.

use std::path::Path;

/// The models of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Repositories of models.
    pub models: usize,
    /// Files whose download did not end.
    pub incomplete: usize,
    /// Bytes of all blobs, whole or not.
    pub bytes: u64,
}

/// Counts what is in the cache; what can't be read counts as nothing.
pub fn survey(cache: &Path) -> Survey {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut survey = Survey::default();
    for repository in entries(cache) {
        if !repository.file_name().to_string_lossy().starts_with("models--") {
            continue;
        }
        survey.models += 1;
        for blob in entries(&repository.path().join("blobs")) {
            survey.bytes += blob.metadata().map_or(0, |meta| meta.len());
            let name = blob.file_name();
            survey.incomplete += usize::from(name.to_string_lossy().ends_with(".incomplete"));
        }
    }
    survey
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_counted() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(survey(&cache.path().join("nowhere")), Survey::default());
        for (path, size) in [
            ("models--a--b/blobs/x", 3),
            ("models--a--b/blobs/y.incomplete", 4),
            ("models--c/blobs/z", 5),
            ("datasets--c/blobs/z", 6),
        ] {
            let path = cache.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; size]).unwrap();
        }
        assert_eq!(survey(cache.path()), Survey { models: 2, incomplete: 1, bytes: 12 });
    }
}
