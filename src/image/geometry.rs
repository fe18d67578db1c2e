//! The steps of image processors that move pixels about, all on 8 bits.
//!
//! The formulas are those of transformers' slow image processors, integer truncations included.

use anyhow::{Result, ensure};

use super::Rgb8;
use super::filter::Filter;
use super::reduce::{gap_factors, reduce, resize_reduced, resize_with_gap};
use super::resample::{Window, resize, resize_window};

/// The most pixels that an intermediate image may have before it is made in bands.
const MAX_WHOLE: usize = 64 << 20;

/// The most pixels of an intermediate image at all. A page a thousand times longer than wide would
/// be enlarged to thousands of millions.
const MAX_PIXELS: usize = 2 << 30;

/// The size (height, width) at which the shorter side of `image` is `edge` long
/// (`get_resize_output_image_size`, not to a square).
pub fn shortest_edge_size(image: &Rgb8, edge: usize) -> (usize, usize) {
    let (height, width) = (image.height, image.width);
    let (short, long) = if width <= height { (width, height) } else { (height, width) };
    let long = scale(edge, long, short);
    if width <= height { (long, edge) } else { (edge, long) }
}

/// `int(a * b / c)` of Python.
pub(super) fn scale(a: usize, b: usize, c: usize) -> usize {
    ((a * b) as f64 / c as f64) as usize
}

/// Resizes to `size` (height, width) and crops the centre of `crop` (height, width) out of it;
/// black borders where the resized image is smaller than the crop.
pub fn resize_and_center_crop(
    image: &Rgb8,
    size: (usize, usize),
    filter: Filter,
    crop: (usize, usize),
) -> Result<Rgb8> {
    let (window, above, before) = center_window(size, crop);
    let kept = resize_window(image, size.1, size.0, filter, window)?;
    // The larger half of an odd border comes first.
    Ok(place(kept, crop, above.div_ceil(2), before.div_ceil(2)))
}

/// What of an image of `size` (height, width) is kept for the centre of `crop`, and how many rows
/// and columns are missing to the crop.
pub(super) fn center_window(size: (usize, usize), crop: (usize, usize)) -> (Window, usize, usize) {
    let part = |size: usize, crop: usize| match size.checked_sub(crop) {
        Some(more) => (more / 2, crop, 0),
        None => (0, size, crop - size),
    };
    let (top, height, above) = part(size.0, crop.0);
    let (left, width, before) = part(size.1, crop.1);
    (Window { left, top, width, height }, above, before)
}

/// Puts `image` on a black page of `size` (height, width), `top` and `left` pixels from its corner.
fn place(image: Rgb8, size: (usize, usize), top: usize, left: usize) -> Rgb8 {
    let (height, width) = size;
    if (image.height, image.width) == size {
        return image;
    }
    let mut data = vec![0; height * width * 3];
    let rows = data.chunks_exact_mut(width * 3).skip(top);
    for (row, source) in rows.zip(image.data.chunks_exact(image.width * 3)) {
        row[left * 3..(left + image.width) * 3].copy_from_slice(source);
    }
    Rgb8 { width, height, data }
}

/// Pads with black to `size` (height, width), the image in the middle (`pad_image`).
///
/// Fails when the image is larger than that.
pub fn pad(image: Rgb8, size: (usize, usize)) -> Result<Rgb8> {
    ensure!(
        image.height <= size.0 && image.width <= size.1,
        "an image of {}x{} pixels cannot be padded to {}x{}",
        image.width,
        image.height,
        size.1,
        size.0
    );
    let (top, left) = ((size.0 - image.height) / 2, (size.1 - image.width) / 2);
    Ok(place(image, size, top, left))
}

/// Turns an image by 90 degrees clockwise if it lies and `size` (height, width) stands, or the
/// other way round (`align_long_axis`).
pub fn align_long_axis(image: &Rgb8, size: (usize, usize)) -> Option<Rgb8> {
    let (height, width) = size;
    let turn = (width < height && image.width > image.height)
        || (width > height && image.width < image.height);
    turn.then(|| {
        let mut data = Vec::with_capacity(image.data.len());
        for x in 0..image.width {
            for y in (0..image.height).rev() {
                let at = (y * image.width + x) * 3;
                data.extend_from_slice(&image.data[at..at + 3]);
            }
        }
        Rgb8 { width: image.height, height: image.width, data }
    })
}

/// Cuts off the margin: what lies outside the box of all pixels that are dark once the image's
/// greys are stretched to 0..255 (`crop_margin`). None where there is nothing to cut.
pub fn crop_margin(image: &Rgb8) -> Option<Rgb8> {
    let greys: Vec<u8> = image.data.chunks_exact(3).map(luma).collect();
    let (min, max) = (*greys.iter().min()?, *greys.iter().max()?);
    if min == max {
        return None;
    }
    let range = f64::from(max - min);
    let dark: Vec<bool> = (0..=255u8)
        .map(|grey| f64::from(grey.saturating_sub(min)) / range * 255.0 < 200.0)
        .collect();
    let (mut left, mut right, mut top, mut bottom) = (image.width, 0, image.height, 0);
    for (y, row) in greys.chunks_exact(image.width).enumerate() {
        let is_dark = |&grey: &u8| dark[usize::from(grey)];
        let Some(first) = row.iter().position(is_dark) else { continue };
        let last = row.iter().rposition(is_dark).unwrap_or(first);
        left = left.min(first);
        right = right.max(last + 1);
        top = top.min(y);
        bottom = y + 1;
    }
    let rows = image.data.chunks_exact(image.width * 3).take(bottom).skip(top);
    let data = rows.flat_map(|row| &row[left * 3..right * 3]).copied().collect();
    Some(Rgb8 { width: right - left, height: bottom - top, data })
}

/// Pillow's conversion to grey: ITU-R 601 in 16 bits of fixed point.
fn luma(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8
}

/// Scales the shortest edge of a page to the smaller side of `size` (height, width); then, if
/// `shrink`, makes it fit `size`.
///
/// Both at once, since between the two a long strip of an image is far larger than before or after.
pub fn resize_page(
    image: &Rgb8,
    size: (usize, usize),
    filter: Filter,
    shrink: bool,
) -> Result<Rgb8> {
    let (height, width) = shortest_edge_size(image, size.0.min(size.1));
    ensure!(
        height.saturating_mul(width) <= MAX_PIXELS,
        "an image of {}x{} pixels is too narrow: enlarged to its page it would have {width}x{height}",
        image.width,
        image.height
    );
    if !shrink {
        return resize(image, width, height, filter);
    }
    let to = thumbnail_size((height, width), size);
    ensure!(
        to.0 > 0 && to.1 > 0,
        "an image of {}x{} pixels is too narrow for a page of {}x{}",
        image.width,
        image.height,
        size.1,
        size.0
    );
    if height * width <= MAX_WHOLE {
        return thumbnail(resize(image, width, height, filter)?, size);
    }
    // A quarter of what would be held whole, since each band is there twice on its way.
    let rows = MAX_WHOLE / 4 / width;
    resize_in_bands(image, [width, height], filter, [to.1, to.0], rows)
}

/// Resizes to `between` and from there to `to` (`[width, height]`) as [`thumbnail`] does, without
/// ever holding the image between: bands of about `rows` rows are reduced as they are made.
fn resize_in_bands(
    image: &Rgb8,
    between: [usize; 2],
    filter: Filter,
    to: [usize; 2],
    rows: usize,
) -> Result<Rgb8> {
    let [width, height] = between;
    let factors = gap_factors(between, to, GAP);
    // Whole blocks only, or the means would differ.
    let step = factors[1] * (rows / factors[1]).max(1);
    let mut reduced = Rgb8 {
        width: width.div_ceil(factors[0]),
        height: height.div_ceil(factors[1]),
        data: vec![],
    };
    for top in (0..height).step_by(step) {
        let window = Window { left: 0, top, width, height: step.min(height - top) };
        let band = resize_window(image, width, height, filter, window)?;
        reduced.data.extend(reduce(&band, factors).data);
    }
    resize_reduced(&reduced, between, factors, to, Filter::Bicubic)
}

/// Shrinks an image to fit `size` (height, width), the aspect ratio kept (`thumbnail`): bicubic
/// whatever `resample` says, with a reducing gap of 2.
pub fn thumbnail(image: Rgb8, size: (usize, usize)) -> Result<Rgb8> {
    let (height, width) = thumbnail_size((image.height, image.width), size);
    if (height, width) == (image.height, image.width) {
        return Ok(image);
    }
    resize_with_gap(&image, width, height, Filter::Bicubic, GAP)
}

/// `reducing_gap` of the thumbnail.
const GAP: f64 = 2.0;

/// The size (height, width) of the thumbnail of an image of size `from` within `size`.
fn thumbnail_size(from: (usize, usize), size: (usize, usize)) -> (usize, usize) {
    let (height, width) = (from.0.min(size.0), from.1.min(size.1));
    if (height, width) == from {
        from
    } else if from.0 > from.1 {
        (height, scale(from.1, height, from.0))
    } else if from.1 > from.0 {
        (scale(from.0, width, from.1), width)
    } else {
        (height, width)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::picture;
    use super::*;

    #[test]
    fn bands_give_the_same_page() {
        for (width, height, size) in [(90, 3, (50, 90)), (3, 90, (90, 50)), (61, 47, (17, 20))] {
            let image = picture(width, height, 0);
            let (height, width) = shortest_edge_size(&image, 40);
            let whole = resize(&image, width, height, Filter::Bilinear).unwrap();
            let expected = thumbnail(whole, size).unwrap();
            let to = [expected.width, expected.height];
            for rows in [1, 7, 1000] {
                let between = [width, height];
                let found = resize_in_bands(&image, between, Filter::Bilinear, to, rows).unwrap();
                assert_eq!(found, expected, "{between:?} in bands of {rows}");
            }
        }
    }

    #[test]
    fn a_page_that_nothing_is_left_of_is_refused() {
        let size = (64, 48);
        let strip = Rgb8 { width: 500, height: 3, data: vec![0; 4500] };
        let error = resize_page(&strip, size, Filter::Bilinear, true).unwrap_err().to_string();
        assert_eq!(error, "an image of 500x3 pixels is too narrow for a page of 48x64");
        let thread = Rgb8 { width: 60_000, height: 1, data: vec![0; 180_000] };
        let error = resize_page(&thread, (2560, 1920), Filter::Bilinear, true).unwrap_err();
        assert!(error.to_string().contains("is too narrow"), "{error}");
    }

    #[test]
    fn padding_does_not_shrink() {
        let image = Rgb8 { width: 5, height: 4, data: vec![9; 60] };
        assert!(pad(image.clone(), (4, 4)).is_err());
        let padded = pad(image, (5, 6)).unwrap();
        assert_eq!((padded.width, padded.height), (6, 5));
        // The odd row goes below, the odd column to the right.
        assert_eq!(padded.data[..15], [9; 15]);
        assert_eq!(padded.data[15..18], [0; 3]);
        assert_eq!(padded.data[72..], [0; 18]);
    }

    #[test]
    fn lying_images_are_turned_clockwise() {
        let image = Rgb8 { width: 3, height: 1, data: vec![1, 1, 1, 2, 2, 2, 3, 3, 3] };
        let turned = align_long_axis(&image, (9, 5)).unwrap();
        assert_eq!((turned.width, turned.height, turned.data), (1, 3, image.data.clone()));
        assert_eq!(align_long_axis(&image, (5, 9)), None);
        assert_eq!(align_long_axis(&image, (5, 5)), None);
        let image = Rgb8 { width: 3, height: 2, data: [1, 2, 3, 4, 5, 6].map(|v| [v; 3]).concat() };
        let turned = align_long_axis(&image, (9, 5)).unwrap();
        assert_eq!(turned.data, [4, 1, 5, 2, 6, 3].map(|v| [v; 3]).concat());
    }
}
