//! Writing a tokenizer: the files it came from, unchanged, and what transformers needs beside them.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};

use super::files::TOKENIZER_FILES;
use super::{Backend, Class, Tokenizer};

/// Copies the files. A tokenizer built from parts also gets a tokenizer.json; tokenizer_config.json is
/// completed where transformers would otherwise choose another class or another clean-up.
pub(super) fn save(tokenizer: &Tokenizer, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{dir:?} cannot be made"))?;
    let files = &tokenizer.files;
    for name in TOKENIZER_FILES.iter().filter(|name| files.has(name)) {
        write(dir, name, &files.bytes(name)?)?;
    }
    if let Backend::Fast(fast) = &tokenizer.backend
        && !tokenizer.resolved.from_json
    {
        let json = fast.inner.to_string(true).map_err(|e| anyhow!("tokenizer.json: {e}"))?;
        write(dir, "tokenizer.json", json.as_bytes())?;
    }
    let config = completed_config(tokenizer);
    if config != files.config {
        let mut json = serde_json::to_vec_pretty(&config)?;
        json.push(b'\n');
        write(dir, "tokenizer_config.json", &json)?;
    }
    Ok(())
}

/// tokenizer_config.json with the keys that were found out elsewhere.
fn completed_config(tokenizer: &Tokenizer) -> Map<String, Value> {
    let mut config = tokenizer.files.config.clone();
    let resolved = &tokenizer.resolved;
    if !config.contains_key("tokenizer_class") {
        let guessed_json = !resolved.declared && resolved.from_json;
        let name = match resolved.class {
            Class::Generic => "PreTrainedTokenizerFast",
            _ if guessed_json => "PreTrainedTokenizerFast",
            _ => &resolved.name,
        };
        config.insert("tokenizer_class".to_owned(), name.into());
        if guessed_json {
            let special = &tokenizer.special;
            for (attribute, token) in [
                ("bos_token", &special.bos),
                ("eos_token", &special.eos),
                ("unk_token", &special.unk),
                ("sep_token", &special.sep),
                ("pad_token", &special.pad),
                ("cls_token", &special.cls),
                ("mask_token", &special.mask),
            ] {
                if let (Some((token, _)), false) = (token, config.contains_key(attribute)) {
                    config.insert(attribute.to_owned(), token.as_str().into());
                }
            }
        }
    }
    // With a tokenizer.json beside it, the slow class and its default are not asked any more.
    let key = "clean_up_tokenization_spaces";
    if tokenizer.clean_up_tokenization_spaces && !config.contains_key(key) {
        config.insert(key.to_owned(), true.into());
    }
    config
}

/// Writes a file whole or not at all.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = dir.join(name);
    let whole = || -> Result<()> {
        let mut builder = tempfile::Builder::new();
        // A temporary file is private by default; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    whole().with_context(|| format!("{path:?} cannot be written"))
}
