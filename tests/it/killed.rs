//! Killed at any moment, and by two processes at once: started again, a run completes the set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Vedm, golden, pictures, tests_folder};

/// Folders of pictures, among them one of several pages and broken ones.
fn set() -> TempDir {
    let set = tempfile::tempdir().unwrap();
    let pictures = pictures("vit-bert");
    for inner in ["a", "b", "b/c"] {
        let folder = set.path().join(inner);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..14 {
            let picture = &pictures[number % pictures.len()];
            std::fs::copy(picture, folder.join(format!("{number:03}.png"))).unwrap();
        }
        let pages = tests_folder("../src/image/testdata/images/pages.tif");
        std::fs::copy(pages, folder.join("pages.tif")).unwrap();
        std::fs::write(folder.join("005-broken.png"), "no picture").unwrap();
    }
    set
}

fn caption(set: &Path) -> Vedm {
    let model = golden("vit-bert");
    let model = model.to_str().unwrap();
    let args = ["caption", ".", "--recursive", "--sidecar", "--batch-size", "2", "--threads", "1"];
    Vedm::new(&[&args[..], &["--max-new-tokens", "6", "--model", model]].concat()).dir(set)
}

/// All texts beside the pictures, by their paths.
fn texts(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(self::texts(&path));
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            texts.insert(path.clone(), std::fs::read_to_string(&path).unwrap());
        }
    }
    texts
}

/// All files that have a temporary name.
fn temporary(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let hidden = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
    let inner = folders.iter().flat_map(|folder| temporary(folder));
    files.into_iter().filter(hidden).chain(inner).collect()
}

/// The same with paths inside the set.
fn inside(set: &Path) -> BTreeMap<PathBuf, String> {
    let inside = |path: PathBuf| path.strip_prefix(set).unwrap().to_path_buf();
    texts(set).into_iter().map(|(path, text)| (inside(path), text)).collect()
}

#[test]
fn a_run_killed_ten_times_completes_the_set() {
    let (undisturbed, disturbed) = (set(), set());
    caption(undisturbed.path()).run().status(2);
    let whole = inside(undisturbed.path());
    assert_eq!(whole.len(), 3 * 15);
    let mut random = fastrand::Rng::with_seed(11);
    let mut halfway = 0;
    for round in 0..10 {
        let before = inside(disturbed.path()).len();
        let mut children: Vec<_> = (0..2).map(|_| caption(disturbed.path()).spawn()).collect();
        let start = Instant::now();
        // By turns at any moment, and while texts are being written.
        let patience = match round % 2 {
            0 => Duration::from_millis(random.u64(..1500)),
            _ => Duration::from_secs(60),
        };
        while start.elapsed() < patience && inside(disturbed.path()).len() == before {
            if children.iter_mut().all(|child| child.try_wait().unwrap().is_some()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(random.u64(..20)));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // What is there is whole.
        let there = inside(disturbed.path());
        for (path, text) in &there {
            assert_eq!(Some(text), whole.get(path), "{path:?}");
        }
        halfway += usize::from(!there.is_empty() && there.len() < whole.len());
    }
    assert!(halfway > 0, "no run was killed halfway");
    let ran = caption(disturbed.path()).run().status(2);
    assert_eq!(inside(disturbed.path()), whole, "{}", ran.stderr);
    // Nothing is done twice.
    let ran = caption(disturbed.path()).run().status(2);
    assert!(ran.stderr.contains("0 ok, 45 skipped, 3 failed"), "{}", ran.stderr);
    assert_eq!(temporary(disturbed.path()), Vec::<PathBuf>::new());
}
