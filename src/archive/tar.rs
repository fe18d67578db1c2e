//! tar and tar.gz, walked by a thread that waits until the next member is asked for.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::{Context, Result};
use flate2::read::{GzDecoder, MultiGzDecoder};
use tar::{Archive, Entries, Entry};

use super::allowance::{Allowance, Left};
use super::at::At;
use super::{Data, HEAD, Member, Members, Wanted, is_hidden, plain_name, too_large};

/// Whether these are the first 512 bytes of a tar: their sum stands in them.
pub(super) fn is_header(head: &[u8]) -> bool {
    let Some(head) = head.get(..512) else { return false };
    // The sum is taken with spaces in its own place.
    let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
    let place: u32 = head[148..156].iter().map(|&byte| u32::from(byte)).sum();
    let text = String::from_utf8_lossy(&head[148..156]);
    let told = u32::from_str_radix(text.trim_matches(['\0', ' ']), 8);
    told == Ok(sum - place + 8 * u32::from(b' ')) && head[0] != 0
}

/// The start of what gzip holds; less than 512 bytes of it where the data is no gzip.
pub(super) fn unzipped(head: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = GzDecoder::new(head).take(512);
    // The head is cut short, so the end is an error; what came before counts.
    drop(reader.read_to_end(&mut bytes));
    bytes
}

pub(super) fn members(file: Arc<File>, wanted: Wanted) -> Result<Members> {
    let whole = At::whole(file.clone()).context("can't be read")?;
    start(move |sender| {
        let (whole, left) = Allowance::new(whole, HEADERS);
        let mut archive = Archive::new(whole);
        let entries = archive.entries_with_seek();
        let mut places = Places::default();
        // What is passed over is not read.
        let end = |_: &mut Entry<'_, _>| Ok(0);
        walk(entries, &left, sender, end, |name, kind, entry| {
            locate(&file, name, kind, entry, wanted, &mut places)
        });
    })
}

pub(super) fn zipped_members(file: Arc<File>, wanted: Wanted, limit: u64) -> Result<Members> {
    let whole = At::whole(file).context("can't be read")?;
    start(move |sender| {
        let unzipped = MultiGzDecoder::new(BufReader::new(whole));
        let (unzipped, left) = Allowance::new(unzipped, HEADERS);
        let mut archive = Archive::new(unzipped);
        walk(archive.entries(), &left, sender, drain, |name, kind, entry| {
            take_along(name, kind, entry, wanted, limit)
        });
    })
}

/// The most bytes of headers, long names and extended headers that a member may have: they are held in
/// memory, and a few compressed bytes can be gigabytes of them.
const HEADERS: u64 = 2 << 20;

fn start(walk: impl FnOnce(&SyncSender<Result<Member>>) + Send + 'static) -> Result<Members> {
    // No member is looked for before it is asked for, but one.
    let (sender, receiver) = sync_channel(0);
    std::thread::Builder::new()
        .name("archive".to_string())
        .spawn(move || walk(&sender))
        .context("can't start a thread to read it")?;
    Ok(Members(receiver))
}

/// Sends the wanted members, until nobody asks for more. Between two of them, [`HEADERS`] bytes may be read,
/// and what `end` says is left of the first.
fn walk<R: Read>(
    entries: std::io::Result<Entries<'_, R>>,
    left: &Left,
    sender: &SyncSender<Result<Member>>,
    end: fn(&mut Entry<'_, R>) -> std::io::Result<u64>,
    mut data: impl FnMut(&str, Kind, &mut Entry<'_, R>) -> std::io::Result<Option<Data>>,
) {
    let walk = || -> std::io::Result<()> {
        for entry in entries? {
            let mut entry = entry?;
            let (name, kind) = what(&mut entry)?;
            left.set(u64::MAX);
            if let Some(data) = data(&name, kind, &mut entry)?
                && sender.send(Ok(Member { name, data })).is_err()
            {
                break;
            }
            left.set(end(&mut entry)?.saturating_add(HEADERS));
        }
        Ok(())
    };
    if let Err(error) = walk() {
        // The crate's words may hold raw names and line ends.
        let words = error.to_string().replace(char::is_control, " ");
        drop(sender.send(Err(anyhow::anyhow!("damaged tar archive ({words})"))));
    }
}

/// What a member is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    HardLink,
    /// A file without its holes.
    Sparse,
    Other,
}

/// A member's name without `./`, and what it is.
fn what<R: Read>(entry: &mut Entry<'_, R>) -> std::io::Result<(String, Kind)> {
    let kind = entry.header().entry_type();
    let mut name = entry.path_bytes().into_owned();
    let mut is_sparse = kind.is_gnu_sparse();
    // The POSIX form is a file of another name, and records that say what it is.
    let records = if kind.is_file() { entry.pax_extensions()? } else { None };
    for record in records.into_iter().flatten().flatten() {
        is_sparse |= record.key_bytes().starts_with(b"GNU.sparse.");
        if record.key_bytes() == b"GNU.sparse.name" {
            name = record.value_bytes().to_vec();
        }
    }
    let kind = match kind {
        _ if is_sparse => Kind::Sparse,
        kind if kind.is_hard_link() => Kind::HardLink,
        kind if kind.is_file() || kind.is_contiguous() => Kind::File,
        _ => Kind::Other,
    };
    Ok((plain_name(&String::from_utf8_lossy(&name)), kind))
}

/// Reads a member to its end; how many bytes are still to be passed over.
fn drain<R: Read>(entry: &mut Entry<'_, R>) -> std::io::Result<u64> {
    if entry.header().entry_type().is_gnu_sparse() {
        // Its holes would be read as zeros, as many as it says.
        return entry.header().entry_size();
    }
    std::io::copy(entry, &mut std::io::sink())?;
    Ok(0)
}

/// Where members lie, by a hash of their name: hard links name an earlier member.
#[derive(Default)]
struct Places {
    hasher: RandomState,
    places: HashMap<u64, At>,
}

/// A member of a plain tar.
fn locate(
    file: &Arc<File>,
    name: &str,
    kind: Kind,
    entry: &Entry<'_, Allowance<At>>,
    wanted: Wanted,
    places: &mut Places,
) -> std::io::Result<Option<Data>> {
    let place = match kind {
        Kind::File => Ok(At::new(file.clone(), entry.raw_file_position(), entry.size())),
        Kind::HardLink => {
            let target = entry.link_name_bytes().unwrap_or_default();
            let target = plain_name(&String::from_utf8_lossy(&target));
            let place = places.places.get(&places.hasher.hash_one(target.as_str()));
            place.cloned().ok_or("a hard link to nowhere")
        }
        Kind::Sparse => Err(SPARSE),
        Kind::Other => return Ok(None),
    };
    if let Ok(at) = &place {
        // Of hidden members too: others may be links to them.
        places.places.insert(places.hasher.hash_one(name), at.clone());
    }
    if is_hidden(name) {
        return Ok(None);
    }
    let at = match place {
        Ok(at) => at,
        Err(reason) => return Ok(wanted(name, &[]).then(|| nothing(reason))),
    };
    let mut head = Vec::new();
    at.clone().take(HEAD as u64).read_to_end(&mut head)?;
    Ok(wanted(name, &head).then_some(Data::At(at)))
}

const SPARSE: &str = "a sparse file, which is not read out of an archive; unpack it first";

/// A member of a tar.gz, with its bytes.
fn take_along<R: Read>(
    name: &str,
    kind: Kind,
    entry: &mut Entry<'_, R>,
    wanted: Wanted,
    limit: u64,
) -> std::io::Result<Option<Data>> {
    let reason = match kind {
        _ if is_hidden(name) => return Ok(None),
        Kind::File => None,
        Kind::HardLink => Some("a hard link in a compressed archive; unpack it first"),
        Kind::Sparse => Some(SPARSE),
        Kind::Other => return Ok(None),
    };
    if let Some(reason) = reason {
        return Ok(wanted(name, &[]).then(|| nothing(reason)));
    }
    let size = entry.size();
    let mut bytes = Vec::new();
    entry.take(HEAD as u64).read_to_end(&mut bytes)?;
    if !wanted(name, &bytes) {
        return Ok(None);
    }
    if size > limit {
        return Ok(Some(Data::Nothing(too_large(limit))));
    }
    entry.read_to_end(&mut bytes)?;
    Ok(Some(if bytes.len() as u64 == size {
        Data::Bytes(bytes.into())
    } else {
        nothing("the archive ends inside of it")
    }))
}

fn nothing(reason: &str) -> Data {
    Data::Nothing(reason.to_string())
}
