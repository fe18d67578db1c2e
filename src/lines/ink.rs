//! What is ink on a page, and its connected pieces.

use image::{GrayImage, Luma};
use imageproc::region_labelling::{Connectivity, connected_components};

use super::Rect;
use crate::image::Rgb8;

/// Pages with more pixels are reduced by a whole factor.
const MOST_PIXELS: usize = 3_000_000;
/// Grey levels by which ink differs from what is around it, at least.
pub(super) const LEAST_CONTRAST: f32 = 20.0;
/// Glyphs lower than this many pixels can't be read.
pub(super) const LEAST_HEIGHT: f32 = 6.0;

/// A page in grey, perhaps reduced; one that is mostly dark is inverted.
pub(super) struct Gray {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Pixels of the page a pixel of this picture, along each side.
    pub(super) scale: usize,
    pub(super) pixels: Vec<u8>,
    /// The level of the paper.
    pub(super) paper: f32,
    /// From the paper to the darkest ink.
    pub(super) span: f32,
}

/// A connected piece of ink: a glyph, a part of one, or several that touch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) rect: Rect,
    /// Pixels of ink.
    pub(super) area: f32,
}

impl Gray {
    pub(super) fn new(page: &Rgb8) -> Gray {
        let mut scale = 1;
        while (page.width / scale) * (page.height / scale) > MOST_PIXELS {
            scale += 1;
        }
        let (mut pixels, width, height) = reduced(page, scale);
        let (dark, middle, light) =
            (percentile(&pixels, 0.002), percentile(&pixels, 0.5), percentile(&pixels, 0.998));
        let inverted = middle - dark < light - middle;
        if inverted {
            pixels.iter_mut().for_each(|value| *value = 255 - *value);
        }
        let (paper, span) =
            if inverted { (255.0 - middle, light - middle) } else { (middle, middle - dark) };
        Gray { width, height, scale, pixels, paper, span }
    }

    /// The pieces of ink: what is darker than the mean of its surroundings.
    pub(super) fn ink(&self) -> Vec<Piece> {
        let contrast = (0.2 * self.span).max(LEAST_CONTRAST);
        let mask = darker_than_around(&self.pixels, self.width, self.height, contrast);
        connected(mask, self.width, self.height, Connectivity::Eight)
    }
}

/// The page in grey, the mean of `scale * scale` pixels a pixel.
fn reduced(page: &Rgb8, scale: usize) -> (Vec<u8>, usize, usize) {
    let (width, height) = (page.width / scale, page.height / scale);
    let mut gray = Vec::with_capacity(width * height);
    let mut row = vec![0u32; width];
    let whole = (scale * scale * 256) as u32;
    for y in 0..height {
        row.fill(0);
        for line in 0..scale {
            let start = (y * scale + line) * page.width * 3;
            let pixels = &page.data[start..start + width * scale * 3];
            for (sum, block) in row.iter_mut().zip(pixels.chunks_exact(3 * scale)) {
                // The weights of ITU-R 601, in 256ths.
                let luma = |rgb: &[u8]| {
                    77 * u32::from(rgb[0]) + 150 * u32::from(rgb[1]) + 29 * u32::from(rgb[2])
                };
                *sum += block.chunks_exact(3).map(luma).sum::<u32>();
            }
        }
        gray.extend(row.iter().map(|sum| (sum / whole) as u8));
    }
    (gray, width, height)
}

/// The grey level below which a part of the pixels lies.
fn percentile(gray: &[u8], part: f64) -> f32 {
    let mut counts = [0usize; 256];
    gray.iter().for_each(|value| counts[usize::from(*value)] += 1);
    let wanted = (gray.len() as f64 * part) as usize;
    let mut seen = 0;
    let level = counts.iter().position(|count| {
        seen += count;
        seen > wanted
    });
    level.unwrap_or(255) as f32
}

/// Adaptive threshold: the mean of a wide window, from sums over columns and rows, less the contrast.
fn darker_than_around(gray: &[u8], width: usize, height: usize, contrast: f32) -> Vec<u8> {
    let radius = (width.min(height) / 12).clamp(15, 60);
    let mut mask = vec![0; gray.len()];
    let mut columns = vec![0u32; width];
    let row = |y: usize| &gray[y * width..(y + 1) * width];
    for y in 0..radius.min(height) {
        columns.iter_mut().zip(row(y)).for_each(|(sum, value)| *sum += u32::from(*value));
    }
    let mut sums = vec![0u32; width + 1];
    for y in 0..height {
        if y + radius < height {
            let new = row(y + radius);
            columns.iter_mut().zip(new).for_each(|(sum, value)| *sum += u32::from(*value));
        }
        if y > radius {
            let old = row(y - radius - 1);
            columns.iter_mut().zip(old).for_each(|(sum, value)| *sum -= u32::from(*value));
        }
        for x in 0..width {
            sums[x + 1] = sums[x].wrapping_add(columns[x]);
        }
        let rows = (y + radius + 1).min(height) - y.saturating_sub(radius);
        for x in 0..width {
            let (from, to) = (x.saturating_sub(radius), (x + radius + 1).min(width));
            let mean = sums[to].wrapping_sub(sums[from]) as f32 / ((to - from) * rows) as f32;
            if f32::from(gray[y * width + x]) < mean - contrast {
                mask[y * width + x] = 255;
            }
        }
    }
    mask
}

/// The pieces that may be text, and the height of most glyphs (0 where there is no text).
pub(super) fn text(pieces: Vec<Piece>) -> (Vec<Piece>, f32) {
    let height = usual_height(&pieces);
    let text = pieces.into_iter().filter(|piece| may_be_text(piece, height)).collect();
    (text, height)
}

/// The connected pieces of a picture in two colours: 255 where there is ink.
pub(super) fn connected(
    mask: Vec<u8>,
    width: usize,
    height: usize,
    connectivity: Connectivity,
) -> Vec<Piece> {
    if mask.is_empty() {
        return Vec::new();
    }
    let Some(mask) = GrayImage::from_raw(width as u32, height as u32, mask) else {
        return Vec::new();
    };
    let labels = connected_components(&mask, connectivity, Luma([0u8]));
    let none = Rect { left: f32::MAX, top: f32::MAX, right: 0.0, bottom: 0.0 };
    let mut found: Vec<Piece> = Vec::new();
    for (index, label) in labels.as_raw().iter().enumerate().filter(|(_, label)| **label > 0) {
        let label = *label as usize;
        if found.len() < label {
            found.resize(label, Piece { rect: none, area: 0.0 });
        }
        let (x, y) = ((index % width) as f32, (index / width) as f32);
        let piece = &mut found[label - 1];
        piece.area += 1.0;
        piece.rect = piece.rect.join(&Rect { left: x, top: y, right: x + 1.0, bottom: y + 1.0 });
    }
    found.retain(|piece| piece.area > 0.0);
    found
}

/// The median height of pieces shaped like glyphs, each with the weight of its shorter side: specks
/// are many and say little.
pub(super) fn usual_height(pieces: &[Piece]) -> f32 {
    let mut heights: Vec<(f32, f32)> = pieces
        .iter()
        .map(|piece| (piece.rect.height(), piece.rect.width()))
        .filter(|(height, width)| {
            *height >= LEAST_HEIGHT && *width < 6.0 * height && *height < 15.0 * width
        })
        .map(|(height, width)| (height, height.min(width).min(100.0)))
        .collect();
    heights.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = heights.iter().map(|(_, weight)| weight).sum::<f32>() / 2.0;
    let mut seen = 0.0;
    let median = heights.iter().find(|(_, weight)| {
        seen += weight;
        seen >= half
    });
    median.map_or(0.0, |(height, _)| *height)
}

/// Not a speck, a rule, a box or a picture, beside glyphs of this height.
fn may_be_text(piece: &Piece, usual: f32) -> bool {
    let (width, height) = (piece.rect.width(), piece.rect.height());
    let fill = piece.area / (width * height);
    let speck = piece.area < (0.008 * usual * usual).max(2.0);
    let level_rule = width > 3.0 * usual && width > 8.0 * height;
    let upright_rule = height > 2.2 * usual && height > 6.0 * width;
    let frame = (width > 6.0 * usual || height > 3.0 * usual) && fill < 0.15;
    let picture =
        height > 6.0 * usual || (height > 2.5 * usual && width > 12.0 * usual && fill > 0.7);
    usual > 0.0 && !(speck || level_rule || upright_rule || frame || picture)
}
