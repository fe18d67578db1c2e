//! Every reader of files with sound files, with the corpus of what once did harm, and with mutations of
//! both: a few thousand in all, the same in every run. `tests/fuzz` holds the fuzz targets themselves.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{pictures, tests_folder};

#[path = "../fuzz/readers.rs"]
mod readers;

use readers::{READERS, feed};

/// Mutations made of the seeds of each reader, unless VEDM_MUTATIONS says how many; then other ones.
const MUTATIONS: usize = 400;

/// No file of a few kilobytes takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// Sound files to begin with: those that other tests read.
fn seeds(reader: &str) -> Vec<Vec<u8>> {
    let fixture = |path: &str| vec![tests_folder("fixtures").join(path)];
    let golden = |name: &str| {
        ["vit-bert", "donut-swin-mbart", "deit-gpt2-oblong", "vit-trocr-vocab-merges"]
            .map(|case| tests_folder("golden").join(case).join(name))
            .to_vec()
    };
    let paths = match reader {
        "safetensors" => fixture("checkpoints/safetensors/model.safetensors"),
        "pickle" => ["bin-dict", "bin-legacy", "bin-protocol-4"]
            .map(|name| tests_folder(&format!("fixtures/checkpoints/{name}/pytorch_model.bin")))
            .to_vec(),
        "h5" => ["h5", "h5-latest", "h5-layouts"]
            .map(|name| tests_folder(&format!("fixtures/checkpoints/{name}/tf_model.h5")))
            .to_vec(),
        "msgpack" => fixture("checkpoints/flax/flax_model.msgpack"),
        "index" => fixture("checkpoints/bin-sharded/pytorch_model.bin.index.json"),
        "config" => golden("config.json"),
        "preprocessor" => golden("preprocessor_config.json"),
        "tokenizer_json" => ["bert", "donut", "gpt2"]
            .map(|name| tests_folder(&format!("fixtures/tokenizers/files/{name}-tokenizer.json")))
            .to_vec(),
        "vocab_txt" => fixture("tokenizers/files/uncased.txt"),
        "vocab_json" => fixture("tokenizers/files/gpt2-vocab.json"),
        "merges" => fixture("tokenizers/files/gpt2-merges.txt"),
        "sentencepiece" => {
            ["fairseq.model", "fairseq-bpe.model", "charsmap.model", "pegasus.model"]
                .map(|name| tests_folder(&format!("fixtures/tokenizers/files/{name}")))
                .to_vec()
        }
        "tokenizer_config" => golden("tokenizer_config.json"),
        "image" => {
            let mut paths = files(&tests_folder("fixtures/odd/pictures"));
            paths.retain(|path| path.metadata().unwrap().len() < 3000);
            paths.extend(files(&tests_folder("../src/image/testdata/images")));
            paths
        }
        "archive" => return archives(),
        _ => panic!("{reader} has no seeds"),
    };
    let read = |path: &PathBuf| std::fs::read(path).ok();
    let mut seeds: Vec<Vec<u8>> = paths.iter().filter_map(read).collect();
    assert!(!seeds.is_empty(), "{reader}: none of {paths:?} is there");
    seeds.extend(corpus(reader));
    seeds
}

/// What once did harm.
fn corpus(reader: &str) -> Vec<Vec<u8>> {
    let folder = tests_folder("fuzz/found").join(reader);
    files(&folder).iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A tar, a tar.gz and a zip of a picture and a text.
fn archives() -> Vec<Vec<u8>> {
    use std::io::Write;

    let picture = std::fs::read(&pictures("vit-bert")[0]).unwrap();
    let files = [("a/one.png", picture.as_slice()), ("a/one.txt", b"a caption")];
    let mut tar = tar::Builder::new(Vec::new());
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&tar).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    vec![gzip.finish().unwrap(), tar, zip]
}

/// Changes a file the way damage and malice do.
fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    const NUMBERS: [u32; 8] = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF];
    for _ in 0..random.usize(1..4) {
        if bytes.is_empty() {
            return;
        }
        // Structure lies at the start and the end of most formats.
        let at = match random.u8(0..4) {
            0 => random.usize(..bytes.len().min(128)),
            1 => bytes.len() - 1 - random.usize(..bytes.len().min(256)),
            _ => random.usize(..bytes.len()),
        };
        match random.u8(0..8) {
            0 => bytes[at] ^= 1 << random.u8(0..8),
            1 => bytes[at] = random.u8(..),
            2 => {
                let number = NUMBERS[random.usize(..NUMBERS.len())];
                let number =
                    if random.bool() { number.to_le_bytes() } else { number.to_be_bytes() };
                for (byte, new) in bytes[at..].iter_mut().zip(number) {
                    *byte = new;
                }
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + random.usize(1..64)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + random.usize(1..64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
            // Digits become other digits, and longer: numbers in JSON and in the headers of tar.
            6 if bytes[at].is_ascii_digit() => bytes[at] = b'0' + random.u8(0..10),
            7 if bytes[at].is_ascii_digit() => {
                bytes.splice(at..at, b"99999999".iter().copied());
            }
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
}

/// Reads the bytes; whether they were accepted.
fn survive(name: &str, bytes: &[u8]) -> bool {
    let start = Instant::now();
    let outcome = catch_unwind(|| feed(name, bytes));
    let took = start.elapsed();
    let fails = outcome.is_err() || took > PATIENCE;
    if fails {
        let path = std::env::temp_dir().join(format!("vedm-fuzz-{name}"));
        std::fs::write(&path, bytes).unwrap();
        panic!("{name} does not survive {path:?} ({took:?})");
    }
    outcome.unwrap()
}

fn torment(name: &str) {
    let seeds = seeds(name);
    let sound = seeds.iter().filter(|seed| survive(name, seed)).count();
    // An index can't be sound without its parts.
    assert!(sound > 0 || name == "index", "{name} reads none of {} seeds", seeds.len());
    let asked = std::env::var("VEDM_MUTATIONS").ok().map(|number| number.parse().unwrap());
    let mut random =
        asked.map_or_else(|| fastrand::Rng::with_seed(7), |_: usize| fastrand::Rng::new());
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..asked.unwrap_or(MUTATIONS) {
        let mut bytes = seeds[round % seeds.len()].clone();
        mutate(&mut bytes, &mut random);
        if survive(name, &bytes) {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    assert!(refused > 0 && (accepted > 0 || name == "index"), "{name}: {accepted} accepted");
}

macro_rules! readers {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            torment(stringify!($name));
        })*

        #[test]
        fn every_reader_is_tormented() {
            let names: Vec<&str> = READERS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

readers! {
    safetensors pickle h5 msgpack index config preprocessor tokenizer_json vocab_txt vocab_json merges
    sentencepiece tokenizer_config image archive
}

#[test]
fn every_reader_has_a_fuzz_target() {
    for (name, _) in READERS {
        let target = tests_folder("fuzz/fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(&target).unwrap();
        assert!(text.contains(&format!("\"{name}\"")), "{target:?}");
    }
}
