//! One repository's part of the cache, laid out as Python's `huggingface_hub` does:
//!
//! ```text
//! models--owner--name/blobs/<etag>                      the content of files
//! models--owner--name/snapshots/<commit>/<file>         a link to ../../blobs/<etag>
//! models--owner--name/refs/<revision>                   the commit a branch or tag stood for
//! models--owner--name/.no_exist/<commit>/<file>         the commit has no such file
//! .locks/models--owner--name/<etag>.lock                held while the blob is written
//! ```

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::{Event, Tell};

/// How often a lock is tried before another process is spoken of, and the pause between.
const QUIET_TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// A repository at a revision, in the cache.
pub(super) struct Folder {
    cache: PathBuf,
    /// hf-hub knows names and places; it cannot read refs, lock as Python does, or note what is not there.
    pub(super) repo: Repo,
    cached: CacheRepo,
}

impl Folder {
    /// Refuses names that no repository or revision has, and that would lead out of the cache.
    pub(super) fn new(cache: &Path, repository: &str, revision: &str) -> Result<Folder> {
        ensure!(is_repository(repository), "{repository:?} is not a name like owner/name");
        ensure!(is_revision(revision), "{revision:?} is not the name of a branch, tag or commit");
        let repo =
            Repo::with_revision(repository.to_string(), RepoType::Model, revision.to_string());
        let cached = Cache::new(cache.to_path_buf()).repo(repo.clone());
        Ok(Folder { cache: cache.to_path_buf(), repo, cached })
    }

    fn root(&self) -> PathBuf {
        self.cache.join(self.repo.folder_name())
    }

    /// The commit that the revision is, or stood for when it was asked for last.
    pub(super) fn commit(&self) -> Option<String> {
        let revision = self.repo.revision();
        let noted = fs::read_to_string(self.root().join("refs").join(revision)).ok();
        let commit = noted.map_or(revision.to_string(), |commit| commit.trim().to_string());
        is_plain(&commit).then_some(commit).filter(|commit| self.snapshot(commit).is_dir())
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.cached.pointer_path(commit)
    }

    /// Whether the file's content is there.
    pub(super) fn has(&self, commit: &str, name: &str) -> bool {
        self.snapshot(commit).join(name).is_file()
    }

    /// Whether the commit is known to lack the file.
    pub(super) fn lacks(&self, commit: &str, name: &str) -> bool {
        self.root().join(".no_exist").join(commit).join(name).is_file()
    }

    /// Notes that the commit lacks the file. A cache that can't be written is told when a file comes.
    pub(super) fn note_lacking(&self, commit: &str, name: &str) {
        let path = self.root().join(".no_exist").join(commit).join(name);
        if !path.is_file()
            && let Some(folder) = path.parent()
            && fs::create_dir_all(folder).is_ok()
        {
            let _ = File::create(&path);
        }
    }

    /// Notes which commit a branch or tag stands for now. A cache that can't be written goes without: this run
    /// has all its files.
    pub(super) fn note_commit(&self, commit: &str) {
        let path = self.root().join("refs").join(self.repo.revision());
        let same = fs::read_to_string(&path).is_ok_and(|noted| noted == commit);
        if self.repo.revision() == commit || same {
            return;
        }
        // hf-hub empties the file first: who reads it then finds no commit.
        let write = || {
            let folder = path.parent().unwrap_or(&self.cache);
            make(folder)?;
            let mut file = temporary(folder)?;
            file.write_all(commit.as_bytes())?;
            anyhow::Ok(file.persist(&path)?)
        };
        let _ = write();
    }

    /// Where the content with this etag lies or will lie.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.cached.blob_path(etag)
    }

    /// Waits until no other process, Python's included, writes the blob or a link to it; the lock ends
    /// with the value.
    pub(super) fn lock(&self, etag: &str, name: &str, tell: Tell) -> Result<File> {
        let folder = self.cache.join(".locks").join(self.repo.folder_name());
        make(&folder)?;
        let path = folder.join(format!("{etag}.lock"));
        let failed = || format!("cannot lock {path:?}; HF_HUB_CACHE names another folder");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(failed)?;
        // A small file is over before it is worth a word.
        for _ in 0..QUIET_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
            }
        }
        tell(Event::Queues { name });
        file.lock().with_context(failed)?;
        Ok(file)
    }

    /// Makes the blob appear under the file's name: by a link, or as a copy where links don't work. The
    /// caller holds the lock.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        if path.is_file() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.cache);
        make(folder)?;
        // A link whose blob is gone stands in the way.
        let _ = fs::remove_file(&path);
        let up = "../".repeat(name.matches('/').count() + 2);
        if symlink(&format!("{up}blobs/{etag}"), &path).is_ok() || path.is_file() {
            return Ok(());
        }
        let failed = || format!("cannot write {path:?}");
        let mut file = temporary(folder)?;
        let mut blob = File::open(self.blob(etag)).with_context(failed)?;
        std::io::copy(&mut blob, &mut file).with_context(failed)?;
        file.persist(&path).with_context(failed)?;
        Ok(())
    }

    /// Makes the folder of the blobs.
    pub(super) fn prepare(&self) -> Result<()> {
        make(&self.root().join("blobs"))
    }
}

#[cfg(unix)]
fn symlink(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), path)
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| {
        format!("cannot make {folder:?} in the Hub's cache; HF_HUB_CACHE names another folder")
    })
}

/// A file that gets its name when it is whole, with an ordinary file's permissions.
fn temporary(folder: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vedm-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).with_context(|| format!("cannot create a file in {folder:?}"))
}

/// The files that an index of shards names; none if `path` is no index.
pub(super) fn shards(path: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    if !path.to_string_lossy().ends_with(".index.json") {
        return Ok(Vec::new());
    }
    let text = fs::read(path).with_context(|| format!("{path:?} cannot be read"))?;
    let index: Index = serde_json::from_slice(&text)
        .with_context(|| format!("{path:?} is not a valid index of shards"))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        bail!("{path:?}: the shard {name:?} is not the plain name of a file beside the index");
    }
    Ok(names)
}

/// A word that can stand in a path and lead nowhere else.
pub(super) fn is_plain(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-+=@".contains(c);
    !text.is_empty() && !text.starts_with('.') && text.len() <= 200 && text.chars().all(known)
}

/// Whether the Hub could have a repository of this name: `owner/name`, or a name alone as in its first days.
pub(super) fn is_repository(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let word = |part: &&str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !part.is_empty()
            && part.chars().all(known)
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("--")
            && !part.contains("..")
    };
    parts.len() <= 2 && text.len() <= 200 && parts.iter().all(word)
}

fn is_revision(text: &str) -> bool {
    text.len() <= 250 && text.split('/').all(is_plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_refused() {
        let folder = |repository, revision| Folder::new(Path::new("/c"), repository, revision);
        for repository in ["", "a/", "/a", "a/b/c", "../x", "a/..", "a b/c", "a--b/c", "-a/b"] {
            assert!(folder(repository, "main").is_err(), "{repository}");
        }
        for revision in ["", "..", "refs/../../x", "a b", "/etc", "a//b", "ä"] {
            assert!(folder("a/b", revision).is_err(), "{revision}");
        }
        let commit = "0123abcd".repeat(5);
        for revision in ["main", "v1.0", "refs/pr/5", commit.as_str()] {
            assert!(folder("microsoft/trocr-base.1_x", revision).is_ok(), "{revision}");
        }
        let places = folder("a/b", "refs/pr/1").unwrap();
        assert_eq!(places.blob("e"), Path::new("/c/models--a--b/blobs/e"));
        assert_eq!(places.snapshot("c"), Path::new("/c/models--a--b/snapshots/c"));
    }

    #[test]
    fn shards_are_plain_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors.index.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            shards(&path).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read(r#"{"weight_map":{"a":"y","b":"x","c":"y"}}"#).unwrap(), ["x", "y"]);
        for name in ["../x", "/x", "..", "a/b", "a\\\\b", ""] {
            let told = read(&format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#)).unwrap_err();
            assert!(told.contains("is not the plain name"), "{told}");
        }
        assert!(read("{}").unwrap_err().contains("not a valid index"));
        assert_eq!(shards(&folder.path().join("model.safetensors")).unwrap(), [""; 0]);
    }
}
