//! zip, by its directory.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result, anyhow};
use zip::ZipArchive;
use zip::result::ZipError;

use super::allowance::Allowance;
use super::at::At;
use super::{Data, HEAD, Member, Members, Wanted, is_hidden, plain_name};

/// A member, by its place in the directory that all members share.
#[derive(Clone)]
pub(super) struct Entry {
    archive: ZipArchive<Allowance<At>>,
    index: usize,
}

impl Entry {
    /// At most `limit` bytes; less than the directory says is an error.
    pub(super) fn read(&self, limit: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let mut archive = self.archive.clone();
        let member = archive.by_index(self.index).map_err(explain)?;
        member.take(limit).read_to_end(bytes).context("damaged zip archive")?;
        Ok(())
    }
}

/// The most bytes of a zip's directory, which is held in memory: names of some half a million members.
const DIRECTORY: u64 = 64 << 20;

pub(super) fn members(file: Arc<File>, wanted: Wanted) -> Result<Members> {
    let whole = At::whole(file).context("can't be read")?;
    let (limited, left) = Allowance::new(whole.clone(), DIRECTORY);
    let archive = ZipArchive::new(limited).map_err(explain)?;
    left.set(u64::MAX);
    let names = Names::read(whole, archive.central_directory_start());
    let (sender, receiver) = sync_channel(0);
    std::thread::Builder::new()
        .name("archive".to_string())
        .spawn(move || {
            for index in 0..archive.len() {
                let Some((member, times)) = member(&archive, index, wanted, &names) else {
                    continue;
                };
                let hidden = Member { data: Data::Nothing(HIDDEN.to_string()), ..member.clone() };
                let all = std::iter::once(member).chain(std::iter::repeat_n(hidden, times - 1));
                // Nobody asks for more.
                if all.into_iter().any(|member| sender.send(Ok(member)).is_err()) {
                    break;
                }
            }
        })
        .context("can't start a thread to read it")?;
    Ok(Members(receiver))
}

const HIDDEN: &str =
    "a member behind it has the same name and alone is read, as unpacking keeps it";

/// How often names stand in the directory: of members with one name the reader knows the last.
struct Names {
    hasher: RandomState,
    times: HashMap<u64, usize>,
}

impl Names {
    /// Goes through the directory at `start`, which has been read without a fault.
    fn read(file: At, start: u64) -> Names {
        let mut names = Names { hasher: RandomState::new(), times: HashMap::new() };
        let mut directory = BufReader::new(file);
        if directory.seek(SeekFrom::Start(start)).is_ok() {
            while let Some(name) = next_name(&mut directory) {
                *names.times.entry(names.hasher.hash_one(name)).or_default() += 1;
            }
        }
        names
    }

    fn times(&self, name: &[u8]) -> usize {
        self.times.get(&self.hasher.hash_one(name)).copied().unwrap_or(1)
    }
}

/// The name of the entry that begins here; none behind the last.
fn next_name(directory: &mut BufReader<At>) -> Option<Vec<u8>> {
    let mut header = [0; 46];
    directory.read_exact(&mut header).ok()?;
    let length = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if !header.starts_with(b"PK\x01\x02") {
        return None;
    }
    let mut name = vec![0; usize::from(length(28))];
    directory.read_exact(&mut name).ok()?;
    let rest = i64::from(length(30)) + i64::from(length(32));
    directory.seek_relative(rest).ok()?;
    Some(name)
}

/// A member that is wanted, and how often its name stands in the directory.
fn member(
    archive: &ZipArchive<Allowance<At>>,
    index: usize,
    wanted: Wanted,
    names: &Names,
) -> Option<(Member, usize)> {
    let entry = Entry { archive: archive.clone(), index };
    let mut looking = archive.clone();
    let (name, times) = match looking.by_index_raw(index) {
        Ok(member) if member.is_dir() || member.is_symlink() => return None,
        Ok(member) => (member.name().to_string(), names.times(member.name_raw())),
        Err(_) => (archive.name_for_index(index)?.to_string(), 1),
    };
    let name = plain_name(&name);
    if is_hidden(&name) {
        return None;
    }
    let mut head = Vec::new();
    // What can't be read is told by whoever reads it, if its name says that it is wanted.
    drop(entry.read(HEAD as u64, &mut head));
    wanted(&name, &head).then_some((Member { name, data: Data::Zip(entry) }, times))
}

fn explain(error: ZipError) -> anyhow::Error {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => {
            anyhow!("encrypted, which is not supported; unpack it first")
        }
        ZipError::UnsupportedArchive(what) => {
            let what = what.to_lowercase();
            anyhow!("zip archive of a kind that is not supported ({what}); unpack it first")
        }
        other => anyhow!("damaged zip archive ({other})"),
    }
}
