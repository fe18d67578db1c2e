//! Fonts: those of some directories that can draw Latin text, by families.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ab_glyph::{Font, FontVec};
use anyhow::{Result, ensure};
use clap::ValueEnum;
use fastrand::Rng;
use rayon::prelude::*;

/// Which families draw.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FontSet {
    /// All but those held out
    Train,
    /// Every twelfth family, by a hash of its name
    HeldOut,
}

/// The usable faces, grouped by family.
pub(crate) struct Fonts {
    mono: Vec<Vec<FontVec>>,
    other: Vec<Vec<FontVec>>,
}

/// A face has at least these.
const NEEDED: &str =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;-/$()&%'\"!?";

/// Faces of one family that are kept: a family of forty would outweigh the rest of memory.
const FACES: usize = 10;

/// Names of faces whose glyphs are not the letters they stand for, or can't be told apart.
const UNFIT: &[&str] = &[
    "symbol",
    "d0500",
    "wingding",
    "webding",
    "stixint",
    "stixnon",
    "stixsiz",
    "stixvar",
    "linlibertine_i",
    "feta",
    "smufl",
    "dingbat",
    "emoji",
    "math",
    "initial",
    "csc",
    "caps",
    "smallcap",
    "-sc",
    "_sc",
    "ornament",
    "hairline",
    "barcode",
    "braille",
    "keyboard",
    "lohit",
    "samyak",
    "outline",
    "tlwg",
    "lignes",
    "noface",
];

impl Fonts {
    /// All faces below `folders` that belong to the set.
    pub(crate) fn find(folders: &[PathBuf], set: FontSet) -> Result<Fonts> {
        let mut files = Vec::new();
        folders.iter().for_each(|folder| walk(folder, &mut files));
        files.sort();
        let mut families: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in files {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
            if UNFIT.iter().any(|unfit| stem.contains(unfit)) {
                continue;
            }
            let family = family(&stem);
            let held = fnv(&family).is_multiple_of(12);
            if held == (set == FontSet::HeldOut) {
                families.entry(family).or_default().push(file);
            }
        }
        let families: Vec<Vec<PathBuf>> = families.into_values().collect();
        let loaded: Vec<Vec<FontVec>> = families
            .par_iter()
            .map(|files| {
                // Spread over the family: light and black, upright and slanted.
                let step = files.len().div_ceil(FACES).max(1);
                files.iter().step_by(step).filter_map(|file| load(file)).collect()
            })
            .filter(|faces: &Vec<FontVec>| !faces.is_empty())
            .collect();
        ensure!(!loaded.is_empty(), "no usable font in {folders:?}");
        let (mono, other) = loaded.into_iter().partition(|faces| is_mono(&faces[0]));
        Ok(Fonts { mono, other })
    }

    pub(crate) fn families(&self) -> usize {
        self.mono.len() + self.other.len()
    }

    pub(crate) fn faces(&self) -> usize {
        self.mono.iter().chain(&self.other).map(Vec::len).sum()
    }

    /// A face; receipts and forms are full of typewriter fonts, so they get more than their share.
    pub(crate) fn pick(&self, rng: &mut Rng) -> &FontVec {
        let mono = self.other.is_empty() || (!self.mono.is_empty() && rng.f32() < 0.25);
        let families = if mono { &self.mono } else { &self.other };
        let faces = &families[rng.usize(..families.len())];
        &faces[rng.usize(..faces.len())]
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_dir() {
            walk(&path, files);
        } else if extension == "ttf" || extension == "otf" {
            files.push(path);
        }
    }
}

/// `notosans-boldItalic` belongs to `notosans`.
fn family(stem: &str) -> String {
    let name = stem.split(['-', '_', '[']).next().unwrap_or(stem);
    name.trim_end_matches("bold").trim_end_matches("italic").trim_end_matches("bold").to_string()
}

/// FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn load(file: &Path) -> Option<FontVec> {
    let bytes = std::fs::read(file).ok().filter(|bytes| bytes.len() < 2_000_000)?;
    let font = FontVec::try_from_vec(bytes).ok()?;
    let drawn = |c: char| has(&font, c) && font.outline(font.glyph_id(c)).is_some();
    let usable = NEEDED.chars().all(drawn)
        // Capitals in the place of small letters would make the labels wrong.
        && !same_outline(&font, 'a', 'A');
    usable.then_some(font)
}

/// True if the face has a glyph for the character.
pub(crate) fn has(font: &FontVec, c: char) -> bool {
    font.glyph_id(c).0 != 0
}

fn width(font: &FontVec, c: char) -> f32 {
    font.h_advance_unscaled(font.glyph_id(c))
}

pub(crate) fn is_mono(font: &FontVec) -> bool {
    width(font, 'i') == width(font, 'W')
}

fn same_outline(font: &FontVec, a: char, b: char) -> bool {
    let curves = |c| font.outline(font.glyph_id(c)).map(|outline| outline.curves.len());
    let bounds = |c| font.outline(font.glyph_id(c)).map(|outline| outline.bounds);
    curves(a) == curves(b) && bounds(a) == bounds(b)
}
