//! The cache is Python's too: `python_tree.txt` lists what `huggingface_hub` 0.36.2 made of this Hub
//! (how: tests/fixtures/hub/README.md).

use vedm::hub::Settings;
use vedm::models::Need;

use super::server::{Hub, State, etag};
use super::{Bench, CASE, MODEL_FILES, NAME, files, fixture, state, tree};
use crate::support::{golden, pictures};

fn python_tree() -> Vec<String> {
    let text = std::fs::read_to_string(fixture("python_tree.txt")).unwrap();
    text.lines().map(str::to_string).collect()
}

#[test]
fn the_cache_is_as_python_makes_it() {
    for no_api in [false, true] {
        let bench = Bench::new(State { no_api, ..state() });
        bench.get_right();
        assert_eq!(tree(&bench.cache()), python_tree());
    }
}

/// Makes those files of Python's cache that `kept` takes.
fn lay(bench: &Bench, kept: impl Fn(&str) -> bool) {
    for line in python_tree().into_iter().filter(|line| kept(line)) {
        let (path, target) = line.split_once(" -> ").unwrap_or((&line, ""));
        let (path, text) = path.split_once(" = ").unwrap_or((path, ""));
        let path = bench.cache().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if target.is_empty() {
            let name = path.file_name().unwrap().to_str().unwrap();
            let blob = files().into_iter().find(|(file, content)| etag(file, content) == name);
            let blob = blob.filter(|_| path.parent().unwrap().ends_with("blobs"));
            std::fs::write(&path, blob.map_or(text.as_bytes().to_vec(), |(_, blob)| blob)).unwrap();
        } else {
            #[cfg(unix)]
            std::os::unix::fs::symlink(target, &path).unwrap();
            #[cfg(windows)]
            std::os::windows::fs::symlink_file(target, &path).unwrap();
        }
    }
}

#[test]
fn what_python_cached_is_found() {
    let bench = Bench::new(state());
    lay(&bench, |_| true);
    let offline = Settings { offline: true, ..bench.settings() };
    let folder = bench.get_with(&offline, "main", Need::Model).unwrap();
    for name in MODEL_FILES {
        let (found, expected) = (folder.join(name), golden(CASE).join(name));
        assert!(std::fs::read(found).unwrap() == std::fs::read(expected).unwrap(), "{name}");
    }
    // Python noted what the commit lacks: nothing is left to ask for, or to be told.
    let commit = bench.hub.state().commit.clone();
    bench.get_with(&bench.settings(), &commit, Need::Model).unwrap();
    assert_eq!(bench.hub.asked(), []);
    assert_eq!(*bench.events.borrow(), [""; 0]);
}

#[test]
fn a_copy_that_may_lack_what_the_repository_has_is_refused_or_told() {
    let no_notes = |line: &str| !line.contains("/.no_exist/");
    // Left out of the copy, the need, and the first file that is missing then.
    let table: [(&[&str], Need, Option<&str>); 9] = [
        (&["preprocessor_config.json"], Need::Model, Some("preprocessor_config.json")),
        (&["preprocessor_config.json"], Need::ImageProcessor, Some("preprocessor_config.json")),
        (&["preprocessor_config.json"], Need::Tokenizer, None),
        (&["tokenizer.json"], Need::Model, Some("tokenizer.json")),
        (&["tokenizer.json"], Need::Tokenizer, Some("tokenizer.json")),
        (&["tokenizer.json", "tokenizer_config.json"], Need::ImageProcessor, None),
        (&["model.safetensors"], Need::Model, Some("model.safetensors")),
        // What other files stand in for, and what changes nothing.
        (&["special_tokens_map.json"], Need::Model, None),
        (&[], Need::Model, None),
    ];
    for (left_out, need, missing) in table {
        let bench = Bench::new(state());
        let out = |line: &str| left_out.iter().any(|name| line.contains(&format!("/{name} -> ")));
        lay(&bench, |line| no_notes(line) && !out(line));
        let offline = Settings { offline: true, ..bench.settings() };
        let away = Settings { endpoint: "http://127.0.0.1:1".to_string(), ..bench.settings() };
        let told = bench.get_with(&offline, "main", need).map_err(|told| (told, "--offline"));
        let away = bench.get_with(&away, "main", need).map_err(|told| (told, "be reached"));
        for got in [told, away] {
            match (got, missing) {
                (Ok(_), None) => {}
                (Err((told, way_out)), Some(name)) => {
                    let start = format!("{name:?} of \"tiny/vit-gpt2\" (revision \"main\") is not");
                    assert!(told.starts_with(&start) && told.contains(way_out), "{told}");
                }
                (got, _) => panic!("without {left_out:?}, for {need:?}: {got:?}"),
            }
        }
        assert_eq!(bench.happened("Unknown"), 0);
    }
}

#[test]
fn a_file_that_may_change_results_is_told() {
    let bench = Bench::new(state());
    let out = ["generation_config.json", "tokenizer_config.json"];
    let gone = |line: &str| out.iter().any(|name| line.contains(&format!("/{name} -> ")));
    lay(&bench, |line| !gone(line));
    let offline = Settings { offline: true, ..bench.settings() };
    bench.get_with(&offline, "main", Need::Model).unwrap();
    for name in out {
        let event = format!("Unknown {{ repository: {NAME:?}, name: {name:?}");
        assert_eq!(bench.happened(&event), 1, "{:?}", bench.events);
    }
    // Once the Hub was asked the copy is whole.
    bench.get_right();
    bench.get_with(&offline, "main", Need::Model).unwrap();
    assert_eq!(bench.happened("Unknown"), 2);
}

#[test]
fn what_a_commit_is_known_to_lack_is_not_missing() {
    let mut state = state();
    state.files.retain(|name, _| !name.contains("processor") && !name.contains("token"));
    let bench = Bench::new(state);
    bench.get().unwrap();
    let offline = Settings { offline: true, ..bench.settings() };
    for need in [Need::Model, Need::Tokenizer, Need::ImageProcessor] {
        bench.get_with(&offline, "main", need).unwrap();
    }
    assert_eq!(bench.happened("Unknown"), 0);
}

#[test]
fn the_half_that_is_here_names_the_other() {
    let mut state = state();
    state.files.remove("tokenizer.json");
    for name in ["vocab.json", "merges.txt"] {
        state.files.insert(name.to_string(), b"{}".to_vec());
    }
    let bench = Bench::new(state);
    let folder = bench.get().unwrap();
    // As after allow_patterns=["*.json"], which notes nothing about what it left out.
    std::fs::remove_dir_all(bench.cache().join("models--tiny--vit-gpt2/.no_exist")).unwrap();
    std::fs::remove_file(folder.join("merges.txt")).unwrap();
    let offline = Settings { offline: true, ..bench.settings() };
    let told = bench.get_with(&offline, "main", Need::Model).unwrap_err();
    assert!(told.starts_with("\"merges.txt\" of \"tiny/vit-gpt2\""), "{told}");
}

/// For other clients, by hand: `VEDM_TEST_HUB=127.0.0.1:8765 cargo test --test it serve -- --ignored`.
#[test]
#[ignore = "serves until it is ended"]
fn serve() {
    let address = std::env::var("VEDM_TEST_HUB").unwrap();
    let hub = Hub::start_at(state(), &address);
    println!("{NAME} at {}, for example {:?}", hub.address, pictures(CASE)[0]);
    loop {
        std::thread::park();
    }
}
