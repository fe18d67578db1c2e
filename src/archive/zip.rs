//! zip, by its directory.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result, anyhow};
use zip::ZipArchive;
use zip::result::ZipError;

use super::allowance::Allowance;
use super::at::At;
use super::{Data, HEAD, Member, Members, Wanted, visible_name};

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
    let (whole, left) = Allowance::new(whole, DIRECTORY);
    let archive = ZipArchive::new(whole).map_err(explain)?;
    left.set(u64::MAX);
    let (sender, receiver) = sync_channel(0);
    std::thread::Builder::new()
        .name("archive".to_string())
        .spawn(move || {
            for index in 0..archive.len() {
                let Some(member) = member(&archive, index, wanted) else { continue };
                if sender.send(Ok(member)).is_err() {
                    break;
                }
            }
        })
        .context("can't start a thread to read it")?;
    Ok(Members(receiver))
}

/// A member that is wanted.
fn member(archive: &ZipArchive<Allowance<At>>, index: usize, wanted: Wanted) -> Option<Member> {
    let entry = Entry { archive: archive.clone(), index };
    let mut looking = archive.clone();
    let name = match looking.by_index_raw(index) {
        Ok(member) if member.is_dir() || member.is_symlink() => return None,
        Ok(member) => member.name().to_string(),
        Err(_) => archive.name_for_index(index)?.to_string(),
    };
    let name = visible_name(&name)?;
    let mut head = Vec::new();
    // What can't be read is told by whoever reads it, if its name says that it is wanted.
    drop(entry.read(HEAD as u64, &mut head));
    wanted(&name, &head).then_some(Member { name, data: Data::Zip(entry) })
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
