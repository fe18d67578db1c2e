//! `--model`: a directory, a model that is shipped, or a repository of the Hugging Face Hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

use crate::checkpoint;
use crate::hub::{self, Settings};
use crate::text::{TOKENIZER_FILES, VOCABULARIES};

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

/// What the Hub itself takes without an owner, from its first days. Nobody is pointed at these: they are
/// names of parts, and near to those of their families.
const FIRST_DAYS: &[(&str, &str)] = &[
    ("gpt2", "openai-community/gpt2"),
    ("distilgpt2", "distilbert/distilgpt2"),
    ("bert-base-uncased", "google-bert/bert-base-uncased"),
    ("bert-base-cased", "google-bert/bert-base-cased"),
    ("bert-base-multilingual-cased", "google-bert/bert-base-multilingual-cased"),
    ("distilbert-base-uncased", "distilbert/distilbert-base-uncased"),
    ("roberta-base", "FacebookAI/roberta-base"),
    ("xlm-roberta-base", "FacebookAI/xlm-roberta-base"),
];

/// Where an image processor's settings are: in the one or, as new checkpoints have it, the other.
const PROCESSORS: &[&[&str]] = &[&["preprocessor_config.json"], &["processor_config.json"]];

/// What a name is asked for, and so which files of its repository are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Config, weights in one format, tokenizer and image processor.
    Model,
    /// The files of a tokenizer.
    Tokenizer,
    /// The configuration of an image processor.
    ImageProcessor,
}

/// How the Hub may be used.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// Branch, tag or commit; `main` where neither this nor the name says.
    pub revision: Option<&'a str>,
    /// Only files that are here already.
    pub offline: bool,
    /// Told what a download does.
    pub tell: hub::Tell<'a>,
}

impl Need {
    /// The files of a repository that answer the need.
    pub fn files(self) -> hub::Need<'static> {
        let processors = PROCESSORS.iter().flat_map(|files| files.iter());
        let mut need = hub::Need::default();
        match self {
            Need::Model => {
                need.required = vec!["config.json"];
                need.weights = checkpoint::FILES.to_vec();
                need.optional = vec!["generation_config.json"];
                need.optional.extend(processors);
                need.optional.extend(TOKENIZER_FILES);
                need.choices = vec![PROCESSORS, VOCABULARIES];
                need.weighty = vec!["generation_config.json", "tokenizer_config.json"];
            }
            // The config names the family, which decides where a tokenizer's own files don't.
            Need::Tokenizer => {
                need.optional = vec!["config.json"];
                need.optional.extend(TOKENIZER_FILES);
                need.choices = vec![VOCABULARIES];
                need.weighty = vec!["config.json", "tokenizer_config.json"];
            }
            Need::ImageProcessor => {
                need.optional.extend(processors);
                need.choices = vec![PROCESSORS];
            }
        }
        need
    }
}

/// The directory of the model that the user names; what the Hub's cache lacks of it is downloaded.
///
/// Errors say what was looked for; a name that could be a typing error gets "did you mean".
pub fn find(name: &str, need: Need, access: &Access) -> Result<PathBuf> {
    let path = Path::new(name);
    if let Some(folder) = here(name, need)? {
        if let Some(revision) = access.revision {
            bail!(
                "--revision {revision:?} is for models of the Hub, and {name:?} is on this machine; leave \
                 it out, or name the model as owner/name"
            );
        }
        return Ok(folder);
    }
    let (name, pinned) = match name.rsplit_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (name, None),
    };
    if let (Some(pinned), Some(_)) = (pinned, shipped(name)) {
        bail!("{name:?} is shipped with the program and has no revisions; leave out \"@{pinned}\"");
    }
    if let (Some(pinned), Some(revision)) = (pinned, access.revision)
        && pinned != revision
    {
        bail!(
            "{name:?} is asked for as \"@{pinned}\" and by --revision {revision:?}; leave out one of them"
        );
    }
    let settings = Settings::from_env(access.offline);
    let Some(repository) = repository(name, &settings) else {
        match nearest(name) {
            Some(near) => bail!("no model {name:?}; did you mean {near:?}?"),
            None => {
                bail!("no model {name:?}: there is no such directory, and no such name is known")
            }
        }
    };
    let revision = access.revision.or(pinned).unwrap_or("main");
    hub::snapshot(&settings, repository, revision, &need.files(), access.tell).map_err(|error| {
        match nearest_repository(repository) {
            Some(near) => anyhow!("{error:#}; did you mean {near:?}?"),
            // The first half is a folder here: the name was meant as a path.
            None if path
                .parent()
                .is_some_and(|parent| parent.file_name().is_some() && parent.is_dir()) =>
            {
                error.context(format!("there is no directory {name:?}"))
            }
            None => error,
        }
    })
}

/// The directory of a model that needs no Hub: the name is its path, or it is shipped.
fn here(name: &str, need: Need) -> Result<Option<PathBuf>> {
    let path = Path::new(name);
    if path.is_dir() {
        if need == Need::Model && !path.join("config.json").is_file() {
            bail!("{name:?} has no config.json; a model is the directory that holds it");
        }
        return Ok(Some(path.to_path_buf()));
    }
    if path.is_file() {
        bail!("{name:?} is a file; a model is the directory that holds config.json");
    }
    Ok(shipped(name))
}

/// The repository that a name stands for: itself with its owner, an alias, or a name without owner that
/// Python has put into the cache.
fn repository<'a>(name: &'a str, settings: &Settings) -> Option<&'a str> {
    let alias =
        ALIASES.iter().chain(FIRST_DAYS).find(|(alias, _)| *alias == name).map(|(_, full)| *full);
    if !hub::is_repository(name) {
        return None;
    }
    if name.contains('/') || settings.cache.join(format!("models--{name}")).is_dir() {
        return Some(name);
    }
    alias
}

/// Names that need no owner.
fn known() -> impl Iterator<Item = &'static str> {
    ALIASES.iter().map(|(alias, _)| *alias)
}

fn nearest(name: &str) -> Option<String> {
    let known: Vec<String> = known().map(str::to_string).chain(shipped_names()).collect();
    if name.len() >= 4
        && let Some(known) = known.iter().find(|known| known.starts_with(name))
    {
        return Some(known.clone());
    }
    known
        .into_iter()
        .map(|known| (edit_distance(name, &known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 4)
        .map(|(_, known)| known)
}

/// A known repository that the name is a slip of a key or two away from.
fn nearest_repository(name: &str) -> Option<&'static str> {
    ALIASES
        .iter()
        .map(|(_, full)| (edit_distance(name, full), *full))
        .min()
        .filter(|(distance, _)| (1..=2).contains(distance))
        .map(|(_, full)| full)
}

/// Levenshtein's distance in characters.
pub fn edit_distance(a: &str, b: &str) -> usize {
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

/// Names of the models that are shipped.
pub fn shipped_names() -> Vec<String> {
    let mut names: Vec<String> = shipped_folders()
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("config.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    names
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_met_with_a_suggestion() {
        let table = [
            ("trocr-base-handwriten", "did you mean \"trocr-base-handwritten\"?"),
            ("manga-ocr", "did you mean \"manga-ocr-base\"?"),
            ("vedm-ocr-prnted", "did you mean \"vedm-ocr-printed\"?"),
            ("something-else", "no such name is known"),
            ("microsoft/trocr-base-printd", "did you mean \"microsoft/trocr-base-printed\"?"),
        ];
        let access = Access { revision: None, offline: true, tell: &|_| {} };
        for (name, expected) in table {
            let error = find(name, Need::Model, &access).expect_err("not there").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn revisions_are_for_the_hub_and_named_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = folder.path().display().to_string();
        let table = [
            ("vedm-ocr-printed", Some("v1"), "--revision \"v1\" is for models of the Hub"),
            ("vedm-ocr-printed@v1", None, "is shipped with the program and has no revisions"),
            ("some/model@v1", Some("v2"), "asked for as \"@v1\" and by --revision \"v2\""),
            (empty.as_str(), None, "has no config.json; a model is the directory that holds it"),
        ];
        for (name, revision, expected) in table {
            let access = Access { revision, offline: true, tell: &|_| {} };
            let error = find(name, Need::Model, &access).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let access = Access { revision: None, offline: true, tell: &|_| {} };
        assert!(find("vedm-ocr-printed", Need::Model, &access).is_ok());
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "ab", 2), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
        }
    }
}
