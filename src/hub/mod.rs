//! The Hugging Face Hub: repositories of models, and the cache that is shared with Python's
//! `huggingface_hub`.
//!
//! What is needed of a repository is the caller's to say ([`Need`]); nothing else is downloaded.

mod client;
mod copy;
mod download;
mod folder;
mod listing;
mod settings;
mod survey;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use client::{Client, Patience};
use folder::{Folder, shards};
use listing::{Listing, Trouble};

pub use settings::Settings;
pub use survey::{Survey, survey};

/// Files of a repository that the caller wants.
#[derive(Clone, Debug, Default)]
pub struct Need<'a> {
    /// Without one of these the repository is of no use.
    pub required: Vec<&'a str>,
    /// Taken if they are there.
    pub optional: Vec<&'a str>,
    /// Those of the optional ones that stand in for each other: of each choice one set of files is needed,
    /// unless the repository has none.
    pub choices: Vec<&'a [&'a [&'a str]]>,
    /// Those of the optional ones that change results: a copy that may lack one is used with a warning.
    pub weighty: Vec<&'a str>,
    /// The first of these that is there is taken; the shards of an `.index.json` come with it.
    pub weights: Vec<&'a str>,
}

/// What happens during a download, for whoever shows it.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A file begins, or begins again: its bytes in all, and how many are there already.
    Starts { name: &'a str, size: Option<u64>, present: u64 },
    /// So many bytes more.
    Bytes(u64),
    /// The file that began last is whole, or given up.
    Ends,
    /// Another process downloads this file; it is waited for.
    Queues { name: &'a str },
    /// A request failed; it is made again after the wait.
    Waits { reason: &'a str, wait: Duration },
    /// What came of the file is not what the repository says; it is fetched anew.
    Damaged { name: &'a str, reason: &'a str },
    /// The Hub gave no answer; the copy in the cache is used.
    Unreachable { repository: &'a str, reason: &'a str },
    /// The copy in the cache is used without this file, which the repository may have.
    Unknown { repository: &'a str, name: &'a str },
}

/// Who listens to the events.
pub type Tell<'a> = &'a dyn Fn(Event<'_>);

/// Whether the Hub could have a repository of this name: `owner/name`, or a name alone.
pub fn is_repository(name: &str) -> bool {
    folder::is_repository(name)
}

/// The folder with the needed files of a repository at a revision, as the Hub has it now.
///
/// Files that the cache lacks are downloaded. A commit whose files are all here asks nothing of the
/// network, and where the Hub can't be reached a copy in the cache does that lacks nothing as far as is
/// known. Errors are one sentence: what, where, and what to do.
pub fn snapshot(
    settings: &Settings,
    repository: &str,
    revision: &str,
    need: &Need,
    tell: Tell,
) -> Result<PathBuf> {
    let folder = Folder::new(&settings.cache, repository, revision)?;
    let here = folder.commit();
    let missing = match &here {
        Some(commit) => folder.missing(commit, need),
        None => Some(need.first().to_string()),
    };
    let complete = here.filter(|_| missing.is_none());
    let absent = format!(
        "{:?} of {repository:?} (revision {revision:?}) is not in the Hub's cache {:?}",
        missing.unwrap_or_default(),
        settings.cache
    );
    // The copy as it is, nothing having been asked.
    let as_it_is = |commit: &str| {
        for name in folder.unknown(commit, need) {
            tell(Event::Unknown { repository, name });
        }
        folder.snapshot(commit)
    };
    if settings.offline {
        let Some(commit) = complete else {
            bail!(
                "{absent}, and nothing is downloaded offline: run once without --offline and HF_HUB_OFFLINE, or \
                 pass the directory of a checkpoint"
            );
        };
        return Ok(as_it_is(&commit));
    }
    if let Some(commit) = &complete
        && commit == revision
        && folder.is_settled(commit, need)
    {
        return Ok(folder.snapshot(commit));
    }
    match (update(settings, &folder, need, complete.is_some(), tell), complete) {
        (Ok(commit), _) => Ok(folder.snapshot(&commit)),
        (Err(Trouble::Unreachable(reason)), Some(commit)) => {
            tell(Event::Unreachable { repository, reason: &reason });
            Ok(as_it_is(&commit))
        }
        (Err(Trouble::Unreachable(reason)), None) => Err(anyhow!(
            "{absent}, and {} can't be reached: {reason}; pass the directory of a checkpoint, or try again with a \
             network",
            settings.endpoint
        )),
        (Err(Trouble::Refused(error)), Some(_)) => {
            Err(anyhow!("{error:#}; a copy is in the cache, and --offline uses it"))
        }
        (Err(Trouble::Refused(error)), None) => Err(error),
    }
}

impl<'a> Need<'a> {
    /// The file that is looked for first.
    fn first(&self) -> &'a str {
        let chosen =
            self.choices.iter().flat_map(|choice| choice.iter()).flat_map(|files| files.iter());
        self.required.iter().chain(chosen).chain(&self.optional).next().copied().unwrap_or_default()
    }
}

/// Asks for the revision's commit and brings what is missing of it. Returns the commit.
fn update(
    settings: &Settings,
    folder: &Folder,
    need: &Need,
    has_copy: bool,
    tell: Tell,
) -> Result<String, Trouble> {
    let client = Client::new(settings).map_err(Trouble::Refused)?;
    let patience = if has_copy { Patience::none() } else { Patience::long() };
    let listing = Listing::ask(&client, folder, need, patience, tell)?;
    let commit = listing.commit.as_str();
    let hub = Remote { client: &client, folder, listing: &listing, tell };
    for name in &need.required {
        if !hub.bring(name)? {
            return Err(Trouble::Refused(anyhow!(
                "{:?} at {} (revision {:?}) has no {name}: it is no model that can be read here",
                folder.repo.url(),
                settings.endpoint,
                folder.repo.revision()
            )));
        }
    }
    for name in &need.optional {
        hub.bring(name)?;
    }
    // The copy's own weights do, whatever other formats the repository has.
    if folder.missing_weights(commit, need).is_some() {
        hub.weights(need)?;
    }
    folder.note_commit(commit);
    Ok(listing.commit)
}

/// A repository's files at one commit, there and here.
struct Remote<'a> {
    client: &'a Client<'a>,
    folder: &'a Folder,
    listing: &'a Listing,
    tell: Tell<'a>,
}

impl Remote<'_> {
    /// Makes the file be here; false if the commit lacks it.
    fn bring(&self, name: &str) -> Result<bool, Trouble> {
        let (folder, commit) = (self.folder, self.listing.commit.as_str());
        if folder.has(commit, name) {
            return Ok(true);
        }
        if folder.lacks(commit, name) {
            return Ok(false);
        }
        let Some(meta) = self.listing.meta(self.client, folder, name, self.tell)? else {
            folder.note_lacking(commit, name);
            return Ok(false);
        };
        // Held until the link is made: two that replace a link could each see the other's gap.
        let _lock = folder.lock(&meta.etag, name, self.tell).map_err(Trouble::Refused)?;
        if folder.has(commit, name) {
            return Ok(true);
        }
        let url = listing::url(self.client, folder, commit, name);
        download::download(self.client, folder, &url, name, &meta, self.tell)?;
        folder.link(commit, name, &meta.etag).map_err(Trouble::Refused)?;
        Ok(true)
    }

    /// One set of weights, the first that is there.
    fn weights(&self, need: &Need) -> Result<(), Trouble> {
        let repository = self.folder.repo.url();
        for name in &need.weights {
            if !self.bring(name)? {
                continue;
            }
            let path = self.folder.snapshot(&self.listing.commit).join(name);
            for shard in shards(&path).map_err(Trouble::Refused)? {
                if !self.bring(&shard)? {
                    return Err(Trouble::Refused(anyhow!(
                        "{repository:?} has no file {shard:?}, which its {name} names"
                    )));
                }
            }
            return Ok(());
        }
        Err(Trouble::Refused(anyhow!(
            "{repository:?} holds no weights: looked for {}",
            need.weights.join(", ")
        )))
    }
}
