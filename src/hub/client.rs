//! Questions to the Hub: redirects, tokens, time-outs, patience.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::{Event, Settings, Tell};
use crate::fetch::{self, Route};

/// Failures in a row, nothing having come in between, after which a download is given up.
const FAILURES: u32 = 6;

/// Failures in a row to reach the host at all.
const UNREACHED: u32 = 3;

/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A server that asks for a longer wait is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// hf-hub's own client has no time-outs, sends nothing but its own name, leaves 5xx and 429 to the caller and
/// knows no way to ask for a file's digest: its address scheme is used here, its requests are not.
pub(super) struct Client<'a> {
    pub(super) settings: &'a Settings,
    agent: Agent,
}

/// One question.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    /// A small JSON document.
    Document,
    /// The headers of a file, from the first answer that has them: the Hub's, not its storage's.
    Headers,
    /// A file's content from this byte on.
    Content(u64),
}

/// No answer, or one that may be another a little later.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) retry_after: Option<Duration>,
    /// How far it pays to ask again.
    hope: Hope,
}

/// Whether an answer may come a little later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hope {
    /// The server is busy, or the line is bad.
    Good,
    /// There is no such host, or nobody listens there: soon, if at all.
    Little,
    None,
}

/// Counts failures and waits between them.
pub(super) struct Patience {
    failures: u32,
    limit: u32,
}

impl<'a> Client<'a> {
    /// Refuses a token that can't be one; the sentence does not repeat it.
    pub(super) fn new(settings: &'a Settings) -> Result<Self> {
        if let Some((token, source)) = &settings.token
            && !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            bail!(
                "the token from {source} holds a blank, a letter with an accent or a control character, which no \
                 token has: copy it again from {}/settings/tokens",
                settings.endpoint
            );
        }
        let agent = fetch::settings()
            .timeout_per_read(Some(settings.stall))
            .timeout_per_write(Some(settings.stall))
            .build()
            .new_agent();
        Ok(Client { settings, agent })
    }

    /// One answer, redirects followed. A status that may pass (408, 429, 5xx) is a failure.
    pub(super) fn once(&self, ask: Ask, url: &str) -> Result<Response<Body>, Failure> {
        let mut url = url.to_string();
        let mut seen = HeaderMap::new();
        for _ in 0..=fetch::MAX_REDIRECTS {
            let mut response = self.exchange(ask, &url)?;
            if let Some(commit) = response.headers().get("x-repo-commit") {
                seen.insert("x-repo-commit", commit.clone());
            }
            let status = response.status();
            let enough =
                matches!(ask, Ask::Headers) && response.headers().contains_key("x-linked-etag");
            // Each redirect decides about the token anew.
            match fetch::redirect(&url, &response).map_err(Failure::lasting)? {
                Some(target) if !enough => url = target,
                _ if is_passing(status) => {
                    return Err(Failure {
                        reason: fetch::answer(status.as_u16()),
                        retry_after: retry_after(response.headers()),
                        hope: Hope::Good,
                    });
                }
                _ => {
                    response.headers_mut().extend(seen);
                    return Ok(response);
                }
            }
        }
        Err(Failure::lasting(fetch::too_many_redirects()))
    }

    /// The same, asked again after a while until it is answered or patience is at its end.
    pub(super) fn ask(
        &self,
        ask: Ask,
        url: &str,
        mut patience: Patience,
        tell: Tell,
    ) -> Result<Response<Body>, Failure> {
        loop {
            match self.once(ask, url) {
                Ok(response) => return Ok(response),
                Err(failure) => patience.wait(failure, tell)?,
            }
        }
    }

    fn exchange(&self, ask: Ask, url: &str) -> Result<Response<Body>, Failure> {
        let request = match ask {
            Ask::Headers => self.agent.head(url),
            Ask::Document | Ask::Content(_) => self.agent.get(url),
        };
        // Bytes as they are stored: their number is checked, and parts of them are asked for.
        let mut request = request.header("accept-encoding", "identity");
        if let Ask::Content(from) = ask
            && from > 0
        {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some((token, _)) = &self.settings.token
            && same_origin(url, &self.settings.endpoint)
        {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let limit = match ask {
            Ask::Content(_) => None,
            Ask::Document | Ask::Headers => Some(self.settings.question),
        };
        let route = Route::to(url).map_err(Failure::lasting)?;
        let request = request.config().proxy(route.proxy()).timeout_global(limit).build();
        request.call().map_err(|error| Failure {
            reason: route.reason(&error),
            retry_after: None,
            hope: hope(&error),
        })
    }
}

impl Failure {
    pub(super) fn passing(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), retry_after: None, hope: Hope::Good }
    }

    fn lasting(reason: impl Display) -> Failure {
        Failure { reason: reason.to_string(), retry_after: None, hope: Hope::None }
    }
}

impl Patience {
    /// For what nothing can stand in for.
    pub(super) fn long() -> Patience {
        Patience { failures: 0, limit: FAILURES }
    }

    /// For a question whose answer can be done without.
    pub(super) fn none() -> Patience {
        Patience { failures: 0, limit: 1 }
    }

    /// Something new came: the count starts again.
    pub(super) fn encouraged(&mut self) {
        self.failures = 0;
    }

    /// Waits after a failure; gives it back when it is one too many.
    pub(super) fn wait(&mut self, failure: Failure, tell: Tell) -> Result<(), Failure> {
        self.failures += 1;
        let limit = match failure.hope {
            Hope::Good => self.limit,
            Hope::Little => self.limit.min(UNREACHED),
            Hope::None => 0,
        };
        if self.failures >= limit {
            return Err(failure);
        }
        let wait = match failure.retry_after {
            Some(wait) if wait > LONGEST_WAIT => {
                let reason = format!("{}; it asks to wait {} s", failure.reason, wait.as_secs());
                return Err(Failure { reason, ..failure });
            }
            Some(wait) => wait,
            None => FIRST_WAIT * 2u32.pow(self.failures - 1),
        };
        tell(Event::Waits { reason: &failure.reason, wait });
        std::thread::sleep(wait);
        Ok(())
    }
}

/// What may go better a little later.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn hope(error: &ureq::Error) -> Hope {
    use ureq::Error::{
        BadUri, ConnectProxyFailed, Http, InvalidProxyUrl, Io, LargeResponseHeader, Rustls, Tls,
    };
    match error {
        // A proxy that won't have us, or one that does not reach the host.
        ConnectProxyFailed(_) if fetch::refused_by_proxy(error).is_some_and(|s| s < 500) => {
            Hope::None
        }
        ConnectProxyFailed(_) => Hope::Little,
        BadUri(_) | Http(_) | InvalidProxyUrl | Tls(_) | Rustls(_) | LargeResponseHeader(..) => {
            Hope::None
        }
        Io(io) if io.kind() == std::io::ErrorKind::InvalidData => Hope::None,
        error if fetch::is_unreached(error) => Hope::Little,
        _ => Hope::Good,
    }
}

/// Seconds of a Retry-After. A date there is answered by the usual waits.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Whether two addresses share scheme, host and port: only then may the token go along.
pub(super) fn same_origin(a: &str, b: &str) -> bool {
    let origin = |text: &str| -> Option<(String, String, u16)> {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port))
    };
    matches!((origin(a), origin(b)), (Some(a), Some(b)) if a == b)
}

/// A document's bytes, at most 64 MiB of them.
pub(super) fn document(mut response: Response<Body>) -> Result<Vec<u8>> {
    match response.body_mut().with_config().limit(fetch::LIMIT).read_to_vec() {
        Ok(bytes) => Ok(bytes),
        Err(error) => bail!(fetch::reason(&error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stay_with_their_origin() {
        let hub = "https://huggingface.co";
        let table = [
            ("https://huggingface.co/api", true),
            ("https://HuggingFace.co:443/x", true),
            ("http://huggingface.co/api", false),
            ("https://huggingface.co:8443/api", false),
            ("https://cdn.huggingface.co/api", false),
            ("https://huggingface.co.evil.org/", false),
        ];
        for (url, expected) in table {
            assert_eq!(same_origin(url, hub), expected, "{url}");
        }
    }

    #[test]
    fn patience_ends() {
        let tell = |_: Event| {};
        let mut none = Patience::none();
        assert_eq!(none.wait(Failure::passing("x"), &tell).unwrap_err().reason, "x");
        let mut long = Patience::long();
        assert!(long.wait(Failure::lasting("x".to_string()), &tell).is_err());
        let hour = Some(Duration::from_secs(3600));
        let failure = Failure { retry_after: hour, ..Failure::passing("x") };
        let told = long.wait(failure, &tell).unwrap_err().reason;
        assert_eq!(told, "x; it asks to wait 3600 s");
    }
}
