//! What the environment says about the Hub, in the words of Python's `huggingface_hub`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the Hub is, where its files are kept, and who asks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the Hub, without a slash at its end.
    pub endpoint: String,
    /// Folder of the cache.
    pub cache: PathBuf,
    /// The token, and where it was found.
    pub token: Option<(String, String)>,
    /// Nothing is asked of the network.
    pub offline: bool,
    /// Time for one question about a repository or a file.
    pub question: Duration,
    /// How long a download may stand still.
    pub stall: Duration,
    /// Progress may be drawn.
    pub bars: bool,
}

/// Reads a variable; None when it is not set or empty.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Settings {
    /// The settings of this process. `offline` is the user's own word for it.
    pub fn from_env(offline: bool) -> Settings {
        let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Settings::read(offline, &environment)
    }

    fn read(offline: bool, environment: Environment) -> Settings {
        let text = |name: &str| environment(name).and_then(|value| value.into_string().ok());
        let seconds = |name: &str, default: u64| {
            let given = text(name).and_then(|value| value.trim().parse().ok());
            Duration::from_secs(given.filter(|seconds| *seconds > 0).unwrap_or(default))
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        let off = environment("HF_HUB_OFFLINE").or_else(|| environment("TRANSFORMERS_OFFLINE"));
        let home = home(environment);
        Settings {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: cache(environment, &home),
            token: token(environment, &home),
            offline: offline || off.is_some_and(is_true),
            question: seconds("HF_HUB_ETAG_TIMEOUT", 10),
            stall: seconds("HF_HUB_DOWNLOAD_TIMEOUT", 20),
            bars: !environment("HF_HUB_DISABLE_PROGRESS_BARS").is_some_and(is_true),
        }
    }
}

fn is_true(value: OsString) -> bool {
    value
        .to_str()
        .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&&*value.to_ascii_uppercase()))
}

/// The user's folder: HOME, and USERPROFILE on Windows.
fn user(environment: Environment) -> PathBuf {
    let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    environment(name).map(PathBuf::from).unwrap_or_default()
}

/// `~` at the beginning of a path is the user's folder.
fn expanded(path: OsString, environment: Environment) -> PathBuf {
    let path = PathBuf::from(path);
    match path.strip_prefix("~") {
        Ok(rest) => user(environment).join(rest),
        Err(_) => path,
    }
}

fn home(environment: Environment) -> PathBuf {
    if let Some(home) = environment("HF_HOME") {
        return expanded(home, environment);
    }
    let cache = match environment("XDG_CACHE_HOME") {
        Some(cache) => expanded(cache, environment),
        None => user(environment).join(".cache"),
    };
    cache.join("huggingface")
}

fn cache(environment: Environment, home: &Path) -> PathBuf {
    match environment("HF_HUB_CACHE").or_else(|| environment("HUGGINGFACE_HUB_CACHE")) {
        Some(cache) => expanded(cache, environment),
        None => home.join("hub"),
    }
}

/// A variable's token beats a file's; line ends and blanks that came with it are none of it.
///
/// hf-hub looks for the file beside its cache only, which is elsewhere once HF_HUB_CACHE or HF_TOKEN_PATH is set.
fn token(environment: Environment, home: &Path) -> Option<(String, String)> {
    let clean = |token: &str| {
        let token = token.replace(['\r', '\n'], "");
        let token = token.trim();
        (!token.is_empty()).then(|| token.to_string())
    };
    if environment("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(is_true) {
        return None;
    }
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        // What is no text is no token: it is refused where it would be sent.
        let value = environment(name).unwrap_or_default();
        if let Some(token) = clean(&value.to_string_lossy()) {
            return Some((token, name.to_string()));
        }
    }
    let path = match environment("HF_TOKEN_PATH") {
        Some(path) => expanded(path, environment),
        None => home.join("token"),
    };
    let token = clean(&String::from_utf8_lossy(&std::fs::read(&path).ok()?))?;
    Some((token, path.display().to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Settings {
        let environment = |name: &str| {
            let mut all = variables.iter().chain(&[("HOME", "/h"), ("USERPROFILE", "/h")]);
            all.find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        Settings::read(false, &environment)
    }

    #[test]
    fn the_cache_lies_where_python_puts_it() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[], "/h/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")], "/f/hub"),
            (&[("HF_HOME", "~/f")], "/h/f/hub"),
            (&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "~/new")], "/h/new"),
        ];
        for (variables, expected) in table {
            assert_eq!(read(variables).cache, Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn tokens_come_from_the_environment_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "from-file\r\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let file = file.to_str().unwrap();
        let told = |variables: &[(&str, &str)]| read(variables).token.map(|(token, _)| token);
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[("HF_HOME", home)]).unwrap(), "from-file");
        assert_eq!(told(&[("HF_TOKEN_PATH", file)]).unwrap(), "from-file");
        assert_eq!(told(&[("HF_HOME", home), ("HF_TOKEN", " t\n")]).unwrap(), "t");
        assert_eq!(told(&[("HF_TOKEN", "to\r\nken\n")]).unwrap(), "token");
        assert_eq!(told(&[("HUGGING_FACE_HUB_TOKEN", "old")]).unwrap(), "old");
        assert_eq!(told(&[("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    }

    #[test]
    fn the_rest_of_the_environment() {
        let settings = read(&[]);
        assert_eq!(settings.endpoint, "https://huggingface.co");
        assert!(!settings.offline);
        assert_eq!((settings.question.as_secs(), settings.stall.as_secs()), (10, 20));
        let settings = read(&[
            ("HF_ENDPOINT", "http://127.0.0.1:80/"),
            ("HF_HUB_OFFLINE", "yes"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "3"),
            ("HF_HUB_ETAG_TIMEOUT", "x"),
        ]);
        assert_eq!(settings.endpoint, "http://127.0.0.1:80");
        assert!(settings.offline);
        assert_eq!((settings.question.as_secs(), settings.stall.as_secs()), (10, 3));
        assert!(read(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!read(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
    }
}
