//! What a repository holds at a revision: one question to the Hub's API, or a question a file where
//! there is no API (mirrors that serve files alone).

use std::collections::BTreeMap;

use anyhow::anyhow;
use serde::Deserialize;
use ureq::http::{HeaderMap, Response};
use ureq::{Body, ResponseExt};

use super::client::{Ask, Client, Failure, Patience, document, same_origin};
use super::folder::{Folder, is_plain};
use super::{Need, Tell};
use crate::fetch;

/// Why a repository could not be listed or a file not be had.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The Hub could not be reached: what the cache has may do.
    Unreachable(String),
    /// The Hub said no, or the disk did.
    Refused(anyhow::Error),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Unreachable(failure.reason)
    }
}

/// Name and length of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// SHA-256 in hexadecimal for large files, git's object name for small ones.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: Option<u64>,
}

/// A repository at one commit.
pub(super) struct Listing {
    pub(super) commit: String,
    /// What the API told of each file; None where there is no API.
    files: Option<BTreeMap<String, Option<Meta>>>,
}

/// hf-hub's `RepoInfo` leaves out the etags and sizes that `?blobs=true` asks for.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Listing {
    /// Asks the Hub what the revision is now.
    pub(super) fn ask(
        client: &Client,
        folder: &Folder,
        need: &Need,
        patience: Patience,
        tell: Tell,
    ) -> Result<Listing, Trouble> {
        let api = folder.repo.api_url();
        let url = format!("{}/api/{api}?blobs=true", client.settings.endpoint);
        let response = client.ask(Ask::Document, &url, patience, tell)?;
        let status = response.status().as_u16();
        let coded = response.headers().contains_key("x-error-code");
        if matches!(status, 401 | 403) || (status == 404 && coded) {
            return Err(refused(client, folder, None, &response));
        }
        if response.status().is_success() {
            let text =
                document(response).map_err(|error| Trouble::Unreachable(error.to_string()))?;
            if let Ok(info) = serde_json::from_slice::<Info>(&text)
                && is_plain(&info.sha)
            {
                return Ok(Listing::of(info));
            }
        }
        Listing::probe(client, folder, need, tell)
    }

    fn of(info: Info) -> Listing {
        let meta = |sibling: &Sibling| {
            let (etag, size) = match &sibling.lfs {
                Some(lfs) => (lfs.sha256.clone(), lfs.size.or(sibling.size)),
                None => (sibling.blob_id.clone(), sibling.size),
            };
            Some(Meta { etag: etag.filter(|etag| is_plain(etag))?, size })
        };
        let files = info.siblings.iter().map(|file| (file.rfilename.clone(), meta(file))).collect();
        Listing { commit: info.sha, files: Some(files) }
    }

    /// The commit as the answers about files name it.
    fn probe(
        client: &Client,
        folder: &Folder,
        need: &Need,
        tell: Tell,
    ) -> Result<Listing, Trouble> {
        let names: Vec<&str> = need.required.iter().chain(&need.optional).copied().collect();
        let first = names.first().copied().unwrap_or("config.json");
        let url = url(client, folder, folder.repo.revision(), first);
        let response = client.ask(Ask::Headers, &url, Patience::long(), tell)?;
        match header(response.headers(), "x-repo-commit").filter(|commit| is_plain(commit)) {
            Some(commit) => Ok(Listing { commit, files: None }),
            None if response.status().is_success() => Err(Trouble::Refused(anyhow!(
                "{} does not answer as a Hub does (no X-Repo-Commit for {first:?}); HF_ENDPOINT names another",
                client.settings.endpoint
            ))),
            None => Err(refused(client, folder, Some(first), &response)),
        }
    }

    /// What is known of a file; None if the commit lacks it.
    pub(super) fn meta(
        &self,
        client: &Client,
        folder: &Folder,
        name: &str,
        tell: Tell,
    ) -> Result<Option<Meta>, Trouble> {
        match self.files.as_ref().map(|files| files.get(name)) {
            Some(None) => return Ok(None),
            Some(Some(Some(meta))) => return Ok(Some(meta.clone())),
            // Only the answer about the file itself names its etag.
            Some(Some(None)) | None => {}
        }
        let url = url(client, folder, &self.commit, name);
        let response = client.ask(Ask::Headers, &url, Patience::long(), tell)?;
        if response.status().as_u16() == 404 {
            return Ok(None);
        }
        if !response.status().is_success() && !response.status().is_redirection() {
            return Err(refused(client, folder, Some(name), &response));
        }
        let headers = response.headers();
        let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string());
        let size = header(headers, "x-linked-size").or_else(|| header(headers, "content-length"));
        match etag.filter(|etag| is_plain(etag)) {
            Some(etag) => Ok(Some(Meta { etag, size: size.and_then(|size| size.parse().ok()) })),
            None => Err(Trouble::Refused(anyhow!(
                "{} names no ETag for {name:?}, which the cache needs",
                client.settings.endpoint
            ))),
        }
    }
}

/// The address of a file's content.
pub(super) fn url(client: &Client, folder: &Folder, revision: &str, name: &str) -> String {
    let (endpoint, repository) = (&client.settings.endpoint, folder.repo.url());
    format!("{endpoint}/{repository}/resolve/{}/{name}", revision.replace('/', "%2F"))
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_string)
}

/// The sentence for a status that won't change by itself.
pub(super) fn refused(
    client: &Client,
    folder: &Folder,
    file: Option<&str>,
    response: &Response<Body>,
) -> Trouble {
    let status = response.status().as_u16();
    let code = header(response.headers(), "x-error-code").unwrap_or_default();
    let endpoint = &client.settings.endpoint;
    let token = client.settings.token.as_ref().map(|(_, source)| source.as_str());
    let (repository, revision) = (folder.repo.url(), folder.repo.revision());
    let uri = response.get_uri();
    // A mirror may send questions on to another Hub, whose refusals have codes.
    let told = match uri.host() {
        Some(host) if code.is_empty() && !same_origin(&uri.to_string(), endpoint) => {
            let asked = file.map_or(String::new(), |name| format!("{name:?} of "));
            format!(
                "{asked}{repository:?} can't be had from {host}, where {endpoint} sends for it: {}; its link may have \
                 run out, or a firewall or proxy allows no such host: try again, or ask who runs the network",
                fetch::answer(status)
            )
        }
        _ => refusal(status, &code, endpoint, token, &repository, revision, file),
    };
    Trouble::Refused(anyhow!(told))
}

fn refusal(
    status: u16,
    code: &str,
    endpoint: &str,
    token: Option<&str>,
    repository: &str,
    revision: &str,
    file: Option<&str>,
) -> String {
    let sent = token.map_or(String::new(), |source| format!("; the token from {source} was sent"));
    let page = format!("{endpoint}/{repository}");
    match (status, code, file) {
        (_, "RevisionNotFound", _) => format!("{repository:?} has no revision {revision:?}"),
        (_, "EntryNotFound", Some(file)) => {
            format!("{repository:?} has no file {file:?} at revision {revision:?}")
        }
        (_, "GatedRepo", _) => format!(
            "{repository:?} is gated: accept its licence at {page}, and set HF_TOKEN to a token of that account{sent}"
        ),
        (_, "RepoNotFound", _) | (404, ..) => format!(
            "{endpoint} has no repository {repository:?}, or it is private: check the name, or set HF_TOKEN to a \
             token that may read it{sent}"
        ),
        (401 | 403, ..) => format!(
            "{endpoint} refuses access to {repository:?} ({status}): check the name, accept the licence at {page} if \
             it asks for one, and set HF_TOKEN to a token that may read it{sent}"
        ),
        _ => format!("{repository:?} at {endpoint}: {}", fetch::answer(status)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let told = |status, code, token, file| {
            refusal(status, code, "https://h", token, "a/b", "v1", file)
        };
        let table = [
            (
                told(401, "GatedRepo", None, None),
                "accept its licence at https://h/a/b, and set HF_T",
            ),
            (told(403, "GatedRepo", Some("HF_TOKEN"), None), "; the token from HF_TOKEN was sent"),
            (
                told(401, "RepoNotFound", None, None),
                "https://h has no repository \"a/b\", or it is p",
            ),
            (told(404, "RevisionNotFound", None, None), "\"a/b\" has no revision \"v1\""),
            (told(404, "EntryNotFound", None, Some("x")), "\"a/b\" has no file \"x\""),
            (told(404, "", None, Some("x")), "no repository \"a/b\""),
            (told(403, "", None, None), "refuses access to \"a/b\" (403)"),
            (told(418, "", None, None), "\"a/b\" at https://h: the server answers 418"),
        ];
        for (told, expected) in table {
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn etags_of_large_files_are_their_digests() {
        let text = r#"{"sha":"c0ffee","siblings":[
            {"rfilename":"config.json","blobId":"0123","size":7},
            {"rfilename":"model.safetensors","blobId":"4567","size":9,
             "lfs":{"sha256":"89ab","size":9,"pointerSize":134}},
            {"rfilename":"README.md"},
            {"rfilename":"evil","blobId":"../../x","size":1}]}"#;
        let listing = Listing::of(serde_json::from_str(text).unwrap());
        let files = listing.files.unwrap();
        let meta = |etag: &str, size| Some(Meta { etag: etag.to_string(), size: Some(size) });
        assert_eq!(listing.commit, "c0ffee");
        assert_eq!(files["config.json"], meta("0123", 7));
        assert_eq!(files["model.safetensors"], meta("89ab", 9));
        assert_eq!((&files["README.md"], &files["evil"]), (&None, &None));
    }
}
