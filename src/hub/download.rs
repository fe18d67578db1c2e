//! One file's content: resumed, checked, and moved into its place when it is whole.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::Response;

use super::client::{Ask, Client, Failure, Patience};
use super::folder::Folder;
use super::listing::{Meta, Trouble, refused};
use super::{Event, Tell};
use crate::fetch;

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Content that does not fit its name is fetched anew as often as this.
const FRESH_STARTS: u32 = 2;

/// A blob under its `.incomplete` name, and the digest of what it holds so far.
struct Partial {
    path: PathBuf,
    file: File,
    digest: Sha256,
    length: u64,
}

/// Why an attempt did not end with the whole file.
enum Stop {
    Failure(Failure),
    /// What came is not what the repository says: it is thrown away.
    Wrong(String),
    Trouble(Trouble),
}

/// Which file comes from where, and who is told.
#[derive(Clone, Copy)]
struct Transfer<'a> {
    client: &'a Client<'a>,
    folder: &'a Folder,
    url: &'a str,
    name: &'a str,
    meta: &'a Meta,
    tell: Tell<'a>,
}

/// Downloads the content `meta` of the file `name` unless it is there. The caller holds the lock.
///
/// What was received stays in `<etag>.incomplete` whatever ends the process, and is gone on from.
pub(super) fn download(
    client: &Client,
    folder: &Folder,
    url: &str,
    name: &str,
    meta: &Meta,
    tell: Tell,
) -> Result<(), Trouble> {
    let blob = folder.blob(&meta.etag);
    if blob.is_file() {
        return Ok(());
    }
    folder.prepare().map_err(Trouble::Refused)?;
    let mut partial = Partial::open(&blob, meta).map_err(Trouble::Refused)?;
    tell(Event::Starts { name, size: meta.size, present: partial.length });
    let outcome = fill(Transfer { client, folder, url, name, meta, tell }, &mut partial);
    tell(Event::Ends);
    outcome?;
    partial.publish(&blob).map_err(Trouble::Refused)
}

/// Attempt after attempt, until the content is whole and right.
fn fill(transfer: Transfer, partial: &mut Partial) -> Result<(), Trouble> {
    let Transfer { folder, name, meta, tell, .. } = transfer;
    let repository = folder.repo.url();
    let mut patience = Patience::long();
    let mut fresh_starts = 0;
    let mut furthest = partial.length;
    loop {
        let attempt = attempt(transfer, partial);
        if partial.length > furthest {
            furthest = partial.length;
            patience.encouraged();
        }
        match attempt.and_then(|()| partial.verify(meta).map_err(Stop::Wrong)) {
            Ok(()) => return Ok(()),
            Err(Stop::Trouble(trouble)) => return Err(trouble),
            Err(Stop::Failure(failure)) => patience.wait(failure, tell).map_err(|failure| {
                Trouble::Refused(anyhow!(
                    "{name:?} of {repository:?} did not come whole: {}; what came is kept, and the next run \
                     goes on from there",
                    failure.reason
                ))
            })?,
            Err(Stop::Wrong(reason)) => {
                partial.restart().map_err(Trouble::Refused)?;
                furthest = 0;
                fresh_starts += 1;
                if fresh_starts > FRESH_STARTS {
                    let _ = std::fs::remove_file(&partial.path);
                    return Err(Trouble::Refused(anyhow!(
                        "{name:?} of {repository:?} came damaged {fresh_starts} times: {reason}"
                    )));
                }
                tell(Event::Damaged { name, reason: &reason });
                tell(Event::Starts { name, size: meta.size, present: 0 });
            }
        }
    }
}

/// One request, from where the content ends so far.
fn attempt(transfer: Transfer, partial: &mut Partial) -> Result<(), Stop> {
    let Transfer { client, folder, url, name, meta, tell } = transfer;
    if meta.size == Some(partial.length) {
        return Ok(());
    }
    let ask = Ask::Content(partial.length);
    let response = client.once(ask, url).map_err(Stop::Failure)?;
    match response.status().as_u16() {
        206 if range_start(&response) == Some(partial.length) => {}
        200 if partial.length == 0 => {}
        // The server knows no ranges, or another one: from the beginning.
        200 => {
            partial.restart().map_err(refuse)?;
            tell(Event::Starts { name, size: meta.size, present: 0 });
        }
        206 | 416 => return Err(Stop::Wrong("the server answers with another part".to_string())),
        _ => return Err(Stop::Trouble(refused(client, folder, Some(name), &response))),
    }
    let (mine, announced) = (meta.size, response.body().content_length());
    if let (Some(size), Some(rest)) = (mine, announced)
        && partial.length + rest != size
    {
        let sent = partial.length + rest;
        return Err(Stop::Wrong(format!("{sent} bytes, the repository says {size}")));
    }
    copy(response, meta, partial, tell)
}

fn copy(
    response: Response<Body>,
    meta: &Meta,
    partial: &mut Partial,
    tell: Tell,
) -> Result<(), Stop> {
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                let reason = fetch::reason(&ureq::Error::from(error));
                return Err(Stop::Failure(Failure::passing(reason)));
            }
        };
        partial.append(&buffer[..count]).map_err(refuse)?;
        tell(Event::Bytes(count as u64));
        if let Some(size) = meta.size.filter(|size| partial.length > *size) {
            return Err(Stop::Wrong(format!("more than the {size} bytes the repository says")));
        }
    }
    match meta.size {
        Some(size) if partial.length < size => {
            Err(Stop::Failure(Failure::passing("the connection was cut")))
        }
        _ => Ok(()),
    }
}

fn refuse(error: anyhow::Error) -> Stop {
    Stop::Trouble(Trouble::Refused(error))
}

/// The first byte of a partial answer, from `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

impl Partial {
    /// Opens `<blob>.incomplete`, and reads what an earlier run left there.
    fn open(blob: &Path, meta: &Meta) -> anyhow::Result<Partial> {
        let mut path = blob.as_os_str().to_owned();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let failed = || format!("cannot write {path:?}");
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .with_context(failed)?;
        let mut digest = Sha256::new();
        let length = std::io::copy(&mut file, &mut digest).with_context(failed)?;
        let mut partial = Partial { path, file, digest, length };
        if meta.size.is_some_and(|size| length > size) {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {:?}", self.path))?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0).with_context(|| format!("cannot write {:?}", self.path))?;
        self.digest = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Compares the content with its name where that is a SHA-256. Git's own object names of small files
    /// are no digests of the content alone: those are checked by their size.
    fn verify(&self, meta: &Meta) -> Result<(), String> {
        let is_digest = meta.etag.len() == 64 && meta.etag.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_digest {
            return Ok(());
        }
        let found = format!("{:x}", self.digest.clone().finalize());
        match found.eq_ignore_ascii_case(&meta.etag) {
            true => Ok(()),
            false => Err(format!("its SHA-256 is {found}, the repository says {}", meta.etag)),
        }
    }

    /// On the disk first, then under its name: a blob that is there is whole.
    fn publish(self, blob: &Path) -> anyhow::Result<()> {
        let failed = || format!("cannot write {blob:?}");
        self.file.sync_all().with_context(failed)?;
        drop(self.file);
        std::fs::rename(&self.path, blob).with_context(failed)
    }
}
