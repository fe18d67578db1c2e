//! What the cache's copy of a commit answers of a need, and what it leaves open.
//!
//! The cache knows which files are here and which the commit lacks; of any other file only the Hub knows
//! whether there is one. Copies like that come of Python's `allow_patterns`, and of uses that were broken off.

use super::Need;
use super::folder::{Folder, shards};

impl Folder {
    /// The first file that `need` can't do without and the copy lacks, or may lack; None if the copy does.
    pub(super) fn missing(&self, commit: &str, need: &Need) -> Option<String> {
        let required = need.required.iter().find(|name| !self.has(commit, name));
        required
            .map(|name| name.to_string())
            .or_else(|| self.missing_weights(commit, need))
            .or_else(|| need.choices.iter().find_map(|choice| self.missing_of(commit, choice)))
    }

    /// The first file that is missing of the weights.
    pub(super) fn missing_weights(&self, commit: &str, need: &Need) -> Option<String> {
        let Some(weights) = need.weights.iter().find(|name| self.has(commit, name)) else {
            return need.weights.first().map(|name| name.to_string());
        };
        let path = self.snapshot(commit).join(weights);
        // A damaged index is not missing: whoever opens the checkpoint tells about it.
        let shards = shards(&path).unwrap_or_default();
        shards.into_iter().find(|name| !self.has(commit, name))
    }

    /// A file of a choice of which nothing is here whole, and something may be at the Hub.
    fn missing_of(&self, commit: &str, choice: &[&[&str]]) -> Option<String> {
        let here = |name: &&str| self.has(commit, name);
        if choice.iter().any(|files| files.iter().all(here)) {
            return None;
        }
        let may_be = |files: &&&[&str]| !files.iter().any(|name| self.lacks(commit, name));
        // What is here in part is what the repository has.
        let begun = choice.iter().filter(may_be).find(|files| files.iter().any(here));
        let files = begun.or_else(|| choice.iter().find(may_be))?;
        files.iter().find(|name| !here(name)).map(|name| name.to_string())
    }

    /// The files that change results and of which only the Hub knows.
    pub(super) fn unknown<'a>(&self, commit: &str, need: &Need<'a>) -> Vec<&'a str> {
        let weighty = need.weighty.iter().copied();
        weighty.filter(|name| !self.is_known(commit, name)).collect()
    }

    /// Whether nothing about `need` is open at this commit.
    pub(super) fn is_settled(&self, commit: &str, need: &Need) -> bool {
        self.missing(commit, need).is_none()
            && need.optional.iter().all(|name| self.is_known(commit, name))
    }

    fn is_known(&self, commit: &str, name: &str) -> bool {
        self.has(commit, name) || self.lacks(commit, name)
    }
}
