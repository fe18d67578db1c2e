//! Pillow's resize, to the bit.
//!
//! Hugging Face checkpoints were trained on images that Pillow resized, so its 8-bit arithmetic is
//! followed exactly: weights in f64, turned into fixed point with 22 fractional bits, a horizontal
//! pass rounded to u8, then a vertical pass. The filters widen when the image shrinks
//! (antialiasing). [`resize_window`] computes a part of the result only, with the same bits:
//! a resize followed by a crop costs no more than what is kept.

use anyhow::{Result, bail, ensure};

use super::Rgb8;

/// Fractional bits of the fixed-point weights: 32, less 8 for the pixel, less 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Rounding term of the fixed-point sums.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// A resampling filter, under Pillow's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Filter {
    /// The filter of Pillow's number, the value of `resample` in preprocessor_config.json.
    pub fn from_code(code: u64) -> Result<Self> {
        Ok(match code {
            0 => Filter::Nearest,
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            4 => Filter::Box,
            5 => Filter::Hamming,
            _ => bail!(
                "resample = {code} is not supported; the filters are 0 (nearest), 1 (lanczos), \
                 2 (bilinear), 3 (bicubic), 4 (box) and 5 (hamming)"
            ),
        })
    }

    /// Pillow's number of the filter.
    pub fn code(self) -> u64 {
        match self {
            Filter::Nearest => 0,
            Filter::Lanczos => 1,
            Filter::Bilinear => 2,
            Filter::Bicubic => 3,
            Filter::Box => 4,
            Filter::Hamming => 5,
        }
    }

    /// Half the width of the filter, in source pixels when enlarging.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// The weight at distance `x` from the centre.
    fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Filter::Nearest | Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - distance).max(0.0),
            Filter::Hamming if distance == 0.0 => 1.0,
            Filter::Hamming if distance < 1.0 => {
                let angle = distance * std::f64::consts::PI;
                // Pillow keeps these two constants in single precision.
                angle.sin() / angle * (f64::from(0.54f32) + f64::from(0.46f32) * angle.cos())
            }
            // Keys' cubic with a = -0.5.
            Filter::Bicubic if distance < 1.0 => (1.5 * distance - 2.5) * distance * distance + 1.0,
            Filter::Bicubic if distance < 2.0 => {
                (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
            }
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Hamming | Filter::Bicubic | Filter::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * std::f64::consts::PI;
    angle.sin() / angle
}

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

/// `image.resize((width, height), filter, reducing_gap=gap)` of Pillow: whole blocks of pixels are
/// averaged first while the rest of the way stays at least `gap` times the target, then resized.
pub fn resize_with_gap(
    image: &Rgb8,
    width: usize,
    height: usize,
    filter: Filter,
    gap: f64,
) -> Result<Rgb8> {
    ensure!(width > 0 && height > 0, "cannot resize an image to {width}x{height} pixels");
    let from = [image.width, image.height];
    let factors = gap_factors(from, [width, height], gap);
    if from == [width, height] || filter == Filter::Nearest || factors == [1, 1] {
        return resize(image, width, height, filter);
    }
    resize_reduced(&reduce(image, factors), from, factors, [width, height], filter)
}

/// By how much Pillow reduces an image of size `from` on its way to size `to` (`[width, height]`,
/// no side 0), so that the size stays at least `gap` times the target.
pub fn gap_factors(from: [usize; 2], to: [usize; 2], gap: f64) -> [usize; 2] {
    let factor = |side: usize| ((from[side] as f64 / to[side] as f64 / gap) as usize).max(1);
    [factor(0), factor(1)]
}

/// Resizes to `to` what [`reduce`] made with `factors` out of an image of size `from`.
pub fn resize_reduced(
    reduced: &Rgb8,
    from: [usize; 2],
    factors: [usize; 2],
    to: [usize; 2],
    filter: Filter,
) -> Result<Rgb8> {
    // The last block of a side may be partial, so the area to scale ends inside the last pixel.
    // Pillow hands it over in single precision.
    let side = |side: usize| f64::from((from[side] as f64 / factors[side] as f64) as f32);
    resize_area(reduced, [side(0), side(1)], to, filter, Window::whole(to[0], to[1]))
}

/// `image.reduce((fx, fy))` of Pillow: the mean of each block of `fx` by `fy` pixels, partial
/// blocks at the right and the bottom included. `fx` and `fy` are at least 1.
pub fn reduce(image: &Rgb8, [fx, fy]: [usize; 2]) -> Rgb8 {
    let (width, height) = (image.width.div_ceil(fx), image.height.div_ceil(fy));
    let mut data = Vec::with_capacity(width * height * 3);
    let mut sums = vec![0u32; width * 3];
    for band in image.data.chunks(image.width * 3 * fy) {
        sums.fill(0);
        let rows = band.len() / (image.width * 3);
        for row in band.chunks_exact(image.width * 3) {
            for (sum, block) in sums.chunks_exact_mut(3).zip(row.chunks(fx * 3)) {
                for pixel in block.chunks_exact(3) {
                    sum[0] += u32::from(pixel[0]);
                    sum[1] += u32::from(pixel[1]);
                    sum[2] += u32::from(pixel[2]);
                }
            }
        }
        for (x, sum) in sums.chunks_exact(3).enumerate() {
            let count = rows * fx.min(image.width - x * fx);
            // Pillow divides by multiplying with a rounded-down reciprocal of 24 bits.
            let reciprocal = (1u64 << 24) / count as u64;
            let mean = |sum: u32| ((u64::from(sum) + count as u64 / 2) * reciprocal) >> 24;
            data.extend(sum.iter().map(|&sum| mean(sum) as u8));
        }
    }
    Rgb8 { width, height, data }
}

/// Scales the area `[width, height]` at the image's origin to `size`, and keeps `window` of it.
fn resize_area(
    image: &Rgb8,
    area: [f64; 2],
    size: [usize; 2],
    filter: Filter,
    window: Window,
) -> Result<Rgb8> {
    let [width, height] = size;
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
    // The vertical pass reads these rows only; the horizontal pass need not make others.
    let (first, last) = rows.span();
    let source = &image.data[first * image.width * 3..last * image.width * 3];
    let narrowed = match &columns {
        Axis::Copied { start, len } => crop_columns(source, image.width, *start, *len),
        Axis::Weighted(weights) => horizontal(source, image.width, weights),
    };
    let data = match &rows {
        Axis::Copied { .. } => narrowed,
        Axis::Weighted(weights) => vertical(&narrowed, window.width, weights, first),
    };
    Ok(Rgb8 { width: window.width, height: window.height, data })
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

fn crop_columns(source: &[u8], width: usize, start: usize, len: usize) -> Vec<u8> {
    if len == width {
        return source.to_vec();
    }
    let rows = source.chunks_exact(width * 3);
    rows.flat_map(|row| &row[start * 3..(start + len) * 3]).copied().collect()
}

/// Each row of `source`, resampled.
fn horizontal(source: &[u8], width: usize, weights: &Weights) -> Vec<u8> {
    let rows = source.len() / (width * 3);
    let mut data = vec![0; rows * weights.starts.len() * 3];
    let out_rows = data.chunks_exact_mut((weights.starts.len() * 3).max(1));
    for (row, out_row) in source.chunks_exact(width * 3).zip(out_rows) {
        for ((start, taps), out) in weights.iter().zip(out_row.chunks_exact_mut(3)) {
            let mut sums = [HALF; 3];
            let pixels = row[start * 3..(start + taps.len()) * 3].chunks_exact(3);
            for (&tap, pixel) in taps.iter().zip(pixels) {
                sums[0] += tap * i32::from(pixel[0]);
                sums[1] += tap * i32::from(pixel[1]);
                sums[2] += tap * i32::from(pixel[2]);
            }
            out.copy_from_slice(&sums.map(to_pixel));
        }
    }
    data
}

/// Each column of `source`, whose first row is row `first` of the image, resampled.
fn vertical(source: &[u8], width: usize, weights: &Weights, first: usize) -> Vec<u8> {
    let stride = width * 3;
    let mut data = Vec::with_capacity(weights.starts.len() * stride);
    let mut sums = vec![HALF; stride];
    for (start, taps) in weights.iter() {
        sums.fill(HALF);
        let rows = source[(start - first) * stride..].chunks_exact(stride.max(1));
        for (&tap, row) in taps.iter().zip(rows) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += tap * i32::from(value);
            }
        }
        data.extend(sums.iter().map(|&sum| to_pixel(sum)));
    }
    data
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
