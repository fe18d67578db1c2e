//! Cropping, padding, turning: the moves of the reference's processors on 8-bit pictures.

use super::Rgb8;
use super::resample::{Filter, resize_with_gap};

/// A part of a picture that lies inside it.
fn cut(image: &Rgb8, top: usize, left: usize, height: usize, width: usize) -> Rgb8 {
    let data = (top..top + height)
        .flat_map(|y| {
            let start = (y * image.width + left) * 3;
            &image.data[start..start + width * 3]
        })
        .copied()
        .collect();
    Rgb8 { width, height, data }
}

/// A picture in a larger black one.
fn place(image: &Rgb8, top: usize, left: usize, height: usize, width: usize) -> Rgb8 {
    let mut data = vec![0u8; height * width * 3];
    for y in 0..image.height {
        let from = &image.data[y * image.width * 3..(y + 1) * image.width * 3];
        let start = ((top + y) * width + left) * 3;
        data[start..start + from.len()].copy_from_slice(from);
    }
    Rgb8 { width, height, data }
}

/// The middle of a picture; what a small one lacks is black (`image_transforms.center_crop`).
pub(super) fn center_crop(image: &Rgb8, height: usize, width: usize) -> Rgb8 {
    // Python's floor division also rounds negative halves down.
    let top = (image.height as i64 - height as i64).div_euclid(2);
    let left = (image.width as i64 - width as i64).div_euclid(2);
    if top >= 0 && left >= 0 {
        return cut(image, top as usize, left as usize, height, width);
    }
    let (new_height, new_width) = (height.max(image.height), width.max(image.width));
    let (top_pad, left_pad) =
        ((new_height - image.height).div_ceil(2), (new_width - image.width).div_ceil(2));
    let padded = place(image, top_pad, left_pad, new_height, new_width);
    let bounds = |start: i64, pad: usize, length: usize, limit: usize| {
        let start = start + pad as i64;
        let end = (start + length as i64).min(limit as i64);
        (start.max(0) as usize, (end - start.max(0)).max(0) as usize)
    };
    let (top, rows) = bounds(top, top_pad, height, new_height);
    let (left, columns) = bounds(left, left_pad, width, new_width);
    cut(&padded, top, left, rows, columns)
}

/// Black around a picture, the odd pixel below and right (Donut's `pad_image`).
pub(super) fn pad(image: &Rgb8, height: usize, width: usize) -> Rgb8 {
    let (height, width) = (height.max(image.height), width.max(image.width));
    place(image, (height - image.height) / 2, (width - image.width) / 2, height, width)
}

/// A quarter turn clockwise if the long sides of picture and size differ (Donut).
pub(super) fn align_long_axis(image: Rgb8, height: usize, width: usize) -> Rgb8 {
    let tall_wanted = width < height && image.width > image.height;
    let wide_wanted = width > height && image.width < image.height;
    if !tall_wanted && !wide_wanted {
        return image;
    }
    // numpy's rot90 with k = 3.
    let mut data = Vec::with_capacity(image.data.len());
    for x in 0..image.width {
        for y in (0..image.height).rev() {
            let at = (y * image.width + x) * 3;
            data.extend_from_slice(&image.data[at..at + 3]);
        }
    }
    Rgb8 { width: image.height, height: image.width, data }
}

/// Shrinks a picture that exceeds the size, keeping its aspect; bicubic with a reducing gap, whatever
/// `resample` says (Donut's `thumbnail`).
pub(super) fn thumbnail(image: Rgb8, height: usize, width: usize) -> Rgb8 {
    let (mut height, mut width) = (height.min(image.height), width.min(image.width));
    if (height, width) == (image.height, image.width) {
        return image;
    }
    if image.height > image.width {
        width = (image.width * height / image.height).max(1);
    } else if image.width > image.height {
        height = (image.height * width / image.width).max(1);
    }
    resize_with_gap(&image, width, height, Filter::Bicubic, 2.0)
}

/// Cuts away the light margin of a page (Nougat's `crop_margin`): what is darker than 200 of 255, after
/// stretching the greys, stays.
pub(super) fn crop_margin(image: Rgb8) -> Rgb8 {
    let grey: Vec<u8> = image
        .data
        .chunks_exact(3)
        .map(|p| {
            let sum = u32::from(p[0]) * 19595 + u32::from(p[1]) * 38470 + u32::from(p[2]) * 7471;
            ((sum + 0x8000) >> 16) as u8
        })
        .collect();
    let (min, max) = grey.iter().fold((255, 0), |(min, max), g| (min.min(*g), max.max(*g)));
    if min == max {
        return image;
    }
    let dark = |g: u8| f64::from(g - min) / f64::from(max - min) * 255.0 < 200.0;
    let (mut top, mut bottom, mut left, mut right) = (usize::MAX, 0, usize::MAX, 0);
    for (at, _) in grey.iter().enumerate().filter(|(_, g)| dark(**g)) {
        let (y, x) = (at / image.width, at % image.width);
        (top, bottom) = (top.min(y), bottom.max(y));
        (left, right) = (left.min(x), right.max(x));
    }
    cut(&image, top, left, bottom - top + 1, right - left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: usize, height: usize) -> Rgb8 {
        let data = (0..width * height).flat_map(|i| [i as u8 + 1; 3]).collect();
        Rgb8 { width, height, data }
    }

    fn first_channel(image: &Rgb8) -> Vec<u8> {
        image.data.iter().step_by(3).copied().collect()
    }

    #[test]
    fn the_middle_is_cut_or_padded() {
        assert_eq!(first_channel(&center_crop(&numbered(3, 3), 1, 2)), [4, 5]);
        // The reference pads the odd pixel before, then cuts by the floored offset.
        assert_eq!(first_channel(&center_crop(&numbered(2, 1), 1, 3)), [0, 1, 2]);
        assert_eq!(first_channel(&center_crop(&numbered(1, 2), 3, 1)), [0, 1, 2]);
    }

    #[test]
    fn turning_is_clockwise() {
        let turned = align_long_axis(numbered(3, 2), 30, 20);
        assert_eq!((turned.width, turned.height), (2, 3));
        assert_eq!(first_channel(&turned), [4, 1, 5, 2, 6, 3]);
    }

    #[test]
    fn padding_puts_the_odd_pixel_after() {
        assert_eq!(first_channel(&pad(&numbered(1, 1), 1, 4)), [0, 1, 0, 0]);
    }

    #[test]
    fn margins_go() {
        let mut page = Rgb8 { width: 4, height: 3, data: vec![250; 36] };
        for at in [5, 6] {
            page.data[at * 3..at * 3 + 3].fill(10);
        }
        let cropped = crop_margin(page);
        assert_eq!((cropped.width, cropped.height), (2, 1));
    }
}
