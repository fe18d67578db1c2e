//! A name becomes its inputs: a directory its images, an archive its members, a file itself.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::walk::Walk;
use super::{Named, Stream, has_image_name, head, is_dash, is_image};
use crate::archive::{self, Member, Members};
use crate::fetch::is_url;
use crate::pipeline::{Input, MAX_FILE};

/// Names one by one, each with all its inputs.
pub(super) struct Expand<N> {
    named: N,
    recursive: bool,
    current: Option<Stream>,
    /// The archive that a name led into, and how far it was read: the next name may lie behind.
    last: Option<(PathBuf, Members)>,
}

impl<N: Iterator<Item = Named>> Expand<N> {
    pub(super) fn new(named: N, recursive: bool) -> Self {
        Expand { named, recursive, current: None, last: None }
    }

    fn expand(&mut self, named: Named) -> Stream {
        let Named { path, page, fault } = named;
        if let Some(reason) = fault {
            return one(Input::failed(path.display().to_string(), reason));
        }
        if is_dash(&path) {
            return one(Input { page, ..Input::stdin() });
        }
        if let Some(url) = path.to_str().filter(|text| is_url(text)) {
            return one(Input { page, ..Input::url(url.to_string()) });
        }
        if path.is_dir() {
            return self.directory(&path);
        }
        if path.is_file() {
            return match archive_kind(&path) {
                Some(kind) => members(path, kind),
                None => one(Input { page, ..Input::file(path) }),
            };
        }
        one(match self.inside(&path) {
            Some(input) => Input { page, ..input },
            // It fails as an input, not as the run.
            None => Input { page, ..Input::file(path) },
        })
    }

    fn directory(&self, path: &Path) -> Stream {
        let mut images = Walk::new(path, self.recursive).peekable();
        if images.peek().is_some() {
            return Box::new(images);
        }
        let hint = if self.recursive { "" } else { "; --recursive searches its directories too" };
        let reason = format!("no images in the directory{hint}");
        one(Input::failed(path.display().to_string(), reason))
    }

    /// The member that `archive.tar/member.png` names, if the first part is an archive.
    fn inside(&mut self, path: &Path) -> Option<Input> {
        let archive = path.ancestors().skip(1).find(|path| path.is_file())?.to_path_buf();
        let kind = archive_kind(&archive)?;
        let inside = path.strip_prefix(&archive).ok()?.to_string_lossy().into_owned();
        let failed = |reason: String| Some(Input::failed(path.display().to_string(), reason));
        let begun = self.last.take().filter(|(last, _)| *last == archive);
        // Lists name members in the order of the archive: most often the rest is enough.
        if let Some((_, mut rest)) = begun
            && let Ok(Some(member)) = find(&mut rest, &inside)
        {
            self.last = Some((archive.clone(), rest));
            return Some(Input::member(&archive, member));
        }
        let mut members = match archive::open(&archive, kind, is_image, MAX_FILE) {
            Ok(members) => members,
            Err(error) => return failed(format!("{error:#}")),
        };
        let found = find(&mut members, &inside);
        let found = found.map(|found| found.map(|member| Input::member(&archive, member)));
        self.last = Some((archive, members));
        match found {
            Ok(Some(input)) => Some(input),
            Ok(None) => failed("no such image in the archive".to_string()),
            Err(error) => failed(format!("not found before the archive's damage: {error:#}")),
        }
    }
}

impl Expand<std::iter::Empty<Named>> {
    pub(super) fn is_archive(path: &Path) -> bool {
        path.is_file() && archive_kind(path).is_some()
    }
}

impl<N: Iterator<Item = Named>> Iterator for Expand<N> {
    type Item = Input;

    fn next(&mut self) -> Option<Input> {
        loop {
            if let Some(input) = self.current.as_mut().and_then(Iterator::next) {
                return Some(input);
            }
            let named = self.named.next()?;
            self.current = Some(self.expand(named));
        }
    }
}

fn one(input: Input) -> Stream {
    Box::new(std::iter::once(input))
}

/// An error where the member was not found and something could not be read: it may have been there.
fn find(members: &mut Members, name: &str) -> Result<Option<Member>> {
    let mut damage = None;
    for member in members {
        match member {
            Ok(member) if member.name == name => return Ok(Some(member)),
            Ok(_) => {}
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    damage.map_or(Ok(None), Err)
}

/// The images of an archive; if there are none, or it ends in damage, this is one input more.
fn members(path: PathBuf, kind: archive::Kind) -> Stream {
    let name = path.display().to_string();
    let members = match archive::open(&path, kind, is_image, MAX_FILE) {
        Ok(members) => members,
        Err(error) => return one(Input::failed(name, format!("{error:#}"))),
    };
    let inputs = members.map(move |member| match member {
        Ok(member) => Input::member(&path, member),
        Err(error) => Input::failed(path.display().to_string(), format!("{error:#}")),
    });
    let mut inputs = inputs.peekable();
    if inputs.peek().is_some() {
        return Box::new(inputs);
    }
    one(Input::failed(name, "no images in the archive"))
}

/// Whether a file is an archive: by its content, but that pictures by name are not looked into.
fn archive_kind(path: &Path) -> Option<archive::Kind> {
    let promised = archive::kind_by_name(path);
    if promised.is_none() && has_image_name(&path.to_string_lossy()) {
        return None;
    }
    let head = head(path, 512)?;
    // A file that is no picture either is told by what its name promised.
    archive::kind(&head).or(promised.filter(|_| !crate::image::is_picture(&head)))
}
