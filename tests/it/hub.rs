//! Models from a Hub on the loopback: what is asked for, what is kept, and what goes wrong.

mod faults;
mod program;
mod python;
mod server;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use vedm::hub::{Event, Settings, snapshot};
use vedm::models::Need;

use crate::support::{golden, tests_folder};
use server::{Asked, Hub, State};

const CASE: &str = "vit-gpt2";
const NAME: &str = "tiny/vit-gpt2";

/// Files of the golden case that a model is made of.
const MODEL_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// A Hub, and the cache of one who uses it.
struct Bench {
    hub: Hub,
    home: TempDir,
    /// What happened, without the counts of bytes.
    events: RefCell<Vec<String>>,
}

/// The model's files, and others that repositories have.
fn files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in MODEL_FILES {
        files.insert(name.to_string(), std::fs::read(golden(CASE).join(name)).unwrap());
    }
    for name in ["README.md", ".gitattributes", "pytorch_model.bin", "tf_model.h5", "onnx/m.onnx"] {
        files.insert(name.to_string(), b"not wanted".to_vec());
    }
    files
}

fn state() -> State {
    State::new(NAME, files())
}

impl Bench {
    fn new(state: State) -> Bench {
        let home = tempfile::tempdir().unwrap();
        Bench { hub: Hub::start(state), home, events: RefCell::default() }
    }

    fn cache(&self) -> PathBuf {
        self.home.path().join("hub")
    }

    fn settings(&self) -> Settings {
        Settings {
            endpoint: self.hub.address.clone(),
            cache: self.cache(),
            token: Some(("secret".to_string(), "HF_TOKEN".to_string())),
            offline: false,
            question: Duration::from_secs(10),
            stall: Duration::from_secs(1),
            bars: false,
        }
    }

    fn get_with(&self, settings: &Settings, revision: &str, need: Need) -> Result<PathBuf, String> {
        let tell = |event: Event<'_>| {
            if !matches!(event, Event::Bytes(_)) {
                self.events.borrow_mut().push(format!("{event:?}"));
            }
        };
        snapshot(settings, NAME, revision, &need.files(), &tell)
            .map_err(|error| format!("{error:#}"))
    }

    fn get(&self) -> Result<PathBuf, String> {
        self.get_with(&self.settings(), "main", Need::Model)
    }

    /// Gets the model and compares every file with the golden's.
    #[track_caller]
    fn get_right(&self) -> PathBuf {
        let folder = self.get().unwrap();
        for name in MODEL_FILES {
            let (found, expected) = (folder.join(name), golden(CASE).join(name));
            assert!(
                std::fs::read(found).unwrap() == std::fs::read(expected).unwrap(),
                "{name} differs"
            );
        }
        folder
    }

    fn happened(&self, what: &str) -> usize {
        self.events.borrow().iter().filter(|event| event.starts_with(what)).count()
    }

    fn blob(&self, name: &str) -> PathBuf {
        let etag = server::etag(name, &self.hub.state().files[name]);
        self.cache().join("models--tiny--vit-gpt2/blobs").join(etag)
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.blob(name).with_extension("incomplete")
    }
}

/// The names of the files whose content was asked for at the Hub, sorted.
fn contents(asked: &[Asked]) -> Vec<&str> {
    let resolved = asked.iter().filter(|asked| asked.method == "GET" && !asked.at_storage);
    let mut names: Vec<&str> = resolved
        .filter_map(|asked| asked.path.split_once("/resolve/")?.1.split_once('/'))
        .map(|(_, name)| name)
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn only_what_is_needed_is_downloaded() {
    let bench = Bench::new(state());
    bench.get_right();
    let asked = bench.hub.asked();
    assert_eq!(contents(&asked), MODEL_FILES);
    // One question about the repository, a request a file, and one more for the redirected weights.
    assert_eq!(asked.len(), 1 + MODEL_FILES.len() + 1, "{asked:#?}");

    bench.get_right();
    let asked = bench.hub.asked();
    assert_eq!(asked.len(), 1, "the second time only the commit is asked for: {asked:#?}");

    let commit = bench.hub.state().commit.clone();
    bench.get_with(&bench.settings(), &commit, Need::Model).unwrap();
    assert_eq!(bench.hub.asked(), [], "a commit that is here needs no question");
}

#[test]
fn other_needs_bring_other_files() {
    let table = [
        (
            Need::Tokenizer,
            &["config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
                [..],
        ),
        (Need::ImageProcessor, &["preprocessor_config.json"][..]),
    ];
    for (need, expected) in table {
        let bench = Bench::new(state());
        bench.get_with(&bench.settings(), "main", need).unwrap();
        assert_eq!(contents(&bench.hub.asked()), expected);
        bench.get_with(&Settings { offline: true, ..bench.settings() }, "main", need).unwrap();
        // What is here of it is not asked for again.
        bench.get_right();
        let asked = bench.hub.asked();
        assert!(expected.iter().all(|name| !contents(&asked).contains(name)), "{asked:#?}");
    }
}

#[test]
fn one_set_of_weights_is_chosen() {
    let shards = br#"{"weight_map":{"a":"s-1.safetensors","b":"s-2.safetensors"}}"#;
    let table: [(&[&str], &[&str]); 5] = [
        (&["model.safetensors", "model.safetensors.index.json"], &["model.safetensors"]),
        (
            &["model.safetensors.index.json", "pytorch_model.bin"],
            &["model.safetensors.index.json", "s-1.safetensors", "s-2.safetensors"],
        ),
        (&["pytorch_model.bin", "tf_model.h5"], &["pytorch_model.bin"]),
        (&["tf_model.h5", "flax_model.msgpack"], &["tf_model.h5"]),
        (&["flax_model.msgpack"], &["flax_model.msgpack"]),
    ];
    for (no_api, bare_api) in [(false, false), (true, false), (false, true)] {
        for (there, expected) in table {
            let mut state = State { no_api, bare_api, ..state() };
            state.files.retain(|name, _| name == "config.json");
            for name in there.iter().chain(&["s-1.safetensors", "s-2.safetensors"]) {
                // White space after it: contents that differ, and all of them an index.
                let content = [&shards[..], &vec![b' '; state.files.len()]].concat();
                state.files.insert(name.to_string(), content);
            }
            let bench = Bench::new(state);
            bench.get().unwrap();
            let asked = bench.hub.asked();
            assert_eq!(contents(&asked)[1..], *expected, "no_api {no_api}: {asked:#?}");
            bench
                .get_with(&Settings { offline: true, ..bench.settings() }, "main", Need::Model)
                .unwrap();
        }
    }
}

#[test]
fn what_a_repository_lacks_is_named() {
    let table = [
        ("config.json", "has no config.json"),
        ("model.safetensors", "holds no weights: looked for model.safetensors, "),
    ];
    for (name, expected) in table {
        let mut state = state();
        state.files.retain(|other, _| {
            other != name && other != "pytorch_model.bin" && other != "tf_model.h5"
        });
        let told = Bench::new(state).get().unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
    let mut state = state();
    let index = br#"{"weight_map":{"a":"s-1.safetensors"}}"#.to_vec();
    state.files.remove("model.safetensors");
    state.files.insert("model.safetensors.index.json".to_string(), index);
    let told = Bench::new(state).get().unwrap_err();
    assert!(
        told.contains("has no file \"s-1.safetensors\", which its model.safetensors.index.json")
    );
    let bench = Bench::new(self::state());
    let told = bench.get_with(&bench.settings(), "v9", Need::Model).unwrap_err();
    assert_eq!(told, "\"tiny/vit-gpt2\" has no revision \"v9\"");
}

#[test]
fn a_new_commit_is_noticed_and_shares_what_did_not_change() {
    let bench = Bench::new(state());
    let old = bench.get_right();
    bench.hub.asked();
    {
        let mut state = bench.hub.state();
        state.commit = "beef0000".repeat(5);
        state.files.insert("generation_config.json".to_string(), b"{}".to_vec());
    }
    let new = bench.get().unwrap();
    assert_ne!(old, new);
    assert_eq!(contents(&bench.hub.asked()), ["generation_config.json"]);
    assert_eq!(std::fs::read(new.join("generation_config.json")).unwrap(), b"{}");
    assert_eq!(
        std::fs::canonicalize(old.join("model.safetensors")).unwrap(),
        std::fs::canonicalize(new.join("model.safetensors")).unwrap()
    );
}

/// Every path in a cache: links with their targets, small texts with their content.
fn tree(cache: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, lines: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let shown = path.strip_prefix(root).unwrap().to_str().unwrap();
            if path.is_symlink() {
                lines.push(format!("{shown} -> {}", path.read_link().unwrap().display()));
            } else if path.is_dir() {
                walk(root, &path, lines);
            } else if shown.contains("/refs/") {
                lines.push(format!("{shown} = {}", std::fs::read_to_string(&path).unwrap()));
            } else {
                lines.push(shown.to_string());
            }
        }
    }
    let mut lines = Vec::new();
    walk(cache, cache, &mut lines);
    lines.sort();
    lines
}

fn fixture(name: &str) -> PathBuf {
    tests_folder("fixtures").join("hub").join(name)
}
