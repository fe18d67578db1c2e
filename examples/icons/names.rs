//! Names of emoji: CLDR's short names and keywords, as `emojibase-data` carries them.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// One emoji, its skin tones merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Emoji {
    /// CLDR's short name, with straight quotes: `flag: France`, `keycap: 3`, `cat face`.
    pub(crate) label: String,
    /// CLDR's keywords.
    pub(crate) keywords: Vec<String>,
    /// The number of Unicode's group: 0 faces, 1 people, 3 nature ... 8 symbols, 9 flags.
    pub(crate) group: u8,
}

/// Finds an emoji by its code points or by one of its names.
pub(crate) struct Names {
    emoji: Vec<Emoji>,
    by_code: HashMap<String, usize>,
    /// None where two emoji share a name.
    by_name: HashMap<String, Option<usize>>,
}

#[derive(Deserialize)]
struct Entry {
    label: String,
    hexcode: String,
    #[serde(default)]
    tags: Vec<String>,
    group: Option<u8>,
    #[serde(default)]
    skins: Vec<Skin>,
}

#[derive(Deserialize)]
struct Skin {
    hexcode: String,
}

impl Names {
    /// Reads `en/data.json`, the shortcodes and Unicode's own names from an unpacked `emojibase-data`.
    pub(crate) fn read(folder: &Path) -> Result<Names> {
        let entries: Vec<Entry> = serde_json::from_value(json(&folder.join("en/data.json"))?)
            .with_context(|| format!("{}: not emojibase's data.json", folder.display()))?;
        let mut names =
            Names { emoji: Vec::new(), by_code: HashMap::new(), by_name: HashMap::new() };
        // Regional indicators and other parts of emoji have no group.
        for entry in entries {
            let Some(group) = entry.group else { continue };
            names.add(entry, group);
        }
        let mut more: Vec<(String, usize)> = Vec::new();
        let mut tables = vec![json(&folder.join("meta/unicode-names.json"))?];
        for file in ["cldr", "emojibase", "emojibase-legacy", "github", "iamcal", "joypixels"] {
            tables.push(json(&folder.join(format!("en/shortcodes/{file}.json")))?);
        }
        for (code, value) in tables.iter().filter_map(Value::as_object).flatten() {
            let Some(place) = names.by_code.get(&base_code(code)) else { continue };
            let texts = match value {
                Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
                text => text.as_str().into_iter().collect::<Vec<_>>(),
            };
            more.extend(texts.into_iter().map(|text| (squash(text), *place)));
        }
        // CLDR's own names come first: a nickname never takes one.
        let own = names.by_name.clone();
        for (name, place) in more {
            if !own.contains_key(&name) {
                names.name(name, place);
            }
        }
        Ok(names)
    }

    fn add(&mut self, entry: Entry, group: u8) {
        let place = self.emoji.len();
        self.by_code.insert(base_code(&entry.hexcode), place);
        for skin in &entry.skins {
            self.by_code.entry(base_code(&skin.hexcode)).or_insert(place);
        }
        self.name(squash(&entry.label), place);
        let label = entry.label.replace(['\u{2018}', '\u{2019}'], "'");
        let label = label.replace(['\u{201c}', '\u{201d}'], "\"");
        self.emoji.push(Emoji { label, keywords: entry.tags, group });
    }

    fn name(&mut self, name: String, place: usize) {
        let known = self.by_name.entry(name).or_insert(Some(place));
        if *known != Some(place) {
            *known = None;
        }
    }

    /// By code points such as `1f446-1f3fe`; skin tones and the request for colour don't matter.
    pub(crate) fn of_code(&self, code: &str) -> Option<&Emoji> {
        self.by_code.get(&base_code(code)).map(|place| &self.emoji[*place])
    }

    /// By a name in any spelling: `cat-face`, `CatFace`, `cat_face-medium-dark-skin-tone`.
    pub(crate) fn of_name(&self, name: &str) -> Option<&Emoji> {
        let name = squash(&without_tone(name));
        (*self.by_name.get(&name)?).map(|place| &self.emoji[place])
    }
}

fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("{}: can't be read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", path.display()))
}

/// Code points without skin tones and variation selectors, in capitals.
fn base_code(code: &str) -> String {
    let code = code.to_ascii_uppercase();
    let parts = code.split('-').filter(|part| {
        !matches!(*part, "1F3FB" | "1F3FC" | "1F3FD" | "1F3FE" | "1F3FF" | "FE0F" | "FE0E")
    });
    parts.map(|part| part.trim_start_matches('0')).collect::<Vec<_>>().join("-")
}

/// Letters and digits alone, without accents' marks, in lower case.
pub(crate) fn squash(name: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    name.nfkd().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// A file's name without what it says of a skin tone.
fn without_tone(name: &str) -> String {
    let mut name = name.trim_end_matches("-skin-tone");
    let toned = name.len();
    for tone in ["-medium-dark", "-medium-light", "-medium", "-dark", "-light", "-default"] {
        if let Some(rest) = name.strip_suffix(tone) {
            name = rest;
            break;
        }
    }
    if name.len() == toned
        && let Some((rest, digit)) = name.split_at_checked(name.len().saturating_sub(1))
        && let Some(rest) = rest.strip_suffix("-tone")
        && digit.parse::<u8>().is_ok()
    {
        name = rest;
    }
    name.replacen("flag-for-flag-", "flag-", 1).replacen("flag-for-", "flag-", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lose_tones_and_selectors() {
        let table = [
            ("1f446-1f3fe", "1F446"),
            ("2764-fe0f", "2764"),
            ("0023-fe0f-20e3", "23-20E3"),
            ("1F469-1F3FB-200D-1F91D-200D-1F468-1F3FF", "1F469-200D-1F91D-200D-1F468"),
        ];
        for (code, expected) in table {
            assert_eq!(base_code(code), expected);
        }
    }

    #[test]
    fn names_lose_tones() {
        let table = [
            ("artist-medium-dark", "artist"),
            ("baby-dark-skin-tone", "baby"),
            ("breast-feeding-tone3", "breast-feeding"),
            ("flag-for-flag-chad", "flag-chad"),
            ("crescent-moon", "crescent-moon"),
        ];
        for (name, expected) in table {
            assert_eq!(without_tone(name), expected);
        }
        assert_eq!(squash("piñata"), "pinata");
        assert_eq!(squash("Japanese “here” button"), "japaneseherebutton");
    }
}
