//! Files by http and https: the settings that every request shares, and pictures named by their URL.

mod proxy;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use ureq::config::ConfigBuilder;
use ureq::http::{Response, Uri};
use ureq::typestate::AgentScope;
use ureq::{Agent, Body, Timeout};

pub use proxy::Route;

/// Bytes of a picture that [`fetch`] is usually asked to accept.
pub const LIMIT: u64 = 64 * 1024 * 1024;

/// Time that [`fetch`] is usually given for one picture, redirects included.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Who asks, for the server.
pub const USER_AGENT: &str = concat!("vedm/", env!("CARGO_PKG_VERSION"));

/// Redirects followed before giving up.
pub const MAX_REDIRECTS: u32 = 10;

/// Time for looking up a host's name, and again for connecting to it.
const CONNECT: Duration = Duration::from_secs(10);

/// Connections are kept and used again between pictures of one server.
static AGENT: LazyLock<Agent> = LazyLock::new(|| settings().build().new_agent());

/// What every request has in common. A status is no error here: the caller words it, and follows redirects,
/// since each of them decides about the proxy anew ([`Route`]).
pub fn settings() -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .user_agent(USER_AGENT)
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
}

/// Whether the text is the URL of something to fetch, not a path.
pub fn is_url(text: &str) -> bool {
    let has = |scheme: &str| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    has("http://") || has("https://")
}

/// The content at `url`: at most `limit` bytes, within `timeout` from the first look-up to the last byte.
///
/// Redirects are followed. The sentence of an error does not repeat the URL.
pub fn fetch(url: &str, limit: u64, timeout: Duration) -> Result<Vec<u8>> {
    ensure!(is_url(url), "expected a URL with http:// or https://");
    let end = Instant::now() + timeout;
    let mut url = url.to_string();
    for _ in 0..=MAX_REDIRECTS {
        let route = Route::to(&url)?;
        let left = end.saturating_duration_since(Instant::now());
        let request =
            AGENT.get(&url).config().proxy(route.proxy()).timeout_global(Some(left)).build();
        let response = request.call().map_err(|error| anyhow!(route.reason(&error)))?;
        match redirect(&url, &response)? {
            Some(target) => url = target,
            None => return content(response, limit),
        }
    }
    bail!(too_many_redirects())
}

/// The body of an answer of success.
fn content(mut response: Response<Body>, limit: u64) -> Result<Vec<u8>> {
    ensure!(response.status().is_success(), answer(response.status().as_u16()));
    let too_large = || format!("larger than the limit of {}", size(limit));
    let body = response.body_mut();
    ensure!(body.content_length().is_none_or(|length| length <= limit), too_large());
    match body.with_config().limit(limit).read_to_vec() {
        Ok(bytes) => Ok(bytes),
        Err(ureq::Error::BodyExceedsLimit(_)) => bail!(too_large()),
        Err(error) => bail!(reason(&error)),
    }
}

/// The address that an answer from `url` sends on to, if it does.
pub fn redirect(url: &str, response: &Response<Body>) -> Result<Option<String>> {
    let location = response.headers().get("location").and_then(|text| text.to_str().ok());
    let Some(target) = location.filter(|_| response.status().is_redirection()) else {
        return Ok(None);
    };
    match joined(url, target) {
        Some(url) => Ok(Some(url)),
        None => bail!("a redirect to {target:?} makes no sense"),
    }
}

/// The sentence for redirects without end.
pub fn too_many_redirects() -> String {
    format!("more than {MAX_REDIRECTS} redirects")
}

/// The target of a redirect, as an address of its own.
fn joined(from: &str, target: &str) -> Option<String> {
    if is_url(target) {
        return Some(target.to_string());
    }
    let base: Uri = from.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if let Some(rest) = target.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if target.starts_with('/') {
        return Some(format!("{scheme}://{authority}{target}"));
    }
    let other_scheme = target.split(['/', '?', '#']).next().is_some_and(|text| text.contains(':'));
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    (!other_scheme).then(|| format!("{scheme}://{authority}{folder}/{target}"))
}

/// What a status other than success says: `the server answers 404 (not found)`.
pub fn answer(status: u16) -> String {
    format!("the server answers {}", named(status))
}

fn named(status: u16) -> String {
    let name = ureq::http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    match name {
        Some(name) => format!("{status} ({})", name.to_lowercase()),
        None => status.to_string(),
    }
}

/// The status with which a proxy refused the way to the server: ureq has it in its sentence alone.
pub fn refused_by_proxy(error: &ureq::Error) -> Option<u16> {
    let ureq::Error::ConnectProxyFailed(told) = error else { return None };
    told.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse().ok())
}

/// Whether the host could not even be reached: it has no address, or nobody listens there.
pub fn is_unreached(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable};
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(io) => {
            let kinds = [ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable];
            kinds.contains(&io.kind()) || has_no_address(error)
        }
        _ => has_no_address(error),
    }
}

/// A look-up that fails has no kind of its own in the standard library.
fn has_no_address(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        ureq::Error::Io(error) => error.to_string().starts_with("failed to lookup address"),
        _ => false,
    }
}

/// Why no answer came, or not all of it.
pub fn reason(error: &ureq::Error) -> String {
    if let Some(status) = refused_by_proxy(error) {
        return format!("the proxy answers {}", named(status));
    }
    match error {
        error if has_no_address(error) => "no such host, or no network".to_string(),
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            format!("no connection within {} s", CONNECT.as_secs())
        }
        ureq::Error::Timeout(_) => "the server took too long".to_string(),
        ureq::Error::ConnectionFailed => "the connection failed".to_string(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "not a valid URL".to_string(),
        ureq::Error::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "the connection was refused".to_string(),
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                "the connection was cut".to_string()
            }
            // How TLS tells of certificates that don't hold and of servers that don't speak it.
            std::io::ErrorKind::InvalidData => format!("no secure connection ({error})"),
            _ => error.to_string(),
        },
        other => other.to_string(),
    }
}

/// Bytes for the reader's eye: `64 MiB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that gives each connection the next of these answers; its address.
    fn serve(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap().to_lowercase();
                let expected = format!("\r\nuser-agent: vedm/{}\r\n", env!("CARGO_PKG_VERSION"));
                assert!(request.contains(&expected), "{request}");
                // A client that has read enough closes early.
                let _ = stream.write_all(answer.as_bytes());
                if answer.contains("x-wait") {
                    std::thread::sleep(Duration::from_secs(5));
                }
            }
        });
        address
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}")
    }

    fn refusal(answer: String, limit: u64) -> String {
        let error = fetch(&serve(vec![answer]), limit, Duration::from_secs(2)).unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_body_arrives_whole_after_redirects() {
        let target = serve(vec![answer("200 OK", "Content-Length: 5\r\n", "bytes")]);
        let hops = vec![
            answer("302 Found", "Location: /next\r\nContent-Length: 0\r\n", ""),
            answer("307 X", &format!("Location: {target}/a.png\r\nContent-Length: 0\r\n"), ""),
        ];
        assert_eq!(fetch(&serve(hops), 5, TIMEOUT).unwrap(), b"bytes");
    }

    #[test]
    fn what_goes_wrong_is_told() {
        let table = [
            (answer("404 Gone fishing", "", ""), 9, "the server answers 404 (not found)"),
            (answer("503 X", "", ""), 9, "the server answers 503 (service unavailable)"),
            (answer("200 OK", "Content-Length: 10\r\n", "abc"), 9, "larger than the limit of 9 by"),
            (answer("200 OK", "", "0123456789"), 9, "larger than the limit of 9 bytes"),
            (answer("200 OK", "Content-Length: 8\r\n", "abc"), 9, "the connection was cut"),
            (answer("200 OK", "Content-Length: 8\r\nx-wait: 1\r\n", "a"), 9, "took too long"),
        ];
        for (answer, limit, expected) in table {
            let told = refusal(answer.clone(), limit);
            assert!(told.contains(expected), "{answer}: {told}");
        }
        let circle = answer("302 Found", "Location: /\r\nContent-Length: 0\r\n", "");
        let error = fetch(&serve(vec![circle; 12]), 9, TIMEOUT).unwrap_err().to_string();
        assert_eq!(error, "more than 10 redirects");
    }

    #[test]
    fn redirects_are_joined() {
        let table = [
            ("http://h:1/a/b", "/c?d", Some("http://h:1/c?d")),
            ("http://h:1/a/b?x", "c", Some("http://h:1/a/c")),
            ("https://h/a", "//cdn/c", Some("https://cdn/c")),
            ("https://h/a", "http://cdn/c", Some("http://cdn/c")),
            ("https://h/a", "file:///etc/passwd", None),
        ];
        for (from, target, expected) in table {
            assert_eq!(joined(from, target).as_deref(), expected, "{from} {target}");
        }
    }

    #[test]
    fn proxies_that_refuse_are_told_with_their_status() {
        let refused = ureq::Error::ConnectProxyFailed("proxy server responded 407/407".to_string());
        assert_eq!(reason(&refused), "the proxy answers 407 (proxy authentication required)");
        let silent = ureq::Error::ConnectProxyFailed("proxy server did not respond".to_string());
        assert_eq!(reason(&silent), "CONNECT proxy failed: proxy server did not respond");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        let table = [
            ("cat.jpg", "expected a URL"),
            ("file:///etc/passwd", "expected a URL"),
            ("http://", "not a valid URL"),
            ("http://127.0.0.1:1/a.png", "the connection was refused"),
        ];
        for (url, expected) in table {
            let told = fetch(url, LIMIT, TIMEOUT).unwrap_err().to_string();
            assert!(told.contains(expected), "{url}: {told}");
        }
        assert!(is_url("HTTPS://example.org/é") && !is_url("https") && !is_url("é"));
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!([size(9), size(2048), size(LIMIT)], ["9 bytes", "2 KiB", "64 MiB"]);
    }
}
