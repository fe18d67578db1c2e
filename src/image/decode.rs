//! A file's bytes become an upright 8-bit RGB picture, as Pillow's `exif_transpose` and `convert("RGB")`
//! would make it, except that transparency shows a background and 16 bits are scaled to 8.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use anyhow::{Result, anyhow, bail, ensure};

use super::{Rgb8, magic};

/// What lies behind transparent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    White,
    Black,
    /// White or black, whichever sets the visible pixels off more.
    Auto,
}

/// How a file is decoded.
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    /// Turn the picture as its EXIF orientation says.
    pub apply_exif: bool,
    pub background: Background,
    /// Larger pictures are refused, by their header, in million pixels.
    pub max_mpixels: f64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions { apply_exif: true, background: Background::White, max_mpixels: 250.0 }
    }
}

/// A decoded picture.
pub struct Decoded {
    pub image: Rgb8,
    /// EXIF orientation as found, 1 to 8; 1 is upright.
    pub orientation: u8,
    pub width: usize,
    pub height: usize,
}

/// Decodes PNG, JPEG, GIF (first frame), WebP, TIFF (first page), BMP and PNM, by content.
///
/// Errors are sentences without the file's name: "not an image (..)", too large, damaged.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Decoded> {
    let Ok(format) = ::image::guess_format(bytes) else { return Err(magic::refuse(bytes)) };
    let supported = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Gif,
        ImageFormat::WebP,
        ImageFormat::Tiff,
        ImageFormat::Bmp,
        ImageFormat::Pnm,
    ];
    if !supported.contains(&format) {
        return Err(magic::refuse(bytes));
    }
    let name = format!("{format:?}").to_ascii_uppercase();
    // A decoder that panics on hostile bytes must not take the batch with it.
    match catch_unwind(AssertUnwindSafe(|| decode_as(format, bytes, options, &name))) {
        Ok(outcome) => outcome,
        Err(_) => bail!("the {name} file is damaged: its decoder gave up"),
    }
}

fn decode_as(
    format: ImageFormat,
    bytes: &[u8],
    options: &DecodeOptions,
    name: &str,
) -> Result<Decoded> {
    let damaged = |error: ::image::ImageError| {
        let text = error.to_string();
        anyhow!("the {name} file can't be decoded: {}", text.lines().next().unwrap_or_default())
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // Eight bytes a pixel of the largest picture allowed, and room for tables.
    limits.max_alloc = Some((options.max_mpixels * 8e6) as u64 + (64 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let mpixels = f64::from(width) * f64::from(height) / 1e6;
    ensure!(
        mpixels <= options.max_mpixels,
        "the picture is {width}x{height}, {mpixels:.0} million pixels; --max-image-mpixels {} is the limit",
        options.max_mpixels
    );
    ensure!(width > 0 && height > 0, "the picture is {width}x{height}: it has no pixels");
    if format == ImageFormat::Jpeg {
        ensure!(jpeg_is_whole(bytes), "the JPEG file is damaged: it ends too early");
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    if options.apply_exif {
        picture.apply_orientation(orientation);
    }
    let image = flatten(picture, options.background);
    let (width, height) = (image.width, image.height);
    Ok(Decoded { image, orientation: orientation.to_exif(), width, height })
}

/// Follows a JPEG's segments to its end marker. The decoder would fill what is missing with grey.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0xFF)) {
        at += found;
        let Some(marker) = bytes.get(at + 1) else { return false };
        match marker {
            0xD9 => return true,
            // Stuffed zero, fill byte, restart markers: inside the entropy-coded data.
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            0xFF => at += 1,
            _ => {
                let Some(length) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
    false
}

/// Any colour type to RGB, 8 bits. 16-bit samples keep their high byte, as Pillow does for colour
/// pictures (for grey ones it clips, which leaves nothing of most).
fn flatten(picture: DynamicImage, background: Background) -> Rgb8 {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let high = |sample: u16| (sample >> 8) as u8;
    let data = match picture {
        DynamicImage::ImageRgb8(picture) => picture.into_raw(),
        DynamicImage::ImageLuma8(picture) => spread(picture.into_raw()),
        DynamicImage::ImageLuma16(picture) => {
            spread(picture.into_raw().into_iter().map(high).collect())
        }
        DynamicImage::ImageRgb16(picture) => picture.into_raw().into_iter().map(high).collect(),
        DynamicImage::ImageLumaA8(picture) => {
            let pixels = picture.into_raw();
            let wide: Vec<u8> =
                pixels.chunks_exact(2).flat_map(|p| [p[0], p[0], p[0], p[1]]).collect();
            composite(&wide, background)
        }
        DynamicImage::ImageLumaA16(picture) => {
            let pixels = picture.into_raw();
            let wide: Vec<u8> = pixels
                .chunks_exact(2)
                .flat_map(|p| [high(p[0]), high(p[0]), high(p[0]), high(p[1])])
                .collect();
            composite(&wide, background)
        }
        DynamicImage::ImageRgba8(picture) => composite(&picture.into_raw(), background),
        DynamicImage::ImageRgba16(picture) => {
            let bytes: Vec<u8> = picture.into_raw().into_iter().map(high).collect();
            composite(&bytes, background)
        }
        other if other.color().has_alpha() => composite(&other.to_rgba8().into_raw(), background),
        other => other.to_rgb8().into_raw(),
    };
    Rgb8 { width, height, data }
}

fn spread(grey: Vec<u8>) -> Vec<u8> {
    grey.into_iter().flat_map(|value| [value; 3]).collect()
}

/// RGBA over a plain background, rounded as Pillow's `paste` rounds.
fn composite(rgba: &[u8], background: Background) -> Vec<u8> {
    let back = match background {
        Background::White => 255,
        Background::Black => 0,
        Background::Auto if visible_mean(rgba) > 127.5 => 0,
        Background::Auto => 255,
    };
    let over = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        let sum = value * alpha + back * (255 - alpha) + 128;
        (((sum >> 8) + sum) >> 8) as u8
    };
    rgba.chunks_exact(4)
        .flat_map(|p| [over(p[0], p[3]), over(p[1], p[3]), over(p[2], p[3])])
        .collect()
}

/// Mean brightness of what can be seen, weighted by its opacity.
fn visible_mean(rgba: &[u8]) -> f64 {
    let (mut sum, mut weight) = (0.0, 0.0);
    for p in rgba.chunks_exact(4) {
        let alpha = f64::from(p[3]);
        let grey = f64::from(p[0]) * 0.299 + f64::from(p[1]) * 0.587 + f64::from(p[2]) * 0.114;
        sum += grey * alpha;
        weight += alpha;
    }
    if weight > 0.0 { sum / weight } else { 0.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ::image::{GrayAlphaImage, ImageBuffer, Luma, Rgb, RgbImage, RgbaImage};

    fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn decoded(bytes: &[u8]) -> Vec<u8> {
        decode(bytes, &DecodeOptions::default()).unwrap().image.data
    }

    /// Two wide, three high, each pixel another.
    fn six() -> RgbImage {
        RgbImage::from_fn(2, 3, |x, y| Rgb([(y * 2 + x) as u8 * 40, 10, 200]))
    }

    #[test]
    fn lossless_formats_are_exact() {
        for format in [
            ImageFormat::Png,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::WebP,
            ImageFormat::Pnm,
        ] {
            assert_eq!(decoded(&encode(six(), format)), six().into_raw(), "{format:?}");
        }
    }

    #[test]
    fn transparency_shows_the_background() {
        let picture = RgbaImage::from_raw(3, 1, vec![9, 9, 9, 0, 100, 0, 200, 128, 1, 2, 3, 255]);
        let png = encode(picture.unwrap(), ImageFormat::Png);
        let table = [
            (Background::White, [255, 255, 255, 177, 127, 227, 1, 2, 3]),
            (Background::Black, [0, 0, 0, 50, 0, 100, 1, 2, 3]),
            (Background::Auto, [255, 255, 255, 177, 127, 227, 1, 2, 3]),
        ];
        for (background, expected) in table {
            let options = DecodeOptions { background, ..DecodeOptions::default() };
            assert_eq!(decode(&png, &options).unwrap().image.data, expected, "{background:?}");
        }
    }

    #[test]
    fn deep_and_grey_samples_are_scaled() {
        let deep = ImageBuffer::from_raw(2, 1, vec![0u16, 0x1234]).unwrap();
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> = deep;
        assert_eq!(decoded(&encode(deep, ImageFormat::Png)), [0, 0, 0, 0x12, 0x12, 0x12]);
        let grey = GrayAlphaImage::from_raw(2, 1, vec![7, 255, 7, 0]).unwrap();
        assert_eq!(decoded(&encode(grey, ImageFormat::Png)), [7, 7, 7, 255, 255, 255]);
    }

    /// A JPEG of `six` with an EXIF segment that says `orientation`.
    fn oriented(orientation: u8) -> Vec<u8> {
        let jpeg = encode(six(), ImageFormat::Jpeg);
        let mut tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let mut bytes = jpeg[..2].to_vec();
        bytes.extend([0xFF, 0xE1]);
        bytes.extend((tiff.len() as u16 + 2).to_be_bytes());
        bytes.extend(tiff);
        bytes.extend(&jpeg[2..]);
        bytes
    }

    #[test]
    fn orientations_are_applied() {
        let upright = decoded(&oriented(1));
        let pixel = |data: &[u8], at: usize| data[at * 3];
        // Which pixel of the stored 2x3 picture comes first, and how wide the upright one is.
        let table = [
            (1, 0, 2),
            (2, 1, 2),
            (3, 5, 2),
            (4, 4, 2),
            (5, 0, 3),
            (6, 4, 3),
            (7, 5, 3),
            (8, 1, 3),
        ];
        for (orientation, first, width) in table {
            let found = decode(&oriented(orientation), &DecodeOptions::default()).unwrap();
            assert_eq!((found.orientation, found.width), (orientation, width));
            assert_eq!(pixel(&found.image.data, 0), pixel(&upright, first), "{orientation}");
        }
        let options = DecodeOptions { apply_exif: false, ..DecodeOptions::default() };
        assert_eq!(decode(&oriented(6), &options).unwrap().width, 2);
    }

    #[test]
    fn damage_is_told() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp] {
            let bytes = encode(six(), format);
            let error = decode(&bytes[..bytes.len() * 2 / 3], &DecodeOptions::default()).err();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with("the "), "{format:?}: {error}");
        }
    }

    #[test]
    fn large_pictures_are_refused_by_their_header() {
        let png = encode(six(), ImageFormat::Png);
        let options = DecodeOptions { max_mpixels: 5e-6, ..DecodeOptions::default() };
        let error = decode(&png, &options).err().unwrap().to_string();
        assert!(error.contains("2x3") && error.contains("--max-image-mpixels"), "{error}");
    }
}
