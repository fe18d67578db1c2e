//! From whatever a decoder gives to 8-bit RGB.

use ::image::DynamicImage;

use super::Rgb8;
use super::decode::Background;

/// Turns a decoded image into RGB, transparency laid over `background`.
///
/// 16-bit samples keep their high byte, as Pillow reads 16-bit RGB; rounding to the nearest of 256
/// levels would differ from it by one level in half of the cases.
pub(super) fn to_rgb8(image: DynamicImage, background: Background) -> Rgb8 {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let data = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLuma8(image) => grey(image.into_raw(), |v| v),
        DynamicImage::ImageLuma16(image) => grey(image.into_raw(), high_byte),
        DynamicImage::ImageRgb16(image) => image.into_raw().into_iter().map(high_byte).collect(),
        DynamicImage::ImageLumaA8(image) => {
            let pixels = image.into_raw();
            let pixels = pixels.chunks_exact(2).map(|p| [p[0], p[0], p[0], p[1]]);
            flatten(pixels, background)
        }
        DynamicImage::ImageLumaA16(image) => {
            let pixels = image.into_raw();
            let pixels = pixels.chunks_exact(2).map(|p| {
                let grey = high_byte(p[0]);
                [grey, grey, grey, high_byte(p[1])]
            });
            flatten(pixels, background)
        }
        DynamicImage::ImageRgba16(image) => {
            let pixels = image.into_raw();
            let pixels = pixels.chunks_exact(4).map(|p| [p[0], p[1], p[2], p[3]].map(high_byte));
            flatten(pixels, background)
        }
        // RGBA, and samples that are floats (TIFF only): 0 to 1, clipped.
        other => {
            let pixels = other.into_rgba8().into_raw();
            flatten(pixels.chunks_exact(4).map(|p| [p[0], p[1], p[2], p[3]]), background)
        }
    };
    Rgb8 { width, height, data }
}

fn high_byte(sample: u16) -> u8 {
    (sample >> 8) as u8
}

fn grey<T: Copy>(samples: Vec<T>, to_u8: impl Fn(T) -> u8) -> Vec<u8> {
    samples.into_iter().flat_map(|sample| [to_u8(sample); 3]).collect()
}

/// Lays RGBA pixels over the background.
fn flatten(pixels: impl Iterator<Item = [u8; 4]> + Clone, background: Background) -> Vec<u8> {
    let below = match background {
        Background::White => 255,
        Background::Black => 0,
        Background::Auto => contrast(pixels.clone()),
    };
    let over = |value: u8, alpha: u8| {
        let sum = u32::from(value) * u32::from(alpha) + below * u32::from(255 - alpha) + 128;
        // Divides by 255, rounded; the same as Pillow's paste with a mask.
        (((sum >> 8) + sum) >> 8) as u8
    };
    pixels.flat_map(|[r, g, b, alpha]| [r, g, b].map(|value| over(value, alpha))).collect()
}

/// The background that the visible pixels stand out from: black under light ones, white under dark
/// ones. A pixel counts as much as it is opaque; light is the luma of ITU-R 601.
fn contrast(pixels: impl Iterator<Item = [u8; 4]>) -> u32 {
    let (mut light, mut weight) = (0.0, 0.0);
    for [r, g, b, alpha] in pixels {
        let alpha = f64::from(alpha);
        light += alpha * (0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b));
        weight += alpha;
    }
    if light > 127.5 * weight { 0 } else { 255 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ::image::{ImageBuffer, LumaA, Rgb, Rgba};

    #[test]
    fn transparency_is_laid_over_the_background() {
        // Pillow 13: Image.new("RGB", size, background).paste(image, mask=image)
        let pixels = vec![200, 100, 0, 0, 200, 100, 0, 64, 200, 100, 0, 128, 200, 100, 0, 255];
        let image = ImageBuffer::<Rgba<u8>, _>::from_raw(4, 1, pixels).unwrap();
        let image = DynamicImage::ImageRgba8(image);
        let cases = [
            (Background::White, [255, 255, 255, 241, 216, 191, 227, 177, 127, 200, 100, 0]),
            (Background::Black, [0, 0, 0, 50, 25, 0, 100, 50, 0, 200, 100, 0]),
            // Luma 118.5: dark, so white.
            (Background::Auto, [255, 255, 255, 241, 216, 191, 227, 177, 127, 200, 100, 0]),
        ];
        for (background, expected) in cases {
            assert_eq!(to_rgb8(image.clone(), background).data, expected, "{background:?}");
        }
    }

    #[test]
    fn light_pixels_get_a_black_background() {
        let image = ImageBuffer::<LumaA<u8>, _>::from_raw(2, 1, vec![0, 0, 240, 255]).unwrap();
        let image = to_rgb8(DynamicImage::ImageLumaA8(image), Background::Auto);
        assert_eq!(image.data, [0, 0, 0, 240, 240, 240]);
    }

    #[test]
    fn sixteen_bits_keep_the_high_byte() {
        let image = ImageBuffer::<Rgb<u16>, _>::from_raw(1, 1, vec![0xFFFF, 0x80FF, 0x7F00]);
        let image = to_rgb8(DynamicImage::ImageRgb16(image.unwrap()), Background::White);
        assert_eq!(image.data, [255, 128, 127]);
    }
}
