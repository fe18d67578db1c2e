//! The readers of files that others wrote, each fed with bytes. Whatever the bytes are, a reader ends with
//! what it read or with an error: it never panics, and holds no more than the bytes can stand for.
//!
//! The fuzz targets call these, and so does `tests/it/fuzz.rs` with the corpus and mutations of it.

use std::io::Write;
use std::path::Path;

use tempfile::TempDir;
use vedm::archive;
use vedm::checkpoint::Checkpoint;
use vedm::image::{self, DecodeOptions, ImageProcessor, Rgb8};
use vedm::text::Tokenizer;
use vedm::ved::config::VisionEncoderDecoderConfig;

/// A reader by the name of its target. True if the bytes were what it reads.
pub type Reader = fn(&[u8]) -> bool;

pub const READERS: &[(&str, Reader)] = &[
    ("safetensors", |bytes| checkpoint("model.safetensors", bytes)),
    ("pickle", |bytes| checkpoint("pytorch_model.bin", bytes)),
    ("h5", |bytes| checkpoint("tf_model.h5", bytes)),
    ("msgpack", |bytes| checkpoint("flax_model.msgpack", bytes)),
    ("index", index),
    ("config", config),
    ("preprocessor", preprocessor),
    ("tokenizer_json", |bytes| tokenizer("tokenizer.json", bytes, "PreTrainedTokenizerFast")),
    ("vocab_txt", |bytes| tokenizer("vocab.txt", bytes, "BertTokenizer")),
    ("vocab_json", |bytes| tokenizer("vocab.json", bytes, "GPT2Tokenizer")),
    ("merges", |bytes| tokenizer("merges.txt", bytes, "GPT2Tokenizer")),
    ("sentencepiece", |bytes| tokenizer("sentencepiece.bpe.model", bytes, "XLMRobertaTokenizer")),
    ("tokenizer_config", tokenizer_config),
    ("image", picture),
    ("archive", members),
];

/// Feeds the reader of that name.
pub fn feed(name: &str, bytes: &[u8]) -> bool {
    let reader = READERS.iter().find(|(reader, _)| *reader == name);
    reader.is_some_and(|(_, read)| read(bytes))
}

/// The folder that holds the files under test; one at a time.
fn folder(name: &str, bytes: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    std::fs::write(folder.path().join(name), bytes).expect("a temporary file");
    folder
}

fn checkpoint(name: &str, bytes: &[u8]) -> bool {
    let folder = folder(name, bytes);
    let Ok(checkpoint) = Checkpoint::open_file(&folder.path().join(name)) else { return false };
    for key in checkpoint.keys() {
        let size = checkpoint.info(key).map_or(0, |info| info.bytes());
        assert!(size <= bytes.len(), "{key:?} of {size} bytes in a file of {}", bytes.len());
        drop(checkpoint.tensor(key));
    }
    true
}

/// The index of a checkpoint in parts, none of which is there.
fn index(bytes: &[u8]) -> bool {
    let name = "model.safetensors.index.json";
    let folder = folder(name, bytes);
    Checkpoint::open_file(&folder.path().join(name)).is_ok()
}

fn config(bytes: &[u8]) -> bool {
    let Ok(json) = serde_json::from_slice(bytes) else { return false };
    let Ok(config) = VisionEncoderDecoderConfig::from_json(json) else { return false };
    drop(config.full_decoder());
    config.id("decoder_start_token_id");
    config.cross_attention_hidden_size();
    VisionEncoderDecoderConfig::from_json(config.to_json()).is_ok()
}

fn preprocessor(bytes: &[u8]) -> bool {
    let Ok(json) = serde_json::from_slice(bytes) else { return false };
    let Ok(processor) = ImageProcessor::from_json(&json, Some("vit")) else { return false };
    // What is written is read again.
    ImageProcessor::from_json(&processor.to_json(), None).expect("its own words");
    let small = processor.output_size().is_none_or(|(height, width)| height * width < 1 << 20);
    if small {
        let picture = Rgb8 { width: 5, height: 4, data: (0..60).collect() };
        drop(processor.process(&picture));
    }
    true
}

/// A tokenizer of which one file is damaged, and the others are those of the fixtures.
fn tokenizer(name: &str, bytes: &[u8], class: &str) -> bool {
    let folder = folder(name, bytes);
    let others: &[(&str, &str)] = match name {
        "vocab.json" => &[("merges.txt", "gpt2-merges.txt")],
        "merges.txt" => &[("vocab.json", "gpt2-vocab.json")],
        _ => &[],
    };
    for (other, fixture) in others {
        let from = fixtures().join("tokenizers/files").join(fixture);
        std::fs::copy(from, folder.path().join(other)).expect("a fixture");
    }
    let config = format!("{{\"tokenizer_class\": {class:?}}}");
    std::fs::write(folder.path().join("tokenizer_config.json"), config).expect("a temporary file");
    use_tokenizer(folder.path())
}

/// The words about a tokenizer whose other files are sound.
fn tokenizer_config(bytes: &[u8]) -> bool {
    let folder = folder("tokenizer_config.json", bytes);
    let files = [("vocab.json", "gpt2-vocab.json"), ("merges.txt", "gpt2-merges.txt")];
    for (name, fixture) in files {
        let from = fixtures().join("tokenizers/files").join(fixture);
        std::fs::copy(from, folder.path().join(name)).expect("a fixture");
    }
    use_tokenizer(folder.path())
}

fn use_tokenizer(folder: &Path) -> bool {
    let Ok(tokenizer) = Tokenizer::from_dir(folder, Some("gpt2")) else { return false };
    for text in
        ["", "a quick brown fox", "\u{feff}\u{e9}\u{1f600} \u{3042}\n\t<s>", "\u{2581}the\0"]
    {
        if let Ok(ids) = tokenizer.encode(text, true) {
            drop(tokenizer.decode(&ids, true));
        }
    }
    for id in [0, 1, 2, 3, 7, 50, 1 << 20] {
        drop(tokenizer.decode(&[id, id], false));
        tokenizer.id_to_token(id);
    }
    true
}

fn picture(bytes: &[u8]) -> bool {
    let options = DecodeOptions { max_mpixels: 1.0, ..DecodeOptions::default() };
    image::is_picture(&bytes[..bytes.len().min(64)]);
    image::memory(bytes);
    drop(image::probe(bytes, &options));
    let (mut read, mut left) = (false, 20);
    let pages = "1-".parse().expect("pages");
    image::visit_pages(bytes, Some(&pages), &options, &mut |_, decoded| {
        if let Ok(decoded) = decoded {
            let image = decoded.image;
            assert_eq!(image.data.len(), image.width * image.height * 3);
            assert!(image.width * image.height <= 1_000_000);
            read = true;
        }
        left -= 1;
        left > 0
    });
    read
}

fn members(bytes: &[u8]) -> bool {
    const LIMIT: u64 = 1 << 20;
    let head = &bytes[..bytes.len().min(512)];
    let Some(kind) = archive::kind(head) else { return false };
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a temporary file");
    let Ok(members) = archive::open(file.path(), kind, |_, _| true, LIMIT) else { return false };
    for member in members.take(100).filter_map(Result::ok) {
        assert!(!member.name.is_empty());
        if let Ok(content) = member.read(LIMIT) {
            assert!(content.len() as u64 <= LIMIT);
        }
    }
    true
}

/// tests/fixtures, from the root of the project or from the fuzz package.
pub fn fixtures() -> std::path::PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    [here.join("tests/fixtures"), here.join("../fixtures")]
        .into_iter()
        .find(|path| path.is_dir())
        .expect("tests/fixtures")
}
