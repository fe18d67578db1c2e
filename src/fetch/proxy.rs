//! The proxy that the environment names for an address, as curl and Python's `requests` choose it.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, anyhow};
use ureq::Proxy;
use ureq::http::Uri;

use super::reason;

/// The way to a server: straight, or through a proxy.
///
/// ureq's own choice is one proxy for all addresses, whichever variable names it. Through an http proxy it
/// asks for a tunnel (CONNECT), also to addresses with http://, for which others send the whole address
/// instead: a proxy that allows tunnels to port 443 alone refuses those.
pub struct Route {
    proxy: Option<Proxy>,
    /// The proxy without its password, and the variable that names it.
    shown: String,
}

/// Reads a variable; None when it is not set.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Route {
    /// The way to `url` that the environment names: `https_proxy` or `http_proxy` by the address's scheme,
    /// else `all_proxy`; none for the hosts of `no_proxy`. Names in upper case are second to these.
    pub fn to(url: &str) -> Result<Route> {
        Route::read(url, &|name| std::env::var_os(name))
    }

    fn read(url: &str, environment: Environment) -> Result<Route> {
        let straight = Route { proxy: None, shown: String::new() };
        // What is no address is told when it is asked.
        let Ok(uri) = url.parse::<Uri>() else { return Ok(straight) };
        let secure = uri.scheme_str() == Some("https");
        let own = if secure { "https_proxy" } else { "http_proxy" };
        let Some((name, value)) = variable(own, environment).or(variable("all_proxy", environment))
        else {
            return Ok(straight);
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let spared = variable("no_proxy", environment);
        if spared.is_some_and(|(_, hosts)| covers(&hosts, uri.host().unwrap_or_default(), port)) {
            return Ok(straight);
        }
        // The value may hold a password.
        let proxy = Proxy::new(&value).map_err(|_| {
            anyhow!(
                "{name} does not hold the address of a proxy, which looks like http://host:3128"
            )
        })?;
        let scheme = proxy.uri().scheme_str().unwrap_or("http");
        let shown = format!("{scheme}://{}:{} of {name}", proxy.host(), proxy.port());
        Ok(Route { proxy: Some(proxy), shown })
    }

    /// The proxy, for one request.
    pub fn proxy(&self) -> Option<Proxy> {
        self.proxy.clone()
    }

    /// Why no answer came this way, or not all of it.
    pub fn reason(&self, error: &ureq::Error) -> String {
        match self.proxy {
            Some(_) => format!("{} (through the proxy {})", reason(error), self.shown),
            None => reason(error),
        }
    }
}

/// A variable's name and value by its name in lower case, else in upper case. One that is empty is not set,
/// but hides the other.
fn variable(name: &str, environment: Environment) -> Option<(String, String)> {
    let upper = name.to_ascii_uppercase();
    let lower = environment(name).map(|value| (name.to_string(), value));
    let (name, value) = lower.or_else(|| Some((upper.clone(), environment(&upper)?)))?;
    let value = value.to_string_lossy().trim().to_string();
    (!value.is_empty()).then_some((name, value))
}

/// Whether a list of `no_proxy` holds the host: by its name or a domain's, with or without a port, by its
/// address or a network's (`10.0.0.0/8`), or by `*`.
fn covers(hosts: &str, host: &str, port: u16) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let with_port = format!("{host}:{port}");
    let address = host.parse::<IpAddr>();
    let entries = hosts.split(|c: char| c == ',' || c.is_whitespace());
    entries.filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        let name = entry.trim_start_matches("*.").trim_start_matches('.');
        match address {
            _ if entry == "*" => true,
            Ok(address) => is_address(&entry, address, port) || is_within(&entry, address),
            Err(_) => is_below(&host, name) || is_below(&with_port, name),
        }
    })
}

/// Whether `host` is the domain or a name in it.
fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_address(entry: &str, address: IpAddr, port: u16) -> bool {
    entry.trim_matches(['[', ']']).parse() == Ok(address)
        || entry.parse() == Ok(SocketAddr::new(address, port))
}

/// Whether the address lies in a network like `10.0.0.0/8`.
fn is_within(network: &str, address: IpAddr) -> bool {
    let Some((network, bits)) = network.split_once('/') else { return false };
    let (Ok(network), Ok(bits)) = (network.parse(), bits.parse::<u32>()) else { return false };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(url: &str, variables: &[(&str, &str)]) -> Result<Route> {
        Route::read(url, &|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_scheme_of_the_address_chooses() {
        let (http, https) = (("http_proxy", "http://p:1"), ("https_proxy", "http://p:2"));
        // The address, the variables, the way.
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let table: &[Case] = &[
            ("http://h", &[], ""),
            ("http://h", &[http, https], "http://p:1 of http_proxy"),
            ("HTTPS://h", &[http, https], "http://p:2 of https_proxy"),
            ("http://h", &[https], ""),
            ("https://h", &[http], ""),
            ("http://h", &[("HTTP_PROXY", "p:3")], "http://p:3 of HTTP_PROXY"),
            ("http://h", &[("HTTP_PROXY", "p:3"), http], "http://p:1 of http_proxy"),
            ("http://h", &[("HTTP_PROXY", "p:3"), ("http_proxy", "")], ""),
            ("https://h", &[("ALL_PROXY", " socks5h://p ")], "socks5h://p:1080 of ALL_PROXY"),
            ("https://h", &[("ALL_PROXY", "p:4"), https], "http://p:2 of https_proxy"),
            ("http://h", &[("all_proxy", "http://me:secret@p:5/")], "http://p:5 of all_proxy"),
            ("http://h", &[http, ("NO_PROXY", "H")], ""),
            ("no address", &[http], ""),
        ];
        for (url, variables, expected) in table {
            let route = read(url, variables).unwrap();
            assert_eq!(route.shown, *expected, "{url} {variables:?}");
            assert_eq!(route.proxy().is_some(), !expected.is_empty());
        }
        let told = read("http://h", &[("http_proxy", "ftp://me:secret@p")]).err().unwrap();
        assert!(told.to_string().starts_with("http_proxy does not hold the address of a proxy"));
    }

    #[test]
    fn hosts_are_spared_by_name_domain_port_and_network() {
        let table: &[(&str, &str, bool)] = &[
            ("", "example.org", false),
            ("*", "example.org", true),
            ("x, example.org", "example.org", true),
            ("example.org", "EXAMPLE.ORG", true),
            ("example.org", "a.example.org", true),
            (".example.org", "a.example.org", true),
            (".example.org", "example.org", true),
            ("*.example.org", "a.example.org", true),
            ("example.org", "notexample.org", false),
            ("example.org", "example.org.evil.net", false),
            ("localhost", "a.localhost", true),
            ("example.org:8080", "a.example.org", true),
            ("example.org:8081", "example.org", false),
            (",,  ,", "example.org", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1:8080", "127.0.0.1", true),
            ("127.0.0.1:8081 127.0.0.2", "127.0.0.1", false),
            ("0.0.1", "127.0.0.1", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("::1", "[::1]", true),
            ("[::1]:8080", "[::1]", true),
            ("fd00::/8", "[fd12::1]", true),
        ];
        for (hosts, host, expected) in table {
            assert_eq!(covers(hosts, host, 8080), *expected, "{hosts:?} {host}");
        }
    }
}
