//! A Hub of one repository on the loopback, with a storage on a port of its own, both of which can
//! be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// What is served, and how badly.
#[derive(Clone)]
pub struct State {
    /// owner/name
    pub repository: String,
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// The name that the repository had before.
    pub old_name: Option<String>,
    /// There is no /api.
    pub no_api: bool,
    /// The API names the files only.
    pub bare_api: bool,
    /// Status and X-Error-Code of every answer about content.
    pub gate: Option<(u16, Option<&'static str>)>,
    /// Status of every answer of the storage.
    pub storage_gate: Option<u16>,
    /// Bodies end after so many bytes, as often as this.
    pub cuts: (usize, usize),
    /// So many answers with this status and Retry-After.
    pub errors: (usize, u16, Option<u32>),
    /// So many bodies of large files have a wrong byte.
    pub damaged: usize,
    /// Large files are a byte shorter than the API says.
    pub short: bool,
    /// Ranges are not known.
    pub no_ranges: bool,
    /// So many bodies stop after half, the connection staying open.
    pub stalls: usize,
    /// Pause after each 4 KiB of a large file.
    pub pause: Duration,
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
    /// It came to the storage, not to the Hub.
    pub at_storage: bool,
}

pub struct Hub {
    pub address: String,
    state: Arc<Mutex<State>>,
    log: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone)]
struct Door {
    state: Arc<Mutex<State>>,
    log: Arc<Mutex<Vec<Asked>>>,
    storage: String,
    at_storage: bool,
}

impl State {
    pub fn new(repository: &str, files: BTreeMap<String, Vec<u8>>) -> State {
        State {
            repository: repository.to_string(),
            commit: "c0ffee00".repeat(5),
            files,
            old_name: None,
            no_api: false,
            bare_api: false,
            gate: None,
            storage_gate: None,
            cuts: (0, 0),
            errors: (0, 500, None),
            damaged: 0,
            short: false,
            no_ranges: false,
            stalls: 0,
            pause: Duration::ZERO,
        }
    }
}

impl Hub {
    pub fn start(state: State) -> Hub {
        Hub::start_at(state, "127.0.0.1:0")
    }

    pub fn start_at(state: State, address: &str) -> Hub {
        let (state, log) = (Arc::new(Mutex::new(state)), Arc::default());
        let door = |at_storage: bool, storage: String| Door {
            state: Arc::clone(&state),
            log: Arc::clone(&log),
            storage,
            at_storage,
        };
        let storage = open("127.0.0.1:0", door(true, String::new()));
        let address = open(address, door(false, storage));
        Hub { address, state, log }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The requests since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

/// Listens, each connection on a thread of its own; the address.
fn open(address: &str, door: Door) -> String {
    let listener = TcpListener::bind(address).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let door = door.clone();
            // A client that goes away in the middle is no matter of the server's.
            std::thread::spawn(move || drop(door.answer(stream)));
        }
    });
    address
}

/// Large files are known by their SHA-256, small ones by a name of git's length.
pub fn etag(name: &str, content: &[u8]) -> String {
    let digest = format!("{:x}", Sha256::digest(content));
    if is_large(name) { digest } else { digest[..40].to_string() }
}

fn is_large(name: &str) -> bool {
    [".safetensors", ".bin", ".h5", ".msgpack"].iter().any(|end| name.ends_with(end))
}

impl Door {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let Some(asked) = self.read(&stream)? else { return Ok(()) };
        self.log.lock().unwrap().push(asked.clone());
        let state = self.state.lock().unwrap().clone();
        if state.errors.0 > 0 && !self.at_storage {
            self.state.lock().unwrap().errors.0 -= 1;
            let retry = state.errors.2.map_or(String::new(), |s| format!("Retry-After: {s}\r\n"));
            return head(&mut stream, state.errors.1, &format!("{retry}Content-Length: 0\r\n"));
        }
        let path = asked.path.split('?').next().unwrap_or_default().replace("%2F", "/");
        if let Some(old) = &state.old_name
            && path.contains(old.as_str())
        {
            let target = asked.path.replace(old.as_str(), &state.repository);
            let headers = format!("Location: {target}\r\nContent-Length: 0\r\n");
            return head(&mut stream, 307, &headers);
        }
        if let Some(status) = state.storage_gate.filter(|_| self.at_storage) {
            return head(&mut stream, status, "Content-Length: 0\r\n");
        }
        if let Some(digest) = path.strip_prefix("/storage/") {
            let mut files = state.files.iter();
            let found = files.find(|(name, content)| etag(name, content) == digest);
            let (name, content) = found.unwrap();
            return self.content(&mut stream, &asked, &state, name, content, "");
        }
        let api = format!("/api/models/{}/revision/", state.repository);
        let resolve = format!("/{}/resolve/", state.repository);
        if let Some(revision) = path.strip_prefix(&api) {
            return self.api(&mut stream, &state, revision);
        }
        match path.strip_prefix(&resolve).and_then(|rest| rest.split_once('/')) {
            Some((revision, name)) => self.file(&mut stream, &asked, &state, revision, name),
            None if path.starts_with("/api/") && state.no_api => {
                head(&mut stream, 404, "Content-Length: 0\r\n")
            }
            None => head(&mut stream, 404, "X-Error-Code: RepoNotFound\r\nContent-Length: 0\r\n"),
        }
    }

    fn read(&self, stream: &TcpStream) -> std::io::Result<Option<Asked>> {
        let mut lines = BufReader::new(stream).lines();
        let Some(first) = lines.next() else { return Ok(None) };
        let first = first?;
        let mut words = first.split(' ').map(str::to_string);
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
        let (mut range, mut token) = (None, None);
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => range = Some(value.to_string()),
                "authorization" => token = Some(value.to_string()),
                _ => {}
            }
        }
        Ok(Some(Asked { method, path, range, token, at_storage: self.at_storage }))
    }

    fn api(&self, stream: &mut TcpStream, state: &State, revision: &str) -> std::io::Result<()> {
        if state.no_api {
            return head(stream, 404, "Content-Length: 0\r\n");
        }
        if revision != "main" && revision != state.commit {
            return head(stream, 404, "X-Error-Code: RevisionNotFound\r\nContent-Length: 0\r\n");
        }
        let sibling = |(name, content): (&String, &Vec<u8>)| {
            let (etag, size) = (etag(name, content), content.len());
            match (state.bare_api, is_large(name)) {
                (true, _) => serde_json::json!({"rfilename": name}),
                (_, false) => serde_json::json!({"rfilename": name, "blobId": etag, "size": size}),
                (_, true) => serde_json::json!({
                    "rfilename": name, "blobId": "f00d".repeat(10), "size": size,
                    "lfs": {"sha256": etag, "size": size, "pointerSize": 130},
                }),
            }
        };
        let siblings: Vec<_> = state.files.iter().map(sibling).collect();
        let json = serde_json::json!({
            "id": state.repository, "modelId": state.repository, "sha": state.commit,
            "private": false, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
        });
        let text = json.to_string();
        let headers =
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", text.len());
        head(stream, 200, &headers)?;
        stream.write_all(text.as_bytes())
    }

    fn file(
        &self,
        stream: &mut TcpStream,
        asked: &Asked,
        state: &State,
        revision: &str,
        name: &str,
    ) -> std::io::Result<()> {
        let commit = format!("X-Repo-Commit: {}\r\n", state.commit);
        if let Some((status, code)) = state.gate {
            let code = code.map_or(String::new(), |code| format!("X-Error-Code: {code}\r\n"));
            return head(stream, status, &format!("{code}Content-Length: 0\r\n"));
        }
        if revision != "main" && revision != state.commit {
            return head(stream, 404, "X-Error-Code: RevisionNotFound\r\nContent-Length: 0\r\n");
        }
        let Some(content) = state.files.get(name) else {
            let headers = format!("{commit}X-Error-Code: EntryNotFound\r\nContent-Length: 0\r\n");
            return head(stream, 404, &headers);
        };
        let etag = etag(name, content);
        if is_large(name) {
            let headers = format!(
                "{commit}X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\n\
                 Location: {}/storage/{etag}\r\nContent-Length: 0\r\n",
                content.len(),
                self.storage
            );
            return head(stream, 302, &headers);
        }
        let headers = format!("{commit}ETag: \"{etag}\"\r\n");
        self.content(stream, asked, state, name, content, &headers)
    }

    fn content(
        &self,
        stream: &mut TcpStream,
        asked: &Asked,
        state: &State,
        name: &str,
        content: &[u8],
        headers: &str,
    ) -> std::io::Result<()> {
        let mut content = content.to_vec();
        if is_large(name) && state.short {
            content.pop();
        }
        if is_large(name) && state.damaged > 0 {
            self.state.lock().unwrap().damaged -= 1;
            *content.last_mut().unwrap() ^= 1;
        }
        let all = content.len();
        let range = asked.range.as_deref().filter(|_| !state.no_ranges);
        let start = range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next());
        let start: usize = start.map_or(0, |start| start.parse().unwrap());
        if start >= all && start > 0 {
            return head(stream, 416, "Content-Length: 0\r\n");
        }
        let body = &content[start..];
        let length = format!("{headers}Content-Length: {}\r\n", body.len());
        if start > 0 {
            let range = format!("Content-Range: bytes {start}-{}/{all}\r\n", all - 1);
            head(stream, 206, &format!("{length}{range}"))?;
        } else {
            head(stream, 200, &length)?;
        }
        if asked.method == "HEAD" {
            return Ok(());
        }
        if !is_large(name) {
            return stream.write_all(body);
        }
        if state.stalls > 0 {
            self.state.lock().unwrap().stalls -= 1;
            stream.write_all(&body[..body.len() / 2])?;
            std::thread::sleep(Duration::from_secs(20));
            return Ok(());
        }
        let (cuts, at) = state.cuts;
        if cuts > 0 && at < body.len() {
            self.state.lock().unwrap().cuts.0 -= 1;
            return stream.write_all(&body[..at]);
        }
        for part in body.chunks(4096) {
            stream.write_all(part)?;
            std::thread::sleep(state.pause);
        }
        Ok(())
    }
}

/// Status line and headers. Each answer has a connection of its own.
fn head(stream: &mut TcpStream, status: u16, headers: &str) -> std::io::Result<()> {
    stream.write_all(
        format!("HTTP/1.1 {status} As told\r\nConnection: close\r\n{headers}\r\n").as_bytes(),
    )
}
