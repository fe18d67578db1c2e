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

#[test]
fn what_python_cached_is_found() {
    let bench = Bench::new(state());
    for line in python_tree() {
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
    let offline = Settings { offline: true, ..bench.settings() };
    let folder = bench.get_with(&offline, "main", Need::Model).unwrap();
    for name in MODEL_FILES {
        let (found, expected) = (folder.join(name), golden(CASE).join(name));
        assert!(std::fs::read(found).unwrap() == std::fs::read(expected).unwrap(), "{name}");
    }
    // Python noted what the commit lacks: nothing is left to ask for.
    let commit = bench.hub.state().commit.clone();
    bench.get_with(&bench.settings(), &commit, Need::Model).unwrap();
    assert_eq!(bench.hub.asked(), []);
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
