//! Pieces of ink put together into lines.

use std::collections::HashSet;

use super::Rect;
use super::ink::{Piece, usual_height};

/// White wider than this many heights of glyphs ends a line: a gutter, or a column of a table.
const WIDEST_GAP: f32 = 3.2;

/// Ink lower than this part of the usual height is a dot, an accent, a comma or a hyphen.
const SMALLEST_GLYPH: f32 = 0.45;

/// A line that grows to the right.
struct Growing {
    /// Indices into the pieces.
    members: Vec<usize>,
    rect: Rect,
    /// Where the last glyphs stood: their top and bottom, smoothed.
    band: Rect,
    /// The heights of the glyphs, summed.
    heights: f32,
}

impl Growing {
    fn height(&self, usual: f32) -> f32 {
        (self.heights / self.members.len() as f32).max(0.7 * usual)
    }
}

/// The lines as lists of pieces in the frame of the page (their boxes), and their boxes once level:
/// `y - x * slope`.
pub(super) fn lines(
    pieces: &[Piece],
    usual: f32,
    slope: f32,
    page: f32,
) -> (Vec<Vec<Rect>>, Vec<Rect>) {
    let level: Vec<Rect> = pieces.iter().map(|piece| levelled(&piece.rect, slope)).collect();
    let all: Vec<usize> = (0..pieces.len()).collect();
    let mut found = of_height(&all, &level, usual, page);
    // Small print beside large: what is left may be text of a height of its own.
    let taken: HashSet<usize> = found.iter().flat_map(|line| &line.members).copied().collect();
    let left: Vec<usize> = all.into_iter().filter(|index| !taken.contains(index)).collect();
    let small = usual_height(&left.iter().map(|index| pieces[*index]).collect::<Vec<_>>());
    if small > 0.0 {
        let more = of_height(&left, &level, small, page);
        found.extend(more.into_iter().filter(|line| line.members.len() >= 3));
    }
    let boxes = found.iter().map(|line| line.rect).collect();
    let members =
        found.iter().map(|line| line.members.iter().map(|index| pieces[*index].rect).collect());
    (members.collect(), boxes)
}

/// The lines of glyphs of about a height, with the marks that belong to them.
fn of_height(among: &[usize], level: &[Rect], usual: f32, page: f32) -> Vec<Growing> {
    let (mut glyphs, marks): (Vec<usize>, Vec<usize>) =
        among.iter().partition(|index| level[**index].height() >= SMALLEST_GLYPH * usual);
    glyphs.sort_by(|a, b| level[*a].left.total_cmp(&level[*b].left));
    let mut found: Vec<Growing> = Vec::new();
    for index in glyphs {
        grow(&mut found, index, &level[index], usual);
    }
    join(&mut found, usual, page < 3.5 * usual);
    found.retain(|line| is_text(line, usual));
    add_marks(&mut found, &marks, level, usual);
    found
}

fn levelled(rect: &Rect, slope: f32) -> Rect {
    let down = (rect.left + rect.right) / 2.0 * slope;
    Rect { top: rect.top - down, bottom: rect.bottom - down, ..*rect }
}

/// Adds a glyph to the line that it goes on best, or begins one.
fn grow(found: &mut Vec<Growing>, index: usize, glyph: &Rect, usual: f32) {
    let mut best: Option<(f32, usize)> = None;
    for (at, line) in found.iter().enumerate() {
        let shared = line.band.shares_rows(glyph);
        let reach = WIDEST_GAP * line.height(usual).max(0.7 * glyph.height());
        if shared >= 0.5 && glyph.left - line.rect.right <= reach {
            let better = best.is_none_or(|(most, _)| shared > most);
            best = if better { Some((shared, at)) } else { best };
        }
    }
    let Some((_, at)) = best else {
        let heights = glyph.height();
        found.push(Growing { members: vec![index], rect: *glyph, band: *glyph, heights });
        return;
    };
    let line = &mut found[at];
    line.members.push(index);
    line.rect = line.rect.join(glyph);
    line.heights += glyph.height();
    line.band.top += 0.3 * (glyph.top - line.band.top);
    line.band.bottom += 0.3 * (glyph.bottom - line.band.bottom);
}

/// Joins lines of one row that stand near or overlap; all of one row where the page is but one.
fn join(found: &mut Vec<Growing>, usual: f32, one_row: bool) {
    let mut at = 0;
    while at < found.len() {
        let line = &found[at];
        let partner = (at + 1..found.len()).find(|other| {
            let other = &found[*other];
            let reach = WIDEST_GAP * line.height(usual).max(other.height(usual));
            let near = one_row || line.rect.gap(&other.rect) <= reach;
            near && line.rect.shares_rows(&other.rect) >= 0.55
        });
        let Some(partner) = partner else {
            at += 1;
            continue;
        };
        let other = found.swap_remove(partner);
        let line = &mut found[at];
        line.members.extend(other.members);
        line.rect = line.rect.join(&other.rect);
        line.heights += other.heights;
        at = 0;
    }
}

/// A line has more than specks: something as high as a glyph, and not a single long stroke.
fn is_text(line: &Growing, usual: f32) -> bool {
    let (width, height) = (line.rect.width(), line.rect.height());
    height >= 0.6 * usual && width >= 0.25 * height && width >= 3.0
}

/// Gives dots, accents, commas and hyphens to the nearest line that they stand in or beside.
fn add_marks(found: &mut [Growing], marks: &[usize], level: &[Rect], usual: f32) {
    let bands: Vec<(Rect, f32)> =
        found.iter().map(|line| (line.rect, line.height(usual))).collect();
    for index in marks {
        let mark = &level[*index];
        let middle = (mark.top + mark.bottom) / 2.0;
        let distance = |(band, height): &(Rect, f32)| {
            let beside = mark.gap(band) <= 0.8 * height;
            let above = band.top - middle;
            let below = middle - band.bottom;
            let within = above <= 0.5 * height && below <= 0.35 * height;
            (beside && within).then_some(above.max(below).max(0.0))
        };
        let near = bands.iter().enumerate().filter_map(|(at, band)| Some((distance(band)?, at)));
        if let Some((_, at)) = near.min_by(|a, b| a.0.total_cmp(&b.0)) {
            found[at].members.push(*index);
            found[at].rect = found[at].rect.join(mark);
        }
    }
}
