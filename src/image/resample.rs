//! Pillow's resize, to the bit.
//!
//! Hugging Face checkpoints were trained on images that Pillow resized, so its 8-bit arithmetic is
//! followed exactly: weights in f64, turned into fixed point with 22 fractional bits, a horizontal
//! and a vertical pass, each rounded to u8. Pillow 13 goes vertically first where the height
//! shrinks much more than the width; Pillow up to 12 never does, and gives a level more or less in
//! some pixels then. The filters widen when the image shrinks (antialiasing). [`resize_window`]
//! computes a part of the result only, with the same bits: a resize followed by a crop costs no
//! more than what is kept.

use std::borrow::Cow;

use anyhow::{Result, ensure};

use super::Rgb8;
use super::filter::Filter;

/// Fractional bits of the fixed-point weights: 32, less 8 for the pixel, less 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Rounding term of the fixed-point sums.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// A rectangle of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

impl Window {
    /// The rectangle that holds a whole image of `width` by `height` pixels.
    pub fn whole(width: usize, height: usize) -> Self {
        Window { left: 0, top: 0, width, height }
    }
}

/// `image.resize((width, height), filter)` of Pillow.
///
/// Fails when a side is 0, as Pillow does.
pub fn resize(image: &Rgb8, width: usize, height: usize, filter: Filter) -> Result<Rgb8> {
    resize_window(image, width, height, filter, Window::whole(width, height))
}

/// The part `window` of what [`resize`] to `width` by `height` gives, without computing the rest.
///
/// Fails when a side is 0 or the window leaves the resized image.
pub fn resize_window(
    image: &Rgb8,
    width: usize,
    height: usize,
    filter: Filter,
    window: Window,
) -> Result<Rgb8> {
    let area = [image.width as f64, image.height as f64];
    resize_area(image, area, [width, height], filter, window)
}

/// Scales the area `[width, height]` at the image's origin to `size`, and keeps `window` of it.
pub(super) fn resize_area(
    image: &Rgb8,
    area: [f64; 2],
    size: [usize; 2],
    filter: Filter,
    window: Window,
) -> Result<Rgb8> {
    let [width, height] = size;
    ensure!(window.width > 0 && window.height > 0, "the window {window:?} is empty");
    ensure!(
        width > 0 && height > 0 && image.width > 0 && image.height > 0,
        "cannot resize an image of {}x{} to {width}x{height} pixels",
        image.width,
        image.height
    );
    ensure!(
        window.left + window.width <= width && window.top + window.height <= height,
        "the window {window:?} leaves the resized image of {width}x{height} pixels"
    );
    if filter == Filter::Nearest {
        return Ok(nearest(image, area, size, window));
    }
    let columns = Axis::new(image.width, area[0], width, filter, window.left, window.width);
    let rows = Axis::new(image.height, area[1], height, filter, window.top, window.height);
    // Only what the second pass reads is made by the first.
    let done = if vertical_first([image.width, image.height], size) {
        Grid::of(image, columns.span(), (0, image.height)).vertical(&rows).horizontal(&columns)
    } else {
        Grid::of(image, (0, image.width), rows.span()).horizontal(&columns).vertical(&rows)
    };
    Ok(Rgb8 { width: window.width, height: window.height, data: done.pixels.into_owned() })
}

/// Whether Pillow 13 makes the vertical pass first.
fn vertical_first(from: [usize; 2], to: [usize; 2]) -> bool {
    let lost = |side: usize| from[side] as i64 - to[side] as i64;
    lost(1) > 0 && lost(1) > 2 * lost(0)
}

/// What one side of the output is made of.
enum Axis {
    /// The side keeps its size: pixels `start..start + len` are taken as they are.
    Copied {
        start: usize,
        len: usize,
    },
    Weighted(Weights),
}

/// For each output pixel of a side: where its source pixels begin, and their weights.
struct Weights {
    starts: Vec<usize>,
    counts: Vec<usize>,
    /// `stride` fixed-point weights for each output pixel, `counts` of which are used.
    taps: Vec<i32>,
    stride: usize,
}

impl Axis {
    /// The output pixels `first..first + len` of a side of `from` pixels, of which the length
    /// `area` is scaled to `to` pixels.
    fn new(from: usize, area: f64, to: usize, filter: Filter, first: usize, len: usize) -> Self {
        if from == to && area == to as f64 {
            return Axis::Copied { start: first, len };
        }
        let scale = area / to as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let stride = support.ceil() as usize * 2 + 1;
        let inverse = 1.0 / filter_scale;
        let mut weights = Weights {
            starts: Vec::with_capacity(len),
            counts: Vec::with_capacity(len),
            taps: vec![0; len * stride],
            stride,
        };
        let mut exact = vec![0f64; stride];
        for (x, taps) in (first..first + len).zip(weights.taps.chunks_exact_mut(stride)) {
            let center = (x as f64 + 0.5) * scale;
            // Casts of f64 to usize truncate, and stop at 0 as Pillow does.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let count = end - start;
            let mut sum = 0.0;
            for (j, weight) in exact[..count].iter_mut().enumerate() {
                *weight = filter.weight(((j + start) as f64 - center + 0.5) * inverse);
                sum += *weight;
            }
            for (tap, &weight) in taps.iter_mut().zip(&exact[..count]) {
                let share = if sum == 0.0 { weight } else { weight / sum };
                let fixed = share * f64::from(1 << PRECISION_BITS);
                *tap = if share < 0.0 { (fixed - 0.5) as i32 } else { (fixed + 0.5) as i32 };
            }
            weights.starts.push(start);
            weights.counts.push(count);
        }
        Axis::Weighted(weights)
    }

    /// The source pixels that are read, from the first to one past the last.
    fn span(&self) -> (usize, usize) {
        match self {
            Axis::Copied { start, len } => (*start, start + len),
            Axis::Weighted(weights) => {
                let ends = weights.starts.iter().zip(&weights.counts).map(|(s, c)| s + c);
                (weights.starts.first().copied().unwrap_or(0), ends.max().unwrap_or(0))
            }
        }
    }
}

impl Weights {
    /// For each output pixel, the first source pixel and the weights from there on.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let taps = self.taps.chunks_exact(self.stride);
        self.starts.iter().zip(&self.counts).zip(taps).map(|((&s, &c), taps)| (s, &taps[..c]))
    }
}

/// Rounds a fixed-point sum to a pixel.
fn to_pixel(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// A part of an image on its way: rows of `width` pixels, the first of which lies at column `left`
/// and row `top` of the image that the weights are for.
struct Grid<'a> {
    pixels: Cow<'a, [u8]>,
    width: usize,
    left: usize,
    top: usize,
}

impl<'a> Grid<'a> {
    /// The columns and the rows of `image` from the first to one past the last.
    fn of(image: &'a Rgb8, columns: (usize, usize), rows: (usize, usize)) -> Self {
        let stride = image.width * 3;
        let pixels = Cow::Borrowed(&image.data[rows.0 * stride..rows.1 * stride]);
        let grid = Grid { pixels, width: image.width, left: 0, top: rows.0 };
        grid.crop_columns(columns.0, columns.1 - columns.0)
    }

    fn crop_columns(self, start: usize, len: usize) -> Self {
        if len == self.width {
            return self;
        }
        let rows = self.pixels.chunks_exact(self.width * 3);
        let first = (start - self.left) * 3;
        let pixels = rows.flat_map(|row| &row[first..first + len * 3]).copied().collect();
        Grid { pixels, width: len, left: start, top: self.top }
    }

    /// Each row, resampled.
    fn horizontal(self, columns: &Axis) -> Self {
        let weights = match columns {
            Axis::Copied { start, len } => return self.crop_columns(*start, *len),
            Axis::Weighted(weights) => weights,
        };
        let (stride, width) = (self.width * 3, weights.starts.len());
        let mut pixels = vec![0; self.pixels.len() / stride * width * 3];
        let out_rows = pixels.chunks_exact_mut(width * 3);
        for (row, out_row) in self.pixels.chunks_exact(stride).zip(out_rows) {
            for ((start, taps), out) in weights.iter().zip(out_row.chunks_exact_mut(3)) {
                let start = (start - self.left) * 3;
                let mut sums = [HALF; 3];
                let source = row[start..start + taps.len() * 3].chunks_exact(3);
                for (&tap, pixel) in taps.iter().zip(source) {
                    sums[0] += tap * i32::from(pixel[0]);
                    sums[1] += tap * i32::from(pixel[1]);
                    sums[2] += tap * i32::from(pixel[2]);
                }
                out.copy_from_slice(&sums.map(to_pixel));
            }
        }
        Grid { pixels: Cow::Owned(pixels), width, left: 0, top: self.top }
    }

    /// Each column, resampled.
    fn vertical(mut self, rows: &Axis) -> Self {
        let stride = self.width * 3;
        let weights = match rows {
            Axis::Copied { start, len } => {
                let kept = (start - self.top) * stride..(start - self.top + len) * stride;
                self.pixels = match self.pixels {
                    Cow::Borrowed(pixels) => Cow::Borrowed(&pixels[kept]),
                    Cow::Owned(pixels) => Cow::Owned(pixels[kept].to_vec()),
                };
                return self;
            }
            Axis::Weighted(weights) => weights,
        };
        let mut pixels = Vec::with_capacity(weights.starts.len() * stride);
        let mut sums = vec![HALF; stride];
        for (start, taps) in weights.iter() {
            sums.fill(HALF);
            let source = self.pixels[(start - self.top) * stride..].chunks_exact(stride);
            for (&tap, row) in taps.iter().zip(source) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += tap * i32::from(value);
                }
            }
            pixels.extend(sums.iter().map(|&sum| to_pixel(sum)));
        }
        Grid { pixels: Cow::Owned(pixels), ..self }
    }
}

/// Nearest neighbour. Pillow steps from centre to centre by adding, which is kept here: the sums
/// and not the products decide where a centre falls on a border.
fn nearest(image: &Rgb8, area: [f64; 2], size: [usize; 2], window: Window) -> Rgb8 {
    let positions = |area: f64, from: usize, to: usize, first: usize, len: usize| -> Vec<usize> {
        let step = area / to as f64;
        let centers = std::iter::successors(Some(step * 0.5), move |center| Some(center + step));
        centers.skip(first).take(len).map(|center| (center as usize).min(from - 1)).collect()
    };
    let columns = positions(area[0], image.width, size[0], window.left, window.width);
    let rows = positions(area[1], image.height, size[1], window.top, window.height);
    let mut data = Vec::with_capacity(window.width * window.height * 3);
    for y in rows {
        let row = &image.data[y * image.width * 3..(y + 1) * image.width * 3];
        for &x in &columns {
            data.extend_from_slice(&row[x * 3..x * 3 + 3]);
        }
    }
    Rgb8 { width: window.width, height: window.height, data }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// An image of greys from its rows.
    pub(in super::super) fn grey<const W: usize>(rows: &[[u8; W]]) -> Rgb8 {
        let data = rows.iter().flatten().flat_map(|&value| [value; 3]).collect();
        Rgb8 { width: W, height: rows.len(), data }
    }

    const IMAGE: [[u8; 5]; 4] =
        [[0, 50, 100, 150, 255], [10, 20, 30, 40, 50], [255, 128, 64, 32, 0], [5, 5, 5, 5, 5]];

    #[test]
    fn small_images_shrink_as_in_pillow() {
        let cases = [
            (Filter::Bilinear, [[44, 66, 112], [90, 37, 15]]),
            (Filter::Bicubic, [[39, 67, 120], [97, 33, 4]]),
            (Filter::Lanczos, [[43, 67, 123], [99, 30, 0]]),
            (Filter::Nearest, [[10, 30, 50], [5, 5, 5]]),
            (Filter::Box, [[20, 65, 124], [99, 35, 11]]),
            (Filter::Hamming, [[24, 65, 126], [102, 37, 10]]),
        ];
        for (filter, expected) in cases {
            assert_eq!(resize(&grey(&IMAGE), 3, 2, filter).unwrap(), grey(&expected), "{filter:?}");
        }
    }

    #[test]
    fn small_images_grow_as_in_pillow() {
        let cases = [
            (Filter::Bilinear, [0, 29, 64, 100, 136, 195, 255]),
            (Filter::Bicubic, [0, 25, 66, 103, 136, 207, 255]),
            (Filter::Lanczos, [4, 27, 72, 105, 130, 212, 255]),
            (Filter::Nearest, [0, 50, 50, 100, 150, 150, 255]),
            (Filter::Hamming, [0, 33, 55, 100, 145, 186, 255]),
        ];
        for (filter, expected) in cases {
            let found = resize(&grey(&IMAGE), 7, 5, filter).unwrap();
            assert_eq!(found.data[..21], grey(&[expected]).data, "{filter:?}");
        }
    }

    #[test]
    fn no_size_is_no_image() {
        for (width, height) in [(0, 3), (3, 0)] {
            assert!(resize(&grey(&IMAGE), width, height, Filter::Bilinear).is_err());
        }
    }
}
