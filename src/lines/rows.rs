//! How many lines of text stand one below the other: one, or a page.

use super::{Rect, group, ink, skew};
use crate::image::Rgb8;

/// A line of fewer pieces may be a stain, a stamp, or the two halves of one line.
const LEAST_PIECES: usize = 5;

/// A line is so many times wider than high.
const LEAST_WIDTH: f32 = 3.0;

/// Counts the lines of text that stand one below the other. Cheaper than `find`: nothing is cut out. Short
/// lines are left out, so that what counts as several lines is several lines.
pub fn rows(page: &Rgb8) -> usize {
    let gray = ink::Gray::new(page);
    let (pieces, height) = ink::text(gray.ink());
    let slope = skew::slope(&pieces, height);
    let (lines, level) = group::lines(&pieces, height, slope, gray.height as f32);
    let long = |(pieces, level): &(&Vec<Rect>, &Rect)| {
        pieces.len() >= LEAST_PIECES && level.width() >= LEAST_WIDTH * level.height()
    };
    let mut rows: Vec<Rect> =
        lines.iter().zip(&level).filter(long).map(|(_, level)| *level).collect();
    rows.sort_by(|a, b| a.bottom.total_cmp(&b.bottom));
    let mut count = 0;
    let mut last = f32::MIN;
    for row in rows {
        // What shares rows with the line above is beside it, or a part of it.
        if row.top >= last - 0.2 * row.height() {
            count += 1;
            last = row.bottom;
        }
    }
    count
}
