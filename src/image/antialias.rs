//! PyTorch's antialiased resize of floats, to the bit.
//!
//! `F.resize` of torchvision ends in `_upsample_bilinear2d_aa` and `_upsample_bicubic2d_aa`
//! (`UpSampleKernel.cpp`): as Pillow's resize, a horizontal pass and a vertical one, with filters
//! that widen when the image shrinks; but weights, sums and what is between the passes are f32.
//!
//! Its bits are those of the kernels that CPUs with AVX2 or AVX-512 run. The compiler of PyTorch
//! takes the pixels after the first four by four, as products that are rounded and then added in
//! order, and fuses multiplication and addition for those left over; it fuses them in the cubic
//! too. Builds for other CPUs are an ulp away in places.

use super::Rgb8;
use super::filter::Filter;
use super::resample::Window;

/// Pixels whose products are made at once.
const LANES: usize = 4;

/// The part `window` of `image` with its values replaced by `levels` and resized to `size`
/// (height, width), bilinear or else bicubic: `[h, w, 3]` bytes to `[h', w', 3]` floats.
///
/// What is between the passes is held for one row at a time: a tall strip would be far too wide.
pub(super) fn resize_floats(
    image: &Rgb8,
    levels: &[f32; 256],
    size: (usize, usize),
    filter: Filter,
    window: Window,
) -> Vec<f32> {
    let rows = Axis::new(image.height, size.0, filter, window.top, window.height);
    let columns = Axis::new(image.width, size.1, filter, window.left, window.width);
    let stride = window.width * 3;
    let mut out = vec![0f32; window.height * stride];
    let mut source = vec![0f32; image.width * 3];
    let mut line = vec![0f32; stride];
    // The rows of the output that may take from the row at hand.
    let (mut first, mut end) = (0, 0);
    for (y, bytes) in image.data.chunks_exact(image.width * 3).enumerate() {
        while first < window.height && rows.end(first) <= y {
            first += 1;
        }
        while end < window.height && rows.starts[end] <= y {
            end += 1;
        }
        if first >= end {
            continue;
        }
        for (value, byte) in source.iter_mut().zip(bytes) {
            *value = levels[usize::from(*byte)];
        }
        columns.horizontal(&source, &mut line);
        for row in first..end {
            let out = &mut out[row * stride..][..stride];
            rows.add(row, y, &line, out);
        }
    }
    out
}

/// For each output pixel of a side: where its source pixels begin, and their weights.
struct Axis {
    starts: Vec<usize>,
    taps: Vec<Vec<f32>>,
}

impl Axis {
    /// The output pixels `first..first + len` of a side of `from` pixels that is scaled to `to`
    /// (`_compute_indices_min_size_weights_aa`).
    fn new(from: usize, to: usize, filter: Filter, first: usize, len: usize) -> Self {
        if from == to {
            // The weights come to 1 and zeros.
            return Axis { starts: (first..first + len).collect(), taps: vec![vec![1.0]; len] };
        }
        let scale = from as f32 / to as f32;
        let support = filter.support() as f32 * scale.max(1.0);
        let most = support.ceil() as usize * 2 + 1;
        let inverse = (1.0 / f64::from(scale.max(1.0))) as f32;
        let mut axis = Axis { starts: Vec::with_capacity(len), taps: Vec::with_capacity(len) };
        for i in first..first + len {
            let center = (f64::from(scale) * (i as f64 + 0.5)) as f32;
            // Casts of f64 to usize truncate, and stop at 0 as the reference does. That there is a
            // pixel at all is sure but for sides beyond the whole numbers of f32.
            let start = (f64::from(center - support) + 0.5) as usize;
            let start = start.min(from - 1);
            let end = ((f64::from(center + support) + 0.5) as usize).min(from);
            let count = end.saturating_sub(start).clamp(1, most);
            let weight = |j: usize| {
                let distance = f64::from((start + j) as f32 - center) + 0.5;
                weight(filter, (distance * f64::from(inverse)) as f32)
            };
            let mut taps: Vec<f32> = (0..count).map(weight).collect();
            let sum = taps.iter().fold(0f32, |sum, tap| sum + tap);
            if sum != 0.0 {
                taps.iter_mut().for_each(|tap| *tap /= sum);
            }
            axis.starts.push(start);
            axis.taps.push(taps);
        }
        axis
    }

    /// One past the last source pixel of an output pixel.
    fn end(&self, index: usize) -> usize {
        self.starts[index] + self.taps[index].len()
    }

    /// A row of pixels, resampled.
    fn horizontal(&self, source: &[f32], out: &mut [f32]) {
        let places = self.starts.iter().zip(&self.taps).zip(out.chunks_exact_mut(3));
        for ((&start, taps), out) in places {
            let pixels = source[start * 3..].chunks_exact(3);
            for (j, (&tap, pixel)) in taps.iter().zip(pixels).enumerate() {
                add(j, taps.len(), tap, pixel, out);
            }
        }
    }

    /// Adds the source row `y` to the output row `row`, whose earlier source rows have been added.
    fn add(&self, row: usize, y: usize, line: &[f32], out: &mut [f32]) {
        let taps = &self.taps[row];
        if let Some((j, &tap)) =
            y.checked_sub(self.starts[row]).and_then(|j| Some((j, taps.get(j)?)))
        {
            add(j, taps.len(), tap, line, out);
        }
    }
}

/// Adds the `j`th of `count` weighted values to sums, which begin with the first.
fn add(j: usize, count: usize, tap: f32, values: &[f32], sums: &mut [f32]) {
    let rounded = 1 + (count - 1) / LANES * LANES;
    let pairs = sums.iter_mut().zip(values);
    if j == 0 {
        pairs.for_each(|(sum, value)| *sum = value * tap);
    } else if j < rounded {
        pairs.for_each(|(sum, value)| *sum += value * tap);
    } else {
        pairs.for_each(|(sum, value)| *sum = value.mul_add(tap, *sum));
    }
}

/// The weight at distance `x` (`aa_filter`).
fn weight(filter: Filter, x: f32) -> f32 {
    let x = x.abs();
    match filter {
        Filter::Bilinear if x < 1.0 => 1.0 - x,
        // Keys' cubic with a = -0.5.
        Filter::Bicubic if x < 1.0 => (1.5f32.mul_add(x, -2.5) * x).mul_add(x, 1.0),
        Filter::Bicubic if x < 2.0 => (-0.5f32).mul_add(x, 2.5).mul_add(x, -4.0).mul_add(x, 2.0),
        _ => 0.0,
    }
}
