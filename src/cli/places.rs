//! Which files a run would write over, however their names are spelled.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::args::ReadArgs;
use super::output::is_picture;

/// True if both names lead to one file, or would if it were there. Devices and pipes can be written to
/// twice: only spelling counts for what is there and no plain file.
pub(super) fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((place(a), place(b)), (Some(a), Some(b)) if a == b) || one_file(a, b)
}

/// The one spelling of a file's place; none for what is no plain file.
fn place(path: &Path) -> Option<PathBuf> {
    if let Ok(found) = path.canonicalize() {
        return found.is_file().then_some(found);
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
    Some(folder.join(path.file_name()?))
}

/// Hard links are one file in two places.
#[cfg(unix)]
fn one_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| {
        let data = path.metadata().ok().filter(|data| data.is_file())?;
        Some((data.dev(), data.ino()))
    };
    matches!((identity(a), identity(b)), (Some(a), Some(b)) if a == b)
}

#[cfg(not(unix))]
fn one_file(_: &Path, _: &Path) -> bool {
    false
}

/// The files that `args` name beside images and sidecars, each with its flag.
fn named(args: &ReadArgs) -> Vec<(&'static str, &Path)> {
    let dash = Path::new("-");
    let output = args.output.output.as_deref().filter(|file| *file != dash);
    let list = args.input.files_from.as_deref().filter(|file| *file != dash);
    let flags =
        [("--output", output), ("--errors", args.output.errors.as_deref()), ("--files-from", list)];
    flags.into_iter().filter_map(|(flag, file)| Some((flag, file?))).collect()
}

/// Refuses results in the place of what is read, or of other results.
pub(super) fn check(args: &ReadArgs) -> Result<()> {
    let named = named(args);
    for (flag, file) in named.iter().filter(|(flag, _)| *flag != "--files-from") {
        ensure!(!is_picture(file), "{flag} {file:?} is a picture; it is not written over");
        if let Some(image) = args.images.iter().find(|image| image.is_file() && same(image, file)) {
            bail!(
                "{flag} {file:?} is the input {image:?}, which is not written over; name another file"
            );
        }
        match named.iter().find(|(other, at)| other != flag && same(at, file)) {
            Some(("--files-from", _)) => bail!(
                "{flag} and --files-from name the same file: the list would be lost before it is read"
            ),
            Some(_) => bail!("--output and --errors name the same file"),
            None => {}
        }
    }
    Ok(())
}

/// Refuses a sidecar in the place of a file that a flag names.
pub(super) fn check_sidecar(args: &ReadArgs, sidecar: &Path, origin: &Path) -> Result<()> {
    let clashes = |file: &Path| file.file_name() == sidecar.file_name() && same(file, sidecar);
    match named(args).into_iter().find(|(_, file)| clashes(file)) {
        Some((flag, _)) => {
            bail!("the text of {origin:?} would be written to {sidecar:?}, the file of {flag}")
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_many_names() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("a"), "").unwrap();
        std::fs::write(at("b"), "").unwrap();
        for (one, other, expected) in [
            ("a", "./a", true),
            ("a", "d/../a", true),
            ("a", "b", false),
            ("new", "d/../new", true),
            ("new", "d/new", false),
            ("none/new", "none/new", true),
        ] {
            assert_eq!(same(&at(one), &at(other)), expected, "{one} {other}");
        }
        #[cfg(unix)]
        {
            std::fs::hard_link(at("a"), at("hard")).unwrap();
            std::os::unix::fs::symlink(at("a"), at("soft")).unwrap();
            assert!(same(&at("a"), &at("hard")) && same(&at("soft"), &at("a")));
            assert!(!same(Path::new("/dev/stdin"), Path::new("/dev/null")));
        }
    }
}
