//! Sets of drawings: unpacked `@iconify-json/*` packages, and a folder of clip-art.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::names::Names;

/// What a set draws, and so where the names of its drawings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// CLDR's names.
    Emoji,
    /// Emoji of flat shapes, which can be given outlines.
    FlatEmoji,
    /// The words of the file's name.
    Icons,
}

/// A set this program knows.
pub(crate) struct Set {
    prefix: &'static str,
    pub(crate) subject: Subject,
    /// Kept from training: other artists' work to test on.
    pub(crate) test: bool,
}

const fn set(prefix: &'static str, subject: Subject, test: bool) -> Set {
    Set { prefix, subject, test }
}

/// Every set, with the licence that its package names. Only Apache-2.0, MIT and ISC are trained on.
pub(crate) const SETS: &[Set] = &[
    set("noto", Subject::FlatEmoji, false), // Apache-2.0, Google
    set("noto-v1", Subject::FlatEmoji, false), // Apache-2.0, Google
    set("fluent-emoji", Subject::Emoji, false), // MIT, Microsoft
    set("fluent-emoji-flat", Subject::FlatEmoji, false), // MIT, Microsoft
    set("fluent-emoji-high-contrast", Subject::Emoji, false), // MIT, Microsoft
    set("fxemoji", Subject::FlatEmoji, false), // Apache-2.0, Mozilla
    set("flag", Subject::Emoji, false),     // MIT, Panayiotis Lipiridis
    set("circle-flags", Subject::Emoji, false), // MIT, HatScripts
    set("flagpack", Subject::Emoji, false), // MIT, Yummygum
    set("bi", Subject::Icons, false),       // MIT, The Bootstrap Authors
    set("ph", Subject::Icons, false),       // MIT, Phosphor Icons
    set("mdi", Subject::Icons, false),      // Apache-2.0, Pictogrammers
    set("tabler", Subject::Icons, false),   // MIT, Paweł Kuna
    set("lucide", Subject::Icons, false),   // ISC, Lucide Contributors
    set("heroicons", Subject::Icons, false), // MIT, Refactoring UI Inc
    set("material-symbols", Subject::Icons, false), // Apache-2.0, Google
    set("twemoji", Subject::Emoji, true),   // CC BY 4.0, Twitter
    set("emojione", Subject::Emoji, true),  // CC BY 4.0, Emoji One
    set("openmoji", Subject::Emoji, true),  // CC BY-SA 4.0, OpenMoji
    set("carbon", Subject::Icons, true),    // Apache-2.0, IBM
];

/// One drawing, not yet rendered.
#[derive(Clone, Debug)]
pub(crate) enum Drawing {
    /// The inside of an `<svg>` element with this view box: left, top, width, height.
    Body { body: String, view: [f32; 4] },
    /// A file of its own.
    File(PathBuf),
}

impl Drawing {
    /// Drawn in one colour, which whoever shows it chooses.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Drawing::Body { body, .. } if body.contains("currentColor"))
    }
}

/// A drawing with what it shows.
pub(crate) struct Named {
    pub(crate) label: String,
    pub(crate) keywords: Vec<String>,
    /// Unicode's group of an emoji.
    pub(crate) group: Option<u8>,
    pub(crate) drawing: Drawing,
}

#[derive(Deserialize)]
struct Package {
    prefix: String,
    icons: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    aliases: HashMap<String, Alias>,
    #[serde(default = "sixteen")]
    width: f32,
    #[serde(default = "sixteen")]
    height: f32,
}

fn sixteen() -> f32 {
    16.0
}

#[derive(Deserialize)]
struct Icon {
    body: String,
    left: Option<f32>,
    top: Option<f32>,
    width: Option<f32>,
    height: Option<f32>,
    #[serde(default)]
    hidden: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alias {
    parent: String,
    #[serde(default)]
    h_flip: bool,
    #[serde(default)]
    v_flip: bool,
    #[serde(default)]
    rotate: u8,
}

/// The set of a folder and its drawings that have a name, in the order of the file.
pub(crate) fn read(folder: &Path, names: &Names) -> Result<(&'static Set, Vec<Named>)> {
    let path = folder.join("icons.json");
    let text = std::fs::read(&path).with_context(|| {
        format!("{}: can't be read; --sets wants unpacked @iconify-json packages", path.display())
    })?;
    let package: Package = serde_json::from_slice(&text)
        .with_context(|| format!("{}: not a set of icons", path.display()))?;
    let Some(set) = SETS.iter().find(|set| set.prefix == package.prefix) else {
        bail!(
            "{}: the set {:?} is not among those whose licence was looked at",
            path.display(),
            package.prefix
        )
    };
    // chars.json tells the code points of names; one drawing may have several.
    let mut codes: HashMap<String, Vec<String>> = HashMap::new();
    if let Ok(text) = std::fs::read(folder.join("chars.json")) {
        let chars: HashMap<String, String> = serde_json::from_slice(&text)
            .with_context(|| format!("{}/chars.json", folder.display()))?;
        for (code, name) in chars {
            codes.entry(name).or_default().push(code);
        }
        codes.values_mut().for_each(|codes| codes.sort());
    }
    let mut nicknames: HashMap<&str, Vec<&str>> = HashMap::new();
    for (name, alias) in &package.aliases {
        if !alias.h_flip && !alias.v_flip && alias.rotate == 0 {
            nicknames.entry(&alias.parent).or_default().push(name);
        }
    }
    let mut named = Vec::new();
    for (name, icon) in &package.icons {
        let icon: Icon = serde_json::from_value(icon.clone())
            .with_context(|| format!("{}: {name}", path.display()))?;
        if icon.hidden {
            continue;
        }
        let mut others = nicknames.get(name.as_str()).cloned().unwrap_or_default();
        others.sort_unstable();
        let Some((label, keywords, group)) = meaning(set, name, &codes, &others, names) else {
            continue;
        };
        let view = [
            icon.left.unwrap_or(0.0),
            icon.top.unwrap_or(0.0),
            icon.width.unwrap_or(package.width),
            icon.height.unwrap_or(package.height),
        ];
        let drawing = Drawing::Body { body: icon.body, view };
        named.push(Named { label, keywords, group, drawing });
    }
    Ok((set, named))
}

/// Label, keywords and group of a drawing.
fn meaning(
    set: &Set,
    name: &str,
    codes: &HashMap<String, Vec<String>>,
    others: &[&str],
    names: &Names,
) -> Option<(String, Vec<String>, Option<u8>)> {
    if set.subject == Subject::Icons {
        return words(set.prefix, name).map(|label| (label, Vec::new(), None));
    }
    let by_code = codes.get(name).into_iter().flatten().find_map(|code| names.of_code(code));
    let emoji = by_code
        .or_else(|| names.of_name(name))
        .or_else(|| others.iter().find_map(|other| names.of_name(other)))?;
    Some((emoji.label.clone(), emoji.keywords.clone(), Some(emoji.group)))
}

/// The words of an icon's file name, without those that tell its style; none where they say nothing.
fn words(prefix: &str, name: &str) -> Option<String> {
    const STYLES: &[(&str, &[&str])] = &[
        ("bi", &["fill"]),
        ("ph", &["fill", "bold", "duotone", "light", "thin"]),
        ("mdi", &["outline"]),
        ("tabler", &["filled"]),
        ("heroicons", &["solid", "16", "20"]),
        ("material-symbols", &["outline", "rounded", "sharp"]),
        ("carbon", &["filled", "outline"]),
    ];
    let styles =
        STYLES.iter().find(|(set, _)| *set == prefix).map_or(&[][..], |(_, styles)| styles);
    let mut words: Vec<&str> = name.split('-').filter(|word| !word.is_empty()).collect();
    while words.len() > 1 && words.last().is_some_and(|last| styles.contains(last)) {
        words.pop();
    }
    let label = words.join(" ");
    (label.len() > 1 && label.bytes().any(|b| b.is_ascii_alphabetic())).then_some(label)
}

/// Clip-art below a folder whose title is one of `labels`; the file's `<dc:title>` is the title.
pub(crate) fn clip_art(
    folder: &Path,
    known: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Named>> {
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    files.sort();
    let mut named = Vec::new();
    for path in files {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let title = text
            .split_once("<dc:title>")
            .and_then(|(_, rest)| rest.split_once("</dc:title>"))
            .map(|(title, _)| title.trim().to_lowercase());
        if let Some(label) = title.and_then(|title| known(&title)) {
            let drawing = Drawing::File(path);
            named.push(Named { label, keywords: Vec::new(), group: None, drawing });
        }
    }
    Ok(named)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: can't be read", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "svg") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_are_no_words() {
        let table = [
            ("bi", "arrow-left-circle-fill", Some("arrow left circle")),
            ("heroicons", "bell-20-solid", Some("bell")),
            ("material-symbols", "home-outline-rounded", Some("home")),
            ("carbon", "arrow--left", Some("arrow left")),
            ("bi", "fill", Some("fill")),
            ("bi", "123", None),
        ];
        for (set, name, expected) in table {
            assert_eq!(words(set, name).as_deref(), expected, "{set} {name}");
        }
    }
}
