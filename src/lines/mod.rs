//! The text lines of a page, found by classical means: no model, no tensors.
//!
//! ```text
//! Rgb8 ─ ink, ground ─▶ connected pieces ─ skew ─▶ angle ─ group ─▶ lines ─ order ─▶ reading order ─ cut ─▶ Vec<Line>
//! ```
//!
//! Pages above three megapixels are looked at in a reduced picture; the lines are cut from the page
//! itself. The page may be skewed by a few degrees and lit unevenly. Ink is darker than most of the page,
//! or lighter where most of it is dark; on bands and boxes of ink (grounds) it is the other way about.

mod cut;
mod ground;
mod group;
mod ink;
mod order;
mod rows;
mod skew;
#[cfg(test)]
mod tests;

use self::ink::Piece;
use crate::image::Rgb8;

pub use rows::rows;

/// A line of text on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Left, top, right, bottom in pixels of the page; right and bottom just outside.
    pub bbox: [u32; 4],
    /// The line cut out, turned level, on its own background and with a margin.
    pub image: Rgb8,
}

/// A rectangle in the frame of the ink; right and bottom just outside.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rect {
    left: f32,
    top: f32,
    right: f32,
    bottom: f32,
}

impl Rect {
    fn width(&self) -> f32 {
        self.right - self.left
    }

    fn height(&self) -> f32 {
        self.bottom - self.top
    }

    fn join(&self, other: &Rect) -> Rect {
        Rect {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// How much of the lower of two heights is shared.
    fn shares_rows(&self, other: &Rect) -> f32 {
        let shared = self.bottom.min(other.bottom) - self.top.max(other.top);
        shared / self.height().min(other.height()).max(1.0)
    }

    /// The white between them sideways; negative where they overlap.
    fn gap(&self, other: &Rect) -> f32 {
        self.left.max(other.left) - self.right.min(other.right)
    }
}

/// The lines of text on a page, in reading order: columns from left to right, in them from top to
/// bottom; rows of tables and receipts from left to right. An empty page has none.
pub fn find(page: &Rgb8) -> Vec<Line> {
    let gray = ink::Gray::new(page);
    let mut ink = gray.ink();
    let grounds = ground::with_text(&gray, &mut ink);
    let (pieces, height) = ink::text(ink);
    let all: Vec<Piece> =
        grounds.iter().map(|ground| &ground.pieces).chain([&pieces]).flatten().copied().collect();
    let height = if grounds.is_empty() { height } else { ink::usual_height(&all) };
    let slope = skew::slope(&all, height);
    let page_height = gray.height as f32;
    let (mut lines, mut level) = group::lines(&pieces, height, slope, page_height);
    // What stands on a ground is no part of a line beside it.
    for ground in &grounds {
        let (more, boxes) = group::lines(&ground.pieces, ground.height, slope, page_height);
        lines.extend(more);
        level.extend(boxes);
    }
    let order = order::reading(&level, height);
    let scale = gray.scale as f32;
    order
        .into_iter()
        .map(|index| cut::line(page, &lines[index], &level[index], slope, scale))
        .collect()
}
