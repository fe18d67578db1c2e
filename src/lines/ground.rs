//! Grounds: bands and boxes in one dark shade, such as the head of a table, on which text is light.
//!
//! A glyph on a ground is a hole in it. Letters have holes too, photographs many: text stands on a
//! ground that is of one shade, goes on all around it, and is not full of holes.

use image::{GrayImage, Luma};
use imageproc::region_labelling::{Connectivity, connected_components};

use super::Rect;
use super::ink::{self, Gray, LEAST_CONTRAST, LEAST_HEIGHT, Piece};

/// The part of its box that a ground covers, at least; rules of a table cover less.
const LEAST_COVER: f32 = 0.15;
/// The part of a ground that is of its shade, at least.
const LEAST_EVEN: f32 = 0.8;
/// From the shade of a ground to the paper's, what is nearer to the paper than this is light.
const LIGHT: f32 = 0.4;

/// The text of a ground.
pub(super) struct Ground {
    /// In the frame of the page's own pieces.
    pub(super) pieces: Vec<Piece>,
    /// The height of most glyphs.
    pub(super) height: f32,
}

/// The grounds that have text. The page's own pieces of ink lose those that are parts of such a ground,
/// or lie in its glyphs.
pub(super) fn with_text(gray: &Gray, ink: &mut Vec<Piece>) -> Vec<Ground> {
    let mut found = Vec::new();
    let darker = gray.paper - (0.15 * gray.span).max(LEAST_CONTRAST);
    for rect in solid(gray, darker) {
        let Some(area) = Area::new(gray, &rect, darker, ink) else { continue };
        let (pieces, height) = ink::text(area.holes(gray));
        if area.is_under(&pieces, height) {
            ink.retain(|piece| !area.holds(middle(&piece.rect)));
            found.push(Ground { pieces, height });
        }
    }
    found
}

/// The boxes of dark pieces that have room for text, looked for in a picture of a quarter of the pixels.
fn solid(gray: &Gray, darker: f32) -> Vec<Rect> {
    let (width, height) = (gray.width / 2, gray.height / 2);
    let is_dark = |at: usize| f32::from(gray.pixels[at]) < darker;
    let mask = (0..width * height).map(|index| {
        let at = index / width * 2 * gray.width + index % width * 2;
        let all = is_dark(at)
            && is_dark(at + 1)
            && is_dark(at + gray.width)
            && is_dark(at + gray.width + 1);
        if all { 255 } else { 0 }
    });
    let has_room = |piece: &Piece| {
        let (width, height) = (piece.rect.width(), piece.rect.height());
        let least = LEAST_HEIGHT;
        height >= least && width >= least && piece.area >= LEAST_COVER * width * height
    };
    // With the rows and columns that are dark in half of a pixel here.
    let whole = |piece: Piece| Rect {
        left: (2.0 * piece.rect.left - 1.0).max(0.0),
        top: (2.0 * piece.rect.top - 1.0).max(0.0),
        right: (2.0 * piece.rect.right + 1.0).min(gray.width as f32),
        bottom: (2.0 * piece.rect.bottom + 1.0).min(gray.height as f32),
    };
    ink::connected(mask.collect(), width, height, Connectivity::Four)
        .into_iter()
        .filter(has_room)
        .map(whole)
        .collect()
}

/// A ground in its box, pixel by pixel.
struct Area {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    /// What is as light or lighter is no part of the ground.
    light: f32,
    /// 0 is the ground, the others are what is not, each connected piece with its number.
    others: Vec<u32>,
    /// By their numbers, those that lie in the ground and are no boxes with text of their own.
    is_hole: Vec<bool>,
}

impl Area {
    /// The largest piece of one dark shade in a box, if it has holes.
    fn new(gray: &Gray, rect: &Rect, darker: f32, ink: &[Piece]) -> Option<Area> {
        let (left, top) = (rect.left as usize, rect.top as usize);
        let (width, height) = (rect.width() as usize, rect.height() as usize);
        let rows = (top..top + height).map(|y| &gray.pixels[y * gray.width + left..][..width]);
        let values: Vec<u8> = rows.flatten().copied().collect();
        let mut dark: Vec<u8> =
            values.iter().copied().filter(|value| f32::from(*value) < darker).collect();
        dark.sort_unstable();
        let shade = f32::from(dark[dark.len() / 2]);
        let reach = gray.paper - shade;
        if reach < (0.3 * gray.span).max(2.0 * LEAST_CONTRAST) {
            return None;
        }
        let light = shade + LIGHT * reach;
        let is_ground = largest(&values, width, height, light)?;
        let (mut even, mut all) = (0, 0);
        for (value, _) in values.iter().zip(&is_ground).filter(|(_, is_ground)| **is_ground) {
            all += 1;
            even += usize::from((f32::from(*value) - shade).abs() <= 0.3 * reach);
        }
        if (even as f32) < LEAST_EVEN * all as f32 {
            return None;
        }
        let others = labels(is_ground.iter().map(|is_ground| !is_ground), width, height)?;
        let mut area = Area { left, top, width, height, light, others, is_hole: Vec::new() };
        area.is_hole = area.enclosed(ink);
        area.is_hole.contains(&true).then_some(area)
    }

    /// Which of the pieces that are not the ground lie within it; not those that hold ink of the page as
    /// fields of a form do. Glyphs hold two pieces of it at most.
    fn enclosed(&self, ink: &[Piece]) -> Vec<bool> {
        let count = self.others.iter().max().map_or(0, |most| *most as usize + 1);
        let mut held = vec![0; count];
        for piece in ink {
            let (x, y) = middle(&piece.rect);
            held[self.at(x, y).unwrap_or(0)] += 1;
        }
        let mut is_hole: Vec<bool> = held.iter().map(|held| *held <= 2).collect();
        for x in 0..self.width {
            is_hole[self.others[x] as usize] = false;
            is_hole[self.others[(self.height - 1) * self.width + x] as usize] = false;
        }
        for y in 0..self.height {
            is_hole[self.others[y * self.width] as usize] = false;
            is_hole[self.others[(y + 1) * self.width - 1] as usize] = false;
        }
        is_hole[0] = false;
        is_hole
    }

    /// The number of what is not the ground at a place of the page, 0 for the ground; none outside the box.
    fn at(&self, x: f32, y: f32) -> Option<usize> {
        let (x, y) = (x - self.left as f32, y - self.top as f32);
        let inside = x >= 0.0 && y >= 0.0 && x < self.width as f32 && y < self.height as f32;
        inside.then(|| self.others[y as usize * self.width + x as usize] as usize)
    }

    /// Whether a place of the page is the ground's, or in a hole of it.
    fn holds(&self, (x, y): (f32, f32)) -> bool {
        self.at(x, y).is_some_and(|number| number == 0 || self.is_hole[number])
    }

    /// The holes as pieces of light ink.
    fn holes(&self, gray: &Gray) -> Vec<Piece> {
        let none = Rect { left: f32::MAX, top: f32::MAX, right: 0.0, bottom: 0.0 };
        let mut holes = vec![Piece { rect: none, area: 0.0 }; self.is_hole.len()];
        for (index, number) in self.others.iter().enumerate() {
            let number = *number as usize;
            let (x, y) = (self.left + index % self.width, self.top + index / self.width);
            if !self.is_hole[number] || f32::from(gray.pixels[y * gray.width + x]) < self.light {
                continue;
            }
            let (x, y) = (x as f32, y as f32);
            let hole = &mut holes[number];
            hole.area += 1.0;
            hole.rect = hole.rect.join(&Rect { left: x, top: y, right: x + 1.0, bottom: y + 1.0 });
        }
        holes.retain(|hole| hole.area > 0.0);
        holes
    }

    /// Whether these holes are text on the ground.
    fn is_under(&self, pieces: &[Piece], usual: f32) -> bool {
        let glyphs: Vec<&Piece> =
            pieces.iter().filter(|piece| piece.rect.height() >= 0.5 * usual).collect();
        let ink = glyphs.iter().map(|glyph| glyph.area).sum::<f32>();
        let boxes =
            glyphs.iter().map(|glyph| glyph.rect.width() * glyph.rect.height()).sum::<f32>();
        let ground = self.others.iter().filter(|number| **number == 0).count() as f32;
        let around = glyphs.iter().filter(|glyph| self.is_around(&glyph.rect)).count();
        let beside = |glyph: &Rect, other: &Rect| {
            let gap = glyph.gap(other);
            let alike =
                glyph.height().min(other.height()) >= 0.6 * glyph.height().max(other.height());
            alike && gap >= 0.0 && gap <= usual && glyph.shares_rows(other) >= 0.6
        };
        let in_rows = glyphs
            .iter()
            .filter(|glyph| glyphs.iter().any(|other| beside(&glyph.rect, &other.rect)))
            .count();
        let most = |count: usize| 10 * count >= 7 * glyphs.len();
        // Windows, tiles and the fields of a grid fill their boxes.
        in_rows >= 2 && most(in_rows) && most(around) && ink <= 0.7 * boxes && boxes <= ground
    }

    /// Whether the ground goes on beyond the corners of a glyph; a letter does not beyond those of its hole.
    fn is_around(&self, glyph: &Rect) -> bool {
        let pad = 0.2 * glyph.height() + 1.0;
        let (left, right) = (glyph.left - pad, glyph.right + pad);
        let (top, bottom) = (glyph.top - pad, glyph.bottom + pad);
        [(left, top), (right, top), (left, bottom), (right, bottom)]
            .into_iter()
            .all(|corner| self.holds(corner))
    }
}

fn middle(rect: &Rect) -> (f32, f32) {
    ((rect.left + rect.right) / 2.0, (rect.top + rect.bottom) / 2.0)
}

/// Where the largest connected piece of what is darker than `light` lies.
fn largest(values: &[u8], width: usize, height: usize, light: f32) -> Option<Vec<bool>> {
    let mask = values.iter().map(|value| if f32::from(*value) < light { 255 } else { 0 });
    let mask = GrayImage::from_raw(width as u32, height as u32, mask.collect())?;
    let labels = connected_components(&mask, Connectivity::Four, Luma([0u8]));
    let mut areas: Vec<usize> = Vec::new();
    for label in labels.as_raw().iter().map(|label| *label as usize) {
        areas.resize(areas.len().max(label + 1), 0);
        areas[label] += usize::from(label > 0);
    }
    let (most, _) = areas.iter().enumerate().max_by_key(|(_, area)| **area)?;
    Some(labels.as_raw().iter().map(|label| *label > 0 && *label as usize == most).collect())
}

/// The connected pieces of a mask by number; 0 is what is none.
fn labels(mask: impl Iterator<Item = bool>, width: usize, height: usize) -> Option<Vec<u32>> {
    let mask = mask.map(|is_set| if is_set { 255 } else { 0 }).collect();
    let mask = GrayImage::from_raw(width as u32, height as u32, mask)?;
    Some(connected_components(&mask, Connectivity::Eight, Luma([0u8])).into_raw())
}
