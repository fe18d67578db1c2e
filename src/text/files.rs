//! The tokenizer files of a checkpoint directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// Every file that belongs to a tokenizer, by the names that the reference gives them.
pub const TOKENIZER_FILES: [&str; 13] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "source.spm",
    "target.spm",
    "dict.txt",
    "chat_template.jinja",
];

/// The sets of files that a tokenizer's vocabulary can be in; without one of them there is no tokenizer.
pub const VOCABULARIES: &[&[&str]] = &[
    &["tokenizer.json"],
    &["vocab.json", "merges.txt"],
    &["vocab.txt"],
    &["sentencepiece.bpe.model"],
    &["spiece.model"],
    &["source.spm", "target.spm", "vocab.json"],
];

/// A directory and its small JSON files, read once.
pub(super) struct TokenizerFiles {
    pub(super) dir: PathBuf,
    /// tokenizer_config.json; empty when there is none.
    pub(super) config: Map<String, Value>,
    pub(super) special_tokens_map: Option<Map<String, Value>>,
    pub(super) added_tokens: Option<Map<String, Value>>,
    /// config.json of the model; empty when there is none.
    pub(super) model_config: Map<String, Value>,
}

impl TokenizerFiles {
    /// Reads the JSON files of `dir`. Missing ones are fine, damaged ones are not.
    pub(super) fn open(dir: &Path) -> Result<TokenizerFiles> {
        if !dir.is_dir() {
            bail!("{dir:?} is not a directory");
        }
        Ok(TokenizerFiles {
            dir: dir.to_owned(),
            config: read_object(&dir.join("tokenizer_config.json"))?.unwrap_or_default(),
            special_tokens_map: read_object(&dir.join("special_tokens_map.json"))?,
            added_tokens: read_object(&dir.join("added_tokens.json"))?,
            model_config: read_object(&dir.join("config.json"))?.unwrap_or_default(),
        })
    }

    /// The path of a file in the directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether the directory has that file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name);
        fs::read(&path).with_context(|| format!("{path:?} cannot be read"))
    }

    /// The text of a file, line ends made `\n` as Python's text mode does.
    pub(super) fn text(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        let text = String::from_utf8(self.bytes(name)?)
            .with_context(|| format!("{path:?} is not UTF-8 text"))?;
        Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
    }

    /// A vocabulary file {token: id}, in the order of the file.
    pub(super) fn vocab_json(&self, name: &str) -> Result<Vec<(String, u32)>> {
        let path = self.path(name);
        let object = read_object(&path)?.with_context(|| format!("{path:?} is missing"))?;
        let mut vocab = Vec::with_capacity(object.len());
        for (token, id) in object {
            match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => vocab.push((token, id)),
                None => {
                    bail!("{path:?}: the id of token {token:?} is {id}, expected a number from 0")
                }
            }
        }
        Ok(vocab)
    }

    /// A flag of tokenizer_config.json; `default` where the key is absent, false where it is null.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.config.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => bail!(
                "{:?}: {key} is {other}, expected true or false",
                self.path("tokenizer_config.json")
            ),
        }
    }

    /// A text of tokenizer_config.json, if it is there and not null.
    pub(super) fn config_str(&self, key: &str) -> Option<&str> {
        self.config.get(key).and_then(Value::as_str)
    }
}

/// A JSON file that holds an object; None when there is no such file.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(|| format!("{path:?} cannot be read"))?;
    match serde_json::from_slice(&bytes).with_context(|| format!("{path:?} is not valid JSON"))? {
        Value::Object(object) => Ok(Some(object)),
        _ => bail!("{path:?} does not hold a JSON object"),
    }
}
