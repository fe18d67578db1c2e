//! `--model`: a directory, a model that is shipped, or a name in the cache of the Hugging Face Hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Names without owner that stand for repositories of the Hub.
const ALIASES: &[(&str, &str)] = &[
    ("trocr-small-printed", "microsoft/trocr-small-printed"),
    ("trocr-small-handwritten", "microsoft/trocr-small-handwritten"),
    ("trocr-small-stage1", "microsoft/trocr-small-stage1"),
    ("trocr-base-printed", "microsoft/trocr-base-printed"),
    ("trocr-base-handwritten", "microsoft/trocr-base-handwritten"),
    ("trocr-base-stage1", "microsoft/trocr-base-stage1"),
    ("trocr-large-printed", "microsoft/trocr-large-printed"),
    ("trocr-large-handwritten", "microsoft/trocr-large-handwritten"),
    ("trocr-large-stage1", "microsoft/trocr-large-stage1"),
    ("vit-gpt2-image-captioning", "nlpconnect/vit-gpt2-image-captioning"),
    ("manga-ocr-base", "kha-white/manga-ocr-base"),
    ("donut-base", "naver-clova-ix/donut-base"),
];

/// The directory of the model that the user names.
///
/// Errors say what was looked for; a name that could be a typing error gets "did you mean".
pub fn find(name: &str, revision: Option<&str>) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if path.is_file() {
        bail!("{name:?} is a file; --model takes the directory that holds config.json");
    }
    if let Some(shipped) = shipped(name) {
        return Ok(shipped);
    }
    let (name, pinned) = match name.rsplit_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (name, None),
    };
    let repository =
        ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, full)| full);
    let parts: Vec<&str> = repository.split('/').collect();
    let is_repository =
        parts.len() == 2 && parts.iter().all(|part| !part.is_empty() && !part.starts_with('.'));
    if is_repository {
        let revision = revision.or(pinned).unwrap_or("main");
        if let Some(snapshot) = cached(repository, revision) {
            return Ok(snapshot);
        }
        bail!(
            "model {repository:?} (revision {revision:?}) is neither a directory nor in the Hub's cache \
             {:?}; fetch it there, or pass the directory of a checkpoint",
            hub_cache()
        );
    }
    match nearest(name) {
        Some(near) => bail!("no model {name:?}; did you mean {near:?}?"),
        None => bail!("no model {name:?}: there is no such directory, and no such name is known"),
    }
}

/// Names that need no owner.
fn known() -> impl Iterator<Item = &'static str> {
    ALIASES.iter().map(|(alias, _)| *alias)
}

fn nearest(name: &str) -> Option<&'static str> {
    if name.len() >= 4
        && let Some(known) = known().find(|known| known.starts_with(name))
    {
        return Some(known);
    }
    known()
        .map(|known| (edit_distance(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 4)
        .map(|(_, known)| known)
}

/// Levenshtein's distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Where models that are shipped with the program lie: beside an installed binary, in a bundle, or in
/// the source tree the binary was built from.
pub fn shipped_folders() -> Vec<PathBuf> {
    let exe = std::env::current_exe().ok();
    let mut folders: Vec<PathBuf> = exe
        .iter()
        .filter_map(|exe| exe.parent()?.parent())
        .map(|root| root.join("share").join("vedm"))
        .collect();
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets"));
    folders
}

fn shipped(name: &str) -> Option<PathBuf> {
    if !name.starts_with("vedm-") || name.contains(['/', '\\']) {
        return None;
    }
    shipped_folders()
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|folder| folder.join("config.json").is_file())
}

/// Python's `huggingface_hub` keeps its files here.
pub fn hub_cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("HF_HUB_CACHE") {
        return PathBuf::from(cache);
    }
    let home = std::env::var_os("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache")
        });
        cache.join("huggingface")
    });
    home.join("hub")
}

/// The snapshot of a repository that the Hub's cache already has.
fn cached(repository: &str, revision: &str) -> Option<PathBuf> {
    let folder = hub_cache().join(format!("models--{}", repository.replace('/', "--")));
    let commit = std::fs::read_to_string(folder.join("refs").join(revision))
        .map(|commit| commit.trim().to_string())
        .unwrap_or_else(|_| revision.to_string());
    let snapshot = folder.join("snapshots").join(commit);
    snapshot.join("config.json").exists().then_some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_met_with_a_suggestion() {
        let table = [
            ("trocr-base-handwriten", "did you mean \"trocr-base-handwritten\"?"),
            ("manga-ocr", "did you mean \"manga-ocr-base\"?"),
            ("something-else", "no such name is known"),
        ];
        for (name, expected) in table {
            let error = find(name, None).expect_err("not there").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "ab", 2), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
        }
    }
}
