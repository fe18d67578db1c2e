//! Pillow's `reducing_gap`: images that shrink a lot are first averaged in whole blocks.

use anyhow::{Result, ensure};

use super::Rgb8;
use super::filter::Filter;
use super::resample::{Window, resize, resize_area};

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::resample::tests::grey;
    use super::*;

    #[test]
    fn a_reducing_gap_changes_a_little() {
        let row = |r: usize| std::array::from_fn::<u8, 8, _>(|c| (5 * (8 * r + c)) as u8);
        let image = grey(&[row(0), row(1), row(2), row(3), row(4), row(5)]);
        let with_gap = resize_with_gap(&image, 2, 2, Filter::Bicubic, 2.0).unwrap();
        assert_eq!(with_gap, grey(&[[54, 72], [164, 182]]));
        let without = resize(&image, 2, 2, Filter::Bicubic).unwrap();
        assert_eq!(without, grey(&[[53, 72], [163, 182]]));
    }

    #[test]
    fn partial_blocks_are_averaged_over_what_is_there() {
        // Pillow 13: Image.reduce((2, 2))
        let image = grey(&[[0, 50, 100], [10, 21, 30], [255, 128, 64]]);
        assert_eq!(reduce(&image, [2, 2]), grey(&[[20, 65], [192, 64]]));
        assert_eq!(reduce(&image, [1, 1]), image);
    }

    #[test]
    fn no_size_is_no_image() {
        let image = grey(&[[0, 50, 100]]);
        assert!(resize_with_gap(&image, 0, 3, Filter::Bilinear, 2.0).is_err());
        assert!(resize_with_gap(&image, 3, 0, Filter::Bilinear, 2.0).is_err());
    }
}
