//! The character map of sentencepiece's normalizer.
//!
//! Format: u32 length of the trie in bytes, the trie (a double array of u32 units, darts-clone), then the
//! replacements, each ended by a zero byte. A value of the trie is an offset into the replacements.
//!
//! The library walks the map without bounds, so every map is checked before it gets one.

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokenizers::normalizers::Precompiled;

/// A checked character map.
pub(super) struct CharsMap {
    units: Vec<usize>,
    replacements: String,
}

/// The library's form of a character map, safe to run.
pub(super) fn precompiled(bytes: &[u8]) -> Result<Precompiled> {
    CharsMap::parse(bytes)?;
    Precompiled::from(bytes).map_err(|e| anyhow!("{e}"))
}

impl CharsMap {
    /// Reads a map and walks every state that a text can reach.
    pub(super) fn parse(bytes: &[u8]) -> Result<CharsMap> {
        CharsMap::read(bytes)
            .and_then(|map| map.check().map(|()| map))
            .context("the character map of the normalizer is damaged")
    }

    fn read(bytes: &[u8]) -> Result<CharsMap> {
        let (size, rest) =
            bytes.split_first_chunk::<4>().context("it is shorter than its header")?;
        let size = u32::from_le_bytes(*size) as usize / 4 * 4;
        ensure!(size <= rest.len(), "its trie has {size} bytes, {} are there", rest.len());
        let (trie, replacements) = rest.split_at(size);
        let replacements =
            std::str::from_utf8(replacements).context("its replacements are not UTF-8")?;
        let units = trie.chunks_exact(4);
        Ok(CharsMap {
            units: units.map(|u| u32::from_le_bytes([u[0], u[1], u[2], u[3]]) as usize).collect(),
            replacements: replacements.to_owned(),
        })
    }

    fn check(&self) -> Result<()> {
        let unit =
            |at: usize| self.units.get(at).copied().context("its trie points outside itself");
        let mut seen = vec![false; self.units.len()];
        let mut open = vec![offset(unit(0)?)];
        while let Some(state) = open.pop() {
            unit(state)?;
            if std::mem::replace(&mut seen[state], true) {
                continue;
            }
            for byte in 1..=255u8 {
                let at = state ^ usize::from(byte);
                let child = unit(at)?;
                if !is_edge(child, byte) {
                    continue;
                }
                let next = at ^ offset(child);
                if has_value(child) && !self.replacements.is_char_boundary(value(unit(next)?)) {
                    bail!("its trie points outside the replacements");
                }
                open.push(next);
            }
        }
        Ok(())
    }

    /// sentencepiece's own normalization, before white space is looked at: at every place the longest
    /// entry is replaced, and what has none stays. (The library looks at whole graphemes instead.)
    pub(super) fn normalize(&self, text: &str) -> String {
        let mut normalized = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let len = match self.longest_prefix(rest) {
                Some((len, replacement)) => {
                    normalized.push_str(replacement);
                    len
                }
                None => {
                    normalized.push(c);
                    c.len_utf8()
                }
            };
            rest = &rest[len..];
        }
        normalized
    }

    fn longest_prefix(&self, text: &str) -> Option<(usize, &str)> {
        let mut found = None;
        let mut state = offset(*self.units.first()?);
        for (at, byte) in text.bytes().enumerate().take_while(|(_, byte)| *byte != 0) {
            let place = state ^ usize::from(byte);
            let child = *self.units.get(place)?;
            if !is_edge(child, byte) {
                break;
            }
            state = place ^ offset(child);
            if has_value(child) && text.is_char_boundary(at + 1) {
                let replacement = &self.replacements[value(*self.units.get(state)?)..];
                let end = replacement.find('\0').unwrap_or(replacement.len());
                found = Some((at + 1, &replacement[..end]));
            }
        }
        found
    }
}

/// Whether the unit is the child for this byte; bit 31 marks a value instead.
fn is_edge(unit: usize, byte: u8) -> bool {
    unit & ((1 << 31) | 0xff) == usize::from(byte)
}

fn has_value(unit: usize) -> bool {
    (unit >> 8) & 1 == 1
}

fn value(unit: usize) -> usize {
    unit & ((1 << 31) - 1)
}

/// The distance to a unit's children.
fn offset(unit: usize) -> usize {
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
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
    fn the_longest_prefix_is_replaced() {
        let map = CharsMap::parse(&charsmap()).unwrap();
        // From sentencepiece 0.2.3, normalizing with these rules.
        for (text, expected) in [
            ("e\u{301}", "é"),
            ("é", "e"),
            ("ﬁn ™\u{200b}", "fin TM"),
            ("①\u{fe0f}", "1\u{fe0f}"),
            ("日本。\u{a0}e", "日本. e"),
            ("", ""),
        ] {
            assert_eq!(map.normalize(text), expected, "{text:?}");
        }
    }
}
