//! Pictures made to be difficult, and broken ones: each gives a text or a sentence.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use vedm::image::{DecodeOptions, visit_pages};

use crate::support::{Vedm, golden, snapshot, tests_folder};

/// A page as Pillow sees it. Written by tests/fixtures/odd/make.py.
#[derive(Deserialize)]
struct Page {
    size: [usize; 2],
    /// FNV-1a of the pixels; none where decoders have a say in them.
    hash: Option<String>,
    /// Some of the pixels' bytes, by their places.
    samples: Vec<[usize; 2]>,
}

fn folder() -> PathBuf {
    tests_folder("fixtures/odd/pictures")
}

fn expected() -> BTreeMap<String, Vec<Page>> {
    let text = std::fs::read_to_string(tests_folder("fixtures/odd/expected.json")).unwrap();
    let pages: BTreeMap<String, Vec<Page>> = serde_json::from_str(&text).unwrap();
    assert!(pages.len() > 100);
    pages
}

fn fnv(bytes: &[u8]) -> String {
    let value = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |value, byte| {
        (value ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{value:016x}")
}

#[test]
fn every_odd_picture_gives_a_text_or_a_sentence() {
    let model = golden("vit-bert");
    let args = ["ocr", ".", "--format", "jsonl", "--max-new-tokens", "8", "--model"];
    let args = [&args[..], &[model.to_str().unwrap()]].concat();
    let start = Instant::now();
    let ran = Vedm::new(&args).dir(&folder()).run().status(2);
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in ran.stdout.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let image = record["image"].as_str().unwrap().trim_start_matches("./").to_string();
        let error = record.get("error").map(|error| error.as_str().unwrap().to_string());
        assert!(error.is_some() != record["text"].is_string(), "{line}");
        told.entry(image).or_default().push(error.unwrap_or_else(|| "read".to_string()));
    }
    // Files without the name or the marks of a picture are passed over in a directory.
    let hidden: Vec<String> =
        expected().into_keys().filter(|name| !told.contains_key(name)).collect();
    assert!(hidden.iter().all(|name| name.ends_with(".tga")), "{hidden:?}");
    assert!(told.len() > 90);
    let mut text = String::new();
    for (name, outcomes) in told {
        writeln!(text, "{name}: {}", outcomes.join(" | ")).unwrap();
    }
    snapshot(&tests_folder("fixtures/odd/told.txt"), &text);
    for word in ["panicked", "unwrap", "RUST_BACKTRACE", "internal error"] {
        assert!(!ran.stderr.contains(word), "{}", ran.stderr);
    }
}

#[test]
fn odd_pictures_look_as_in_pillow() {
    let (mut same, mut near) = (0, 0);
    for (name, pages) in expected() {
        let bytes = std::fs::read(folder().join(&name)).unwrap();
        let mut number = 0;
        visit_pages(&bytes, None, &DecodeOptions::default(), &mut |_, decoded| {
            let page = pages.get(number);
            number += 1;
            // What one of the two does not read is told by the test above.
            let (Ok(decoded), Some(page)) = (decoded, page) else { return true };
            let image = decoded.image;
            assert_eq!([image.width, image.height], page.size, "{name} page {number}");
            if let Some(hash) = &page.hash {
                assert_eq!(&fnv(&image.data), hash, "{name} page {number}");
                same += 1;
            } else {
                let far = |[at, value]: &[usize; 2]| usize::from(image.data[*at]).abs_diff(*value);
                let far = page.samples.iter().map(far).max().unwrap();
                assert!(far <= 4, "{name} page {number}: off by {far}");
                near += 1;
            }
            true
        });
    }
    assert!(same >= 50 && near >= 12, "{same} compared by all pixels, {near} by some");
}
