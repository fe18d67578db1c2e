//! Concepts: every name, with the drawings that different artists made of it, and which of them are
//! trained on.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use fastrand::Rng;

use crate::names::Names;
use crate::sets::{self, Drawing, Named, Subject};
use crate::shard;

/// Which drawings are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Permissively licensed drawings, without a thirty-second of the concepts
    Train,
    /// Other artists' drawings of the concepts that are trained on
    UnseenArtists,
    /// All artists' drawings of the concepts that are not trained on
    UnseenConcepts,
}

/// An icon is a concept if so many artists of the training sets gave it the same name.
const AGREEING: usize = 3;

/// What a drawing may be put through without becoming a drawing of something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Left and right may be exchanged.
    pub(crate) flip: bool,
    /// Colours may change.
    pub(crate) recolour: bool,
}

/// One name and its drawings, sorted by artist: `artists[i]` holds those of one set.
pub(crate) struct Concept {
    pub(crate) label: String,
    pub(crate) keywords: Vec<String>,
    pub(crate) limits: Limits,
    artists: Vec<Vec<Item>>,
}

/// A drawing with what its set allows.
pub(crate) struct Item {
    pub(crate) drawing: Drawing,
    /// Made of flat shapes: an outline can be put around each.
    pub(crate) flat: bool,
}

/// Concepts of three kinds, which training meets in fixed shares.
pub(crate) struct Catalog {
    /// Emoji, flags, icons.
    kinds: [Vec<Concept>; 3],
}

/// Shares of the kinds, in percent.
const SHARES: [u8; 3] = [68, 9, 23];

/// A concept while its drawings are collected.
#[derive(Default)]
struct Collected {
    keywords: Vec<String>,
    group: Option<u8>,
    /// By set, in the order in which they were named.
    artists: Vec<(usize, Vec<Item>)>,
    /// How many sets that are trained on draw it as an icon, and whether an emoji is called so.
    icon_sets: usize,
    emoji: bool,
    seen: bool,
}

impl Catalog {
    /// Reads all sets and keeps the concepts and drawings of one part.
    pub(crate) fn read(
        sets: &[PathBuf],
        clip_art: Option<&PathBuf>,
        names: &Names,
        part: Part,
    ) -> Result<Self> {
        let mut concepts: HashMap<String, Collected> = HashMap::new();
        for (artist, folder) in sets.iter().enumerate() {
            let (set, named) = sets::read(folder, names)?;
            let mut last: HashMap<String, bool> = HashMap::new();
            for named in named {
                let own = concepts.entry(named.label.clone()).or_default();
                if last.insert(named.label.clone(), true).is_none() && !set.test {
                    own.icon_sets += usize::from(set.subject == Subject::Icons);
                    own.emoji |= set.subject != Subject::Icons;
                    own.seen = true;
                }
                // A part without test sets, or without the others, still learns the concepts from all.
                let kept = match part {
                    Part::Train => !set.test,
                    Part::UnseenArtists => set.test,
                    Part::UnseenConcepts => true,
                };
                own.add(artist, named, set.subject == Subject::FlatEmoji, kept);
            }
        }
        if let (Some(folder), true) = (clip_art, part != Part::UnseenArtists) {
            let known = |title: &str| concepts.contains_key(title).then(|| title.to_string());
            for named in sets::clip_art(folder, known)? {
                if let Some(own) = concepts.get_mut(&named.label) {
                    own.add(sets.len(), named, false, true);
                }
            }
        }
        let mut kinds = [Vec::new(), Vec::new(), Vec::new()];
        for (label, collected) in concepts {
            let real = collected.emoji || collected.icon_sets >= AGREEING;
            if !real || !collected.seen || collected.artists.is_empty() {
                continue;
            }
            if held_out(&label) != (part == Part::UnseenConcepts) {
                continue;
            }
            let kind = match collected.group {
                Some(9) => 1,
                Some(_) => 0,
                None => 2,
            };
            let limits = limits(&label, collected.group);
            let artists = collected.artists.into_iter().map(|(_, items)| items).collect();
            kinds[kind].push(Concept { label, keywords: collected.keywords, limits, artists });
        }
        // A HashMap's order is no function of anything.
        kinds.iter_mut().for_each(|kind| kind.sort_by(|a, b| a.label.cmp(&b.label)));
        let catalog = Catalog { kinds };
        ensure!(catalog.concepts().next().is_some(), "the sets hold no concept of this part");
        Ok(catalog)
    }

    pub(crate) fn concepts(&self) -> impl Iterator<Item = &Concept> {
        self.kinds.iter().flatten()
    }

    /// A concept, each of its kind as likely as the others, and a drawing, each artist as likely.
    pub(crate) fn pick(&self, rng: &mut Rng) -> (&Concept, &Item) {
        loop {
            let mut at = rng.u8(..100);
            let kind = SHARES.iter().position(|share| {
                let here = at < *share;
                at = at.saturating_sub(*share);
                here
            });
            let kind = &self.kinds[kind.unwrap_or(0)];
            if kind.is_empty() {
                continue;
            }
            let concept = &kind[rng.usize(..kind.len())];
            let artist = &concept.artists[rng.usize(..concept.artists.len())];
            return (concept, &artist[rng.usize(..artist.len())]);
        }
    }

    /// Of each artist one drawing of each concept, in an order that the seed decides.
    pub(crate) fn once(&self, rng: &mut Rng) -> Vec<(&Concept, &Item)> {
        let mut all: Vec<_> = self
            .concepts()
            .flat_map(|concept| concept.artists.iter().map(move |items| (concept, &items[0])))
            .collect();
        rng.shuffle(&mut all);
        all
    }
}

impl Collected {
    fn add(&mut self, artist: usize, named: Named, flat: bool, kept: bool) {
        if named.group.is_some() {
            self.group = named.group;
        }
        if !named.keywords.is_empty() {
            self.keywords = named.keywords;
        }
        if !kept {
            return;
        }
        let item = Item { drawing: named.drawing, flat };
        match self.artists.last_mut().filter(|(last, _)| *last == artist) {
            Some((_, items)) => items.push(item),
            None => self.artists.push((artist, vec![item])),
        }
    }
}

/// A thirty-second of all names, by their FNV-1a hash, which a generator mixes.
fn held_out(label: &str) -> bool {
    let hash = label.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    shard::rng(0, hash).u8(..32) == 0
}

/// Words that a mirrored drawing would belie.
const SIDED: &[&str] = &[
    "left",
    "right",
    "clock",
    "o'clock",
    "thirty",
    "moon",
    "crescent",
    "backhand",
    "index",
    "hand",
    "fist",
    "leftwards",
    "rightwards",
    "facing",
    "notes",
    "calendar",
    "chart",
    "newspaper",
    "page",
    "scroll",
    "book",
    "keyboard",
    "piano",
    "input",
    "dollar",
    "euro",
    "yen",
    "pound",
    "number",
    "slot",
    "abacus",
    "ledger",
    "bookmark",
    "map",
    "globe",
    "ticket",
    "tickets",
    "card",
    "label",
    "mirrored",
    "pistol",
    "Tokyo",
    "speaker",
    "loudspeaker",
    "mute",
    "bell",
];

/// Words of colours and what is known by its colour alone.
const COLOURED: &[&str] = &[
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "brown",
    "black",
    "white",
    "grey",
    "pink",
    "flag",
    "heart",
    "circle",
    "square",
    "book",
    "apple",
    "light",
    "tangerine",
    "lemon",
    "lime",
    "medal",
    "diamond",
    "hair",
    "tone",
];

fn limits(label: &str, group: Option<u8>) -> Limits {
    let has = |words: &[&str]| label.split([' ', ':', '-']).any(|word| words.contains(&word));
    // Symbols, flags and icons are signs: their sides mean something more often than not.
    let signs = matches!(group, None | Some(8 | 9));
    Limits { flip: !signs && !has(SIDED), recolour: group != Some(9) && !has(COLOURED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_sides_are_not_mirrored() {
        let table = [
            ("dog face", Some(3), true),
            ("backhand index pointing left", Some(1), false),
            ("arrow left", None, false),
            ("flag: Chad", Some(9), false),
            ("three o'clock", Some(5), false),
        ];
        for (label, group, flip) in table {
            assert_eq!(limits(label, group).flip, flip, "{label}");
        }
        assert!(!limits("red apple", Some(4)).recolour);
        assert!(limits("dog face", Some(3)).recolour);
    }

    #[test]
    fn about_a_thirty_second_is_held_out() {
        let out = (0..32_000).filter(|i| held_out(&format!("concept {i}"))).count();
        assert!((800..1200).contains(&out), "{out}");
    }
}
