//! Checks of what the library would panic on: it trusts the files it is given.
//!
//! Merges of a BPE are put together in a buffer as long as the longest token, the trie of a unigram
//! model recurses, and character maps ([`super::charsmap`]) are walked without bounds.

use std::collections::HashSet;

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};

use super::charsmap::precompiled;
use super::sentencepiece::MAX_PIECE_BYTES;
use super::stored::{Merge, Stored, Text, Vocab};

/// Checks a tokenizer.json: its character maps and its model.
pub(super) fn check_stored(stored: &Stored) -> Result<()> {
    check_members(&stored.rest)?;
    let Some(model) = &stored.model else { return Ok(()) };
    match &model.vocab {
        Vocab::Pieces(longest) => ensure!(
            *longest <= MAX_PIECE_BYTES,
            "a piece of the vocabulary has {longest} bytes, more than the {MAX_PIECE_BYTES} that are accepted"
        ),
        Vocab::Ids(longest) => {
            let prefix = model.continuing_subword_prefix.as_deref().unwrap_or("");
            for Merge(pair) in &model.merges {
                // What is no pair at all is refused by the library itself, as are tokens without an id for which
                // it has room.
                let Some((Text(left), Text(right))) = pair else { continue };
                let Some(rest) = right.get(prefix.len()..) else {
                    bail!("{right:?} of merge \"{left} {right}\" does not begin with {prefix:?}")
                };
                ensure!(
                    left.len() + rest.len() <= *longest,
                    "merge \"{left} {right}\" makes \"{left}{rest}\", which has no id"
                );
            }
        }
    }
    Ok(())
}

/// Checks that every merge makes a token of the vocabulary, as the library demands.
pub(super) fn check_merges(merges: &[(String, String)], vocab: &[(String, u32)]) -> Result<()> {
    let tokens: HashSet<&str> = vocab.iter().map(|(token, _)| token.as_str()).collect();
    for (left, right) in merges {
        for token in [left, right, &format!("{left}{right}")] {
            ensure!(
                tokens.contains(token.as_str()),
                "merge \"{left} {right}\" needs {token:?}, which has no id"
            );
        }
    }
    Ok(())
}

fn check_members(object: &Map<String, Value>) -> Result<()> {
    for (key, value) in object {
        match (key.as_str(), value) {
            ("precompiled_charsmap", Value::String(text)) => {
                precompiled(&base64(text)?)?;
            }
            ("added_tokens", _) => {}
            _ => check_charsmaps(value)?,
        }
    }
    Ok(())
}

fn check_charsmaps(value: &Value) -> Result<()> {
    match value {
        Value::Object(object) => check_members(object),
        Value::Array(values) => values.iter().try_for_each(check_charsmaps),
        _ => Ok(()),
    }
}

/// Standard base64 with padding.
fn base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("precompiled_charsmap is not base64"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba")]
        {
            assert_eq!(base64(text).unwrap(), bytes.as_bytes());
        }
        assert!(base64("Zm9*").is_err());
    }
}
