//! Resizing with Pillow's own arithmetic (`Resample.c`, `Reduce.c`): antialiased, in fixed point, each pass
//! rounded to 8 bits. Other resizers differ by a level here and there, and models notice.

use anyhow::{Result, bail};

use super::Rgb8;

/// Pillow's filters, with their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

/// Bits of the fixed-point weights (Pillow's PRECISION_BITS).
const PRECISION: u32 = 32 - 8 - 2;

impl Filter {
    /// The filter of a `resample` code in preprocessor_config.json.
    pub fn from_code(code: i64) -> Result<Self> {
        Ok(match code {
            0 => Filter::Nearest,
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            4 => Filter::Box,
            5 => Filter::Hamming,
            _ => bail!("resample {code} is no filter (0 to 5 are)"),
        })
    }

    /// Half the width of the filter at scale 1.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.0,
            Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| {
            if x == 0.0 {
                1.0
            } else {
                let x = x * std::f64::consts::PI;
                x.sin() / x
            }
        };
        match self {
            Filter::Nearest => 0.0,
            Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Hamming => match x.abs() {
                0.0 => 1.0,
                x if x >= 1.0 => 0.0,
                x => {
                    let x = x * std::f64::consts::PI;
                    x.sin() / x * (0.54 + 0.46 * x.cos())
                }
            },
            Filter::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Filter::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

/// The taps of one axis: for each output position its first input and its weights.
struct Taps {
    starts: Vec<usize>,
    counts: Vec<usize>,
    /// `width` weights an output position, in fixed point.
    weights: Vec<i32>,
    width: usize,
}

impl Taps {
    /// From the part of an axis that begins at `offset` and is `length` long (both may be fractional), of
    /// `input` pixels in all, to `output` pixels.
    fn new(filter: Filter, input: usize, output: usize, offset: f64, length: f64) -> Self {
        let scale = length / output as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let width = support.ceil() as usize * 2 + 1;
        let mut taps = Taps {
            starts: Vec::with_capacity(output),
            counts: Vec::with_capacity(output),
            weights: vec![0; output * width],
            width,
        };
        let mut exact = vec![0f64; width];
        for x in 0..output {
            let center = offset + (x as f64 + 0.5) * scale;
            // `as` truncates toward zero, as the C code does.
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let last = ((center + support + 0.5) as i64).clamp(0, input as i64) as usize;
            let count = last.saturating_sub(first);
            let mut sum = 0.0;
            for (j, weight) in exact[..count].iter_mut().enumerate() {
                *weight = filter.weight(((j + first) as f64 - center + 0.5) * (1.0 / filter_scale));
                sum += *weight;
            }
            for (j, weight) in exact[..count].iter().enumerate() {
                let weight = if sum != 0.0 { weight * (1.0 / sum) } else { *weight };
                let fixed = weight * f64::from(1u32 << PRECISION);
                taps.weights[x * width + j] =
                    if weight < 0.0 { (fixed - 0.5) as i32 } else { (fixed + 0.5) as i32 };
            }
            taps.starts.push(first);
            taps.counts.push(count);
        }
        taps
    }

    fn at(&self, x: usize) -> (usize, &[i32]) {
        (self.starts[x], &self.weights[x * self.width..x * self.width + self.counts[x]])
    }
}

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The whole picture at another size. A picture of that size already is copied.
pub fn resize(image: &Rgb8, width: usize, height: usize, filter: Filter) -> Rgb8 {
    let whole = (0.0, 0.0, image.width as f64, image.height as f64);
    resize_box(image, width, height, filter, whole)
}

/// Pillow's `resize(.., reducing_gap=gap)`: large pictures are first averaged over whole blocks.
pub fn resize_with_gap(
    image: &Rgb8,
    width: usize,
    height: usize,
    filter: Filter,
    gap: f64,
) -> Rgb8 {
    let factor = |from: usize, to: usize| ((from as f64 / to as f64 / gap) as usize).max(1);
    let (fx, fy) = (factor(image.width, width), factor(image.height, height));
    if fx == 1 && fy == 1 {
        return resize(image, width, height, filter);
    }
    let reduced = reduce(image, fx, fy);
    // The reduced picture may end in a partial block: the box stops where the original does.
    let part = (0.0, 0.0, image.width as f64 / fx as f64, image.height as f64 / fy as f64);
    resize_box(&reduced, width, height, filter, part)
}

/// Resizes the part (left, top, right, bottom) of a picture.
fn resize_box(
    image: &Rgb8,
    width: usize,
    height: usize,
    filter: Filter,
    part: (f64, f64, f64, f64),
) -> Rgb8 {
    let (left, top, right, bottom) = part;
    let whole = part == (0.0, 0.0, image.width as f64, image.height as f64);
    if whole && (width, height) == (image.width, image.height) {
        return image.clone();
    }
    if filter == Filter::Nearest {
        return nearest(image, width, height);
    }
    let needs_x = width != image.width || left != 0.0 || right != width as f64;
    let needs_y = height != image.height || top != 0.0 || bottom != height as f64;
    let mut result = std::borrow::Cow::Borrowed(image);
    if needs_x {
        let taps = Taps::new(filter, image.width, width, left, right - left);
        result = std::borrow::Cow::Owned(horizontal(&result, &taps, width));
    }
    if needs_y {
        let taps = Taps::new(filter, image.height, height, top, bottom - top);
        result = std::borrow::Cow::Owned(vertical(&result, &taps, height));
    }
    result.into_owned()
}

fn horizontal(image: &Rgb8, taps: &Taps, width: usize) -> Rgb8 {
    let mut data = vec![0u8; width * image.height * 3];
    let rows = image.data.chunks_exact(image.width * 3).zip(data.chunks_exact_mut(width * 3));
    for (from, to) in rows {
        for (x, pixel) in to.chunks_exact_mut(3).enumerate() {
            let (start, weights) = taps.at(x);
            let mut sums = [1i32 << (PRECISION - 1); 3];
            let inputs = from[start * 3..(start + weights.len()) * 3].chunks_exact(3);
            for (input, weight) in inputs.zip(weights) {
                sums[0] += i32::from(input[0]) * weight;
                sums[1] += i32::from(input[1]) * weight;
                sums[2] += i32::from(input[2]) * weight;
            }
            pixel.copy_from_slice(&sums.map(clip));
        }
    }
    Rgb8 { width, height: image.height, data }
}

fn vertical(image: &Rgb8, taps: &Taps, height: usize) -> Rgb8 {
    let row = image.width * 3;
    let mut data = vec![0u8; row * height];
    let mut sums = vec![0i32; row];
    for (y, to) in data.chunks_exact_mut(row).enumerate() {
        let (start, weights) = taps.at(y);
        sums.fill(1 << (PRECISION - 1));
        let inputs = image.data[start * row..(start + weights.len()) * row].chunks_exact(row);
        for (input, weight) in inputs.zip(weights) {
            for (sum, value) in sums.iter_mut().zip(input) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (value, sum) in to.iter_mut().zip(&sums) {
            *value = clip(*sum);
        }
    }
    Rgb8 { width: image.width, height, data }
}

fn nearest(image: &Rgb8, width: usize, height: usize) -> Rgb8 {
    let source = |i: usize, from: usize, to: usize| {
        (((i as f64 + 0.5) * (from as f64 / to as f64)) as usize).min(from - 1)
    };
    let columns: Vec<usize> = (0..width).map(|x| source(x, image.width, width)).collect();
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let start = source(y, image.height, height) * image.width;
        for x in &columns {
            let at = (start + x) * 3;
            data.extend_from_slice(&image.data[at..at + 3]);
        }
    }
    Rgb8 { width, height, data }
}

/// Averages blocks of fx by fy pixels; blocks cut by the edge average what they have.
fn reduce(image: &Rgb8, fx: usize, fy: usize) -> Rgb8 {
    let (width, height) = (image.width.div_ceil(fx), image.height.div_ceil(fy));
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let rows = y * fy..(y * fy + fy).min(image.height);
        for x in 0..width {
            let columns = x * fx..(x * fx + fx).min(image.width);
            let n = (rows.len() * columns.len()) as u64;
            let multiplier = (1u64 << 24) / n;
            let mut sums = [n / 2; 3];
            for row in rows.clone() {
                for column in columns.clone() {
                    let at = (row * image.width + column) * 3;
                    for (sum, value) in sums.iter_mut().zip(&image.data[at..at + 3]) {
                        *sum += u64::from(*value);
                    }
                }
            }
            data.extend(sums.map(|sum| ((sum * multiplier) >> 24) as u8));
        }
    }
    Rgb8 { width, height, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three equal channels.
    fn grey(width: usize, values: &[u8]) -> Rgb8 {
        let data = values.iter().flat_map(|value| [*value; 3]).collect();
        Rgb8 { width, height: values.len() / width, data }
    }

    fn first_channel(image: &Rgb8) -> Vec<u8> {
        image.data.iter().step_by(3).copied().collect()
    }

    const ROWS: [u8; 20] =
        [0, 50, 100, 150, 255, 10, 20, 30, 40, 50, 255, 128, 64, 32, 0, 5, 5, 5, 5, 5];

    #[test]
    fn filters_are_pillows() {
        let table: &[(Filter, [u8; 6])] = &[
            (Filter::Bilinear, [44, 66, 112, 90, 37, 15]),
            (Filter::Bicubic, [39, 67, 120, 97, 33, 4]),
            (Filter::Lanczos, [43, 67, 123, 99, 30, 0]),
            (Filter::Nearest, [10, 30, 50, 5, 5, 5]),
            (Filter::Box, [20, 65, 124, 99, 35, 11]),
            (Filter::Hamming, [24, 65, 126, 102, 37, 10]),
        ];
        for (filter, expected) in table {
            let found = resize(&grey(5, &ROWS), 3, 2, *filter);
            assert_eq!(first_channel(&found), expected, "{filter:?}");
        }
    }

    #[test]
    fn enlarging_is_pillows() {
        let table: &[(Filter, [u8; 7])] = &[
            (Filter::Bilinear, [0, 29, 64, 100, 136, 195, 255]),
            (Filter::Bicubic, [0, 25, 66, 103, 136, 207, 255]),
            (Filter::Lanczos, [4, 27, 72, 105, 130, 212, 255]),
            (Filter::Nearest, [0, 50, 50, 100, 150, 150, 255]),
            (Filter::Hamming, [0, 33, 55, 100, 145, 186, 255]),
        ];
        for (filter, expected) in table {
            let found = resize(&grey(5, &ROWS), 7, 5, *filter);
            assert_eq!(first_channel(&found)[..7], *expected, "{filter:?}");
        }
    }

    #[test]
    fn a_reducing_gap_averages_first() {
        let image = grey(8, &(0..48).map(|i| 5 * i).collect::<Vec<u8>>());
        let found = resize_with_gap(&image, 2, 2, Filter::Bicubic, 2.0);
        assert_eq!(first_channel(&found), [54, 72, 164, 182]);
        assert_eq!(first_channel(&resize(&image, 2, 2, Filter::Bicubic)), [53, 72, 163, 182]);
    }
}
