//! Checks of what the library would panic on: it trusts the files it is given.
//!
//! A character map of sentencepiece is walked without bounds: u32 length of the trie in bytes, the
//! trie (a double array of u32), then the replacements, each ended by a zero byte. Merges of a BPE are
//! put together in a buffer as long as the longest token. The trie of a unigram model recurses.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokenizers::normalizers::Precompiled;

use super::sentencepiece::MAX_PIECE_BYTES;

/// A character map that is safe to run.
pub(super) fn precompiled(charsmap: &[u8]) -> Result<Precompiled> {
    check(charsmap).context("the character map of the normalizer is damaged")?;
    Precompiled::from(charsmap).map_err(|_| {
        anyhow::anyhow!(
            "the character map of the normalizer is damaged: it is not what sentencepiece writes"
        )
    })
}

/// Checks a tokenizer.json: its character maps and its model.
pub(super) fn check_json(json: &Value) -> Result<()> {
    check_charsmaps(json)?;
    let Some(model) = json.get("model") else { return Ok(()) };
    match model.get("vocab") {
        Some(Value::Array(pieces)) => {
            for piece in pieces {
                if let Some(text) = piece.get(0).and_then(Value::as_str) {
                    ensure!(
                        text.len() <= MAX_PIECE_BYTES,
                        "a piece of the vocabulary has {} bytes, more than the {MAX_PIECE_BYTES} that are \
                         accepted",
                        text.len()
                    );
                }
            }
            Ok(())
        }
        Some(Value::Object(vocab)) => {
            let prefix =
                model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or("");
            for merge in model.get("merges").and_then(Value::as_array).into_iter().flatten() {
                let pair = match merge {
                    Value::String(text) => text.split_once(' '),
                    pair => {
                        pair.get(0).and_then(Value::as_str).zip(pair.get(1).and_then(Value::as_str))
                    }
                };
                // What is no pair at all is refused by the library itself.
                let Some((left, right)) = pair else { continue };
                let right = right.get(prefix.len()..).unwrap_or("");
                let token = format!("{left}{right}");
                ensure!(
                    vocab.contains_key(&token),
                    "merge {merge} makes {token:?}, which has no id"
                );
            }
            Ok(())
        }
        _ => Ok(()),
    }
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

fn check_charsmaps(value: &Value) -> Result<()> {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("precompiled_charsmap", Value::String(text)) => {
                        precompiled(&base64(text)?)?;
                    }
                    // The vocabulary is big and holds no normalizer.
                    ("model" | "added_tokens", _) => {}
                    _ => check_charsmaps(value)?,
                }
            }
            Ok(())
        }
        Value::Array(values) => values.iter().try_for_each(check_charsmaps),
        _ => Ok(()),
    }
}

/// Walks every state of the double array that a text can reach.
fn check(charsmap: &[u8]) -> Result<()> {
    let (size, rest) =
        charsmap.split_first_chunk::<4>().context("it is shorter than its header")?;
    let size = u32::from_le_bytes(*size) as usize / 4 * 4;
    ensure!(size <= rest.len(), "its trie has {size} bytes, {} are there", rest.len());
    let (trie, replacements) = rest.split_at(size);
    let replacements =
        std::str::from_utf8(replacements).context("its replacements are not UTF-8")?;
    let units: Vec<usize> = trie
        .chunks_exact(4)
        .map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]) as usize)
        .collect();
    let unit = |at: usize| units.get(at).copied().context("its trie points outside itself");
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(unit(0)?)];
    while let Some(state) = open.pop() {
        unit(state)?;
        if std::mem::replace(&mut seen[state], true) {
            continue;
        }
        for byte in 1..=255usize {
            let at = state ^ byte;
            let child = unit(at)?;
            // Bit 31 marks a value, so only units with exactly this byte as label are edges.
            if child & ((1 << 31) | 0xff) != byte {
                continue;
            }
            let next = at ^ offset(child);
            if (child >> 8) & 1 == 1 {
                let value = unit(next)? & ((1 << 31) - 1);
                if !replacements.is_char_boundary(value) {
                    bail!("its trie points outside the replacements");
                }
            }
            open.push(next);
        }
    }
    Ok(())
}

/// The distance to a unit's children (darts-clone).
fn offset(unit: usize) -> usize {
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
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
    use super::super::sentencepiece::ModelProto;
    use super::*;

    fn charsmap() -> Vec<u8> {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizers/files/charsmap.model");
        ModelProto::parse(&std::fs::read(path).unwrap()).unwrap().precompiled_charsmap
    }

    #[test]
    fn a_real_map_passes_and_every_damage_is_refused_or_harmless() {
        let good = charsmap();
        assert!(good.len() > 1000);
        precompiled(&good).unwrap();
        let mut refused = 0;
        for at in (0..good.len()).step_by(2) {
            let mut bad = good.clone();
            bad[at] ^= 0x95;
            match precompiled(&bad) {
                Err(_) => refused += 1,
                Ok(map) => {
                    drop(map.normalize_string("ﬁne ™ é e\u{301} 。\u{200b} ｈ ① \u{a0}abc\u{7ff}"))
                }
            }
        }
        assert!(refused > 20, "{refused}");
        for len in (0..good.len()).step_by(5) {
            let _ = precompiled(&good[..len]);
        }
        assert!(precompiled(&[]).is_err());
        assert!(precompiled(&[0, 0, 0, 0]).is_err());
        assert!(precompiled(&[255, 255, 255, 255, 1, 2, 3, 4]).is_err());
    }

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
