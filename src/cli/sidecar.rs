//! Sidecars: the text of `dir/a.jpg` in a file of its own, `dir/a.txt`.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::args::SidecarArgs;
use super::places::same;
use crate::checkpoint::{sweep, write_file};
use crate::image;
use crate::pipeline::{End, Record};

/// What happens where a sidecar is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Existing {
    /// Leave it, and the image unread
    Skip,
    Overwrite,
    /// Put the new text behind the old, on a line of its own
    Append,
    /// Put the new text before the old
    Prepend,
    /// Overwrite it if the image is newer
    Newer,
}

/// Which sidecar belongs to an image.
#[derive(Clone)]
pub(super) struct Names {
    template: String,
    existing: Existing,
    /// What this run has written. It is no reason to skip: of members of an archive with one name the
    /// last counts, as where it is unpacked.
    written: Arc<Mutex<HashSet<PathBuf>>>,
}

/// Fills and writes sidecars.
pub(super) struct Sidecars {
    pub(super) names: Names,
    prefix: String,
    suffix: String,
    /// The texts of the image at hand; it may have pages or lines.
    open: Option<Open>,
    /// Images by their sidecars: those of a pipe are not known before.
    owners: HashMap<PathBuf, PathBuf>,
}

struct Open {
    path: PathBuf,
    origin: PathBuf,
    texts: Vec<String>,
    /// A part of the image could not be read: half a text would pass for the whole.
    failed: bool,
    /// The image comes in parts, pages or lines.
    parts: bool,
}

/// The places of a template.
const PLACES: [&str; 6] = ["dir", "stem", "ext", "name", "page", "line"];

impl Sidecars {
    /// None if none are asked for.
    pub(super) fn new(args: &SidecarArgs) -> Result<Option<Sidecars>> {
        let template = match (&args.out_template, &args.sidecar) {
            (Some(template), _) => template.clone(),
            (None, Some(extension)) => {
                let extension = extension.as_deref().unwrap_or("txt").trim_start_matches('.');
                ensure!(
                    !extension.is_empty() && !extension.contains(['/', '\\', '{', '}']),
                    "--sidecar {extension:?}: expected the extension of a file, such as txt"
                );
                format!("{{dir}}/{{stem}}.{extension}")
            }
            (None, None) => return Ok(None),
        };
        check(&template)?;
        Ok(Some(Sidecars {
            names: Names {
                template,
                existing: args.existing.unwrap_or(Existing::Skip),
                written: Arc::default(),
            },
            prefix: args.prefix.clone(),
            suffix: args.suffix.clone(),
            open: None,
            owners: HashMap::new(),
        }))
    }

    /// Takes a record; the sidecar is written with the last one that belongs into it. `interrupted`: of
    /// an image in parts some may be missing, and it is left for the next run.
    pub(super) fn take(&mut self, record: &Record, interrupted: bool) -> Result<()> {
        let Some(origin) = &record.origin else {
            bail!("has no file of its own beside which a sidecar could lie");
        };
        let (page, line) = (record.page, record.region.map(|region| region.line));
        let path = self.names.path(origin, page, line);
        if let Some(owner) = self.owners.get(&path).filter(|owner| !same(owner, origin)) {
            bail!("would be written to {path:?}, which is the text of {owner:?}");
        }
        self.owners.insert(path.clone(), origin.clone());
        let open = self.open.get_or_insert_with(|| Open {
            path,
            origin: origin.clone(),
            texts: Vec::new(),
            failed: false,
            parts: page.is_some() || line.is_some(),
        });
        match &record.outcome {
            Ok(reading) => {
                open.texts.extend(reading.sequences.iter().map(|sequence| sequence.text.clone()));
            }
            Err(_) => open.failed = true,
        }
        if record.end < self.names.last() {
            return Ok(());
        }
        let usable = |open: &Open| !(open.failed || (interrupted && open.parts));
        self.open.take().filter(usable).map_or(Ok(()), |open| self.write(&open))
    }

    /// The sidecar of an image, or of a part of it, with all that belongs into it.
    fn write(&self, open: &Open) -> Result<()> {
        let (path, existing) = (&open.path, self.names.existing);
        let old = match fs::read(path) {
            Ok(_) if self.names.is_left(path, &open.origin) => return Ok(()),
            Ok(old) => Some(old),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("can't look at {path:?}")),
        };
        if let Some(old) = &old {
            ensure!(!image::is_picture(old), "{path:?} is a picture; it is not written over");
        }
        let text = format!("{}{}{}", self.prefix, open.texts.join("\n"), self.suffix);
        let old =
            old.map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_string());
        let text = match (existing, old.filter(|old| !old.is_empty())) {
            (Existing::Append, Some(old)) => format!("{old}\n{text}"),
            (Existing::Prepend, Some(old)) => format!("{text}\n{old}"),
            _ => text,
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).with_context(|| format!("can't make the directory {dir:?}"))?;
        }
        write_file(path, format!("{text}\n").as_bytes())?;
        self.names.written().insert(path.clone());
        Ok(())
    }
}

impl Names {
    /// True if pages or lines have files of their own.
    pub(super) fn of_pages(&self) -> bool {
        self.last() < End::Input
    }

    /// What ends with the last record of a file.
    fn last(&self) -> End {
        match &self.template {
            template if template.contains("{line}") => End::Line,
            template if template.contains("{page}") => End::Page,
            _ => End::Input,
        }
    }

    /// True if the image needs no reading.
    pub(super) fn is_done(&self, origin: &Path) -> bool {
        // Files of single pages and lines are looked at when they are written.
        if self.of_pages() {
            return false;
        }
        let path = self.path(origin, None, None);
        let done = path.exists() && self.is_left(&path, origin);
        if let Some(folder) = path.parent().filter(|_| done) {
            // Nothing will be written there, which would have removed what killed runs left.
            sweep(folder);
        }
        done
    }

    /// True if a sidecar that is there stays as an earlier run left it.
    fn is_left(&self, path: &Path, origin: &Path) -> bool {
        let is_left = match self.existing {
            Existing::Skip => true,
            Existing::Newer => newer(path, origin),
            _ => false,
        };
        is_left && !self.written().contains(path)
    }

    fn written(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses inputs that would share a sidecar, and sidecars in the place of an input. `more` looks at
    /// each sidecar and its input.
    pub(super) fn check_all(
        &self,
        origins: impl Iterator<Item = PathBuf>,
        more: impl Fn(&Path, &Path) -> Result<()>,
    ) -> Result<()> {
        let mut owners: HashMap<PathBuf, PathBuf> = HashMap::new();
        for origin in origins {
            let path = self.path(&origin, None, None);
            more(&path, &origin)?;
            if let Some(other) = owners.insert(path.clone(), origin.clone())
                && !same(&other, &origin)
            {
                bail!(
                    "{other:?} and {origin:?} would both be written to {path:?}; keep the extension \
                     apart by --out-template '{{dir}}/{{name}}.txt'"
                );
            }
        }
        match owners.values().find(|origin| owners.contains_key(&plain(origin))) {
            Some(origin) => {
                bail!("the text of an image would be written over the input {origin:?}")
            }
            None => Ok(()),
        }
    }

    fn path(&self, origin: &Path, page: Option<usize>, line: Option<usize>) -> PathBuf {
        let dir = match folder(origin) {
            dir if dir.as_os_str().is_empty() => OsString::from("."),
            dir => dir.into_os_string(),
        };
        let part = |part: Option<&OsStr>| part.unwrap_or_default().to_os_string();
        let number = |number: Option<usize>| OsString::from(number.unwrap_or(1).to_string());
        let values = [
            dir,
            part(origin.file_stem()),
            part(origin.extension()),
            part(origin.file_name()),
            number(page),
            number(line),
        ];
        // One pass: a name that holds braces is not filled in again.
        let mut out = OsString::new();
        let mut rest = self.template.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            let value =
                PLACES.iter().position(|place| *place == name).map(|i| values[i].as_os_str());
            out.push(before);
            out.push(value.unwrap_or_default());
            rest = after;
        }
        out.push(rest);
        plain(Path::new(&out))
    }
}

/// The same file has one name, however it was named.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The folder of an image; of `a.tar/b.png`, which lies in an archive, the folder `a`.
fn folder(origin: &Path) -> PathBuf {
    let dir = origin.parent().unwrap_or(Path::new(""));
    let archive = dir.ancestors().find(|part| part.is_file());
    match archive.and_then(|archive| Some((archive, dir.strip_prefix(archive).ok()?))) {
        Some((archive, inside)) => archive.with_extension("").join(inside),
        None => dir.to_path_buf(),
    }
}

fn newer(sidecar: &Path, origin: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    matches!((time(sidecar), time(origin)), (Some(sidecar), Some(origin)) if sidecar >= origin)
}

/// Refuses places that do not exist.
fn check(template: &str) -> Result<()> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let (name, after) = after
            .split_once('}')
            .with_context(|| format!("--out-template {template:?}: a closing brace is missing"))?;
        ensure!(
            PLACES.contains(&name),
            "--out-template {template:?}: there is no {{{name}}}; there are {{{}}}",
            PLACES.join("}, {")
        );
        rest = after;
    }
    ensure!(
        template.contains("{stem}") || template.contains("{name}"),
        "--out-template {template:?}: all images would have the same file; put {{stem}} or {{name}} into it"
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sidecars(template: &str) -> Names {
        let args = SidecarArgs {
            sidecar: None,
            out_template: Some(template.to_string()),
            existing: None,
            prefix: String::new(),
            suffix: String::new(),
        };
        Sidecars::new(&args).unwrap().unwrap().names
    }

    #[test]
    fn templates_are_filled() {
        let table = [
            ("{dir}/{stem}.txt", "d/a.jpg", "d/a.txt"),
            ("{dir}/{stem}.txt", "a.b.jpg", "a.b.txt"),
            ("{dir}/{stem}.{ext}.txt", "./d/a.jpg", "d/a.jpg.txt"),
            ("out/{name}.{page}-{line}", "d/{stem}.png", "out/{stem}.png.2-3"),
        ];
        for (template, origin, expected) in table {
            let path = sidecars(template).path(Path::new(origin), Some(2), Some(3));
            assert_eq!(path, Path::new(expected), "{template}");
        }
    }

    #[test]
    fn wrong_templates_are_refused() {
        let table = [
            ("{dir}/{stem}.{extension}", "there is no {extension}"),
            ("{dir}/{stem", "a closing brace is missing"),
            ("all.txt", "the same file"),
        ];
        for (template, expected) in table {
            let error = check(template).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn shared_sidecars_are_found() {
        let clash = |template: &str, paths: &[&str]| {
            let origins = paths.iter().map(PathBuf::from);
            sidecars(template).check_all(origins, |_, _| Ok(())).map_err(|e| e.to_string())
        };
        let error = clash("{dir}/{stem}.txt", &["d/a.jpg", "d/b.jpg", "d/a.png"]).unwrap_err();
        assert!(error.contains("\"d/a.jpg\" and \"d/a.png\""), "{error}");
        assert!(clash("{dir}/{name}.txt", &["d/a.jpg", "d/a.png"]).is_ok());
        // The same image twice is no collision.
        assert!(clash("{dir}/{stem}.txt", &["a.jpg", "a.jpg"]).is_ok());
        assert!(clash("{dir}/{stem}.txt", &["Cargo.toml", "./Cargo.toml"]).is_ok());
        let error = clash("{dir}/{stem}.png", &["a.jpg", "b.png", "a.png"]).unwrap_err();
        assert!(error.contains("\"a.png\""), "{error}");
    }

    #[test]
    fn members_of_archives_have_a_folder_of_their_own() {
        let place = tempfile::tempdir().unwrap();
        let archive = place.path().join("shard.tar");
        fs::write(&archive, "").unwrap();
        let path = sidecars("{dir}/{stem}.txt").path(&archive.join("x/a.png"), None, None);
        assert_eq!(path, place.path().join("shard/x/a.txt"));
    }
}
