//! Decoding: the bytes of an image file, of whatever kind, to upright 8-bit RGB.

use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use anyhow::{Context, Error, Result, anyhow, ensure};

use super::Rgb8;
use super::color::to_rgb8;
use super::sniff::{jpeg_is_complete, name, sniff};

/// What lies under transparent pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    #[default]
    White,
    Black,
    /// White or black, whichever the visible pixels stand out from.
    Auto,
}

/// How to decode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeOptions {
    /// Turn the image upright, as EXIF (or XMP) says.
    pub apply_exif: bool,
    pub background: Background,
    /// The largest image that is decoded, in millions of pixels.
    pub max_mpixels: f64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions { apply_exif: true, background: Background::White, max_mpixels: 250.0 }
    }
}

/// A decoded image.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Turned upright if [`DecodeOptions::apply_exif`] asked for it.
    pub image: Rgb8,
    /// The EXIF orientation in the file, 1 to 8; 1 where there is none.
    pub orientation: u8,
    /// The size in the file, before it is turned upright.
    pub width: usize,
    pub height: usize,
}

/// Decodes PNG, JPEG, GIF (first frame), WebP (first frame), TIFF (first page), BMP and PNM.
///
/// The size is checked before memory is taken for the pixels. Fails with a sentence for what is
/// not an image, is of a kind that is not read, too large, truncated or damaged; a panic inside a
/// decoder counts as damaged.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Decoded> {
    let format = sniff(bytes)?;
    catch_unwind(AssertUnwindSafe(|| decode_as(bytes, format, options)))
        .unwrap_or_else(|_| Err(anyhow!("damaged {} file (its decoder gave up)", name(format))))
}

fn decode_as(bytes: &[u8], format: ImageFormat, options: &DecodeOptions) -> Result<Decoded> {
    let explain = |error| explain(error, format, options);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(options));
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, options.max_mpixels)?;
    let orientation = orientation(&mut decoder);
    if format == ImageFormat::Jpeg {
        ensure!(jpeg_is_complete(bytes), "truncated JPEG file (it has no end)");
    }
    let image = DynamicImage::from_decoder(decoder).map_err(explain)?;
    let mut image = to_rgb8(image, options.background);
    if options.apply_exif && orientation != Orientation::NoTransforms {
        image = turn(image, orientation).context("cannot turn the image upright")?;
    }
    Ok(Decoded {
        image,
        orientation: orientation.to_exif(),
        width: width as usize,
        height: height as usize,
    })
}

/// Memory for decoders: room for the largest allowed image with 16-bit RGBA samples, twice, since
/// some decoders hold the image in two forms.
fn limits(options: &DecodeOptions) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some((options.max_mpixels * 1e6) as u64 * 16 + (64 << 20));
    limits
}

fn check_size(width: u32, height: u32, max_mpixels: f64) -> Result<()> {
    ensure!(width > 0 && height > 0, "the image is empty ({width}x{height} pixels)");
    let mpixels = f64::from(width) * f64::from(height) / 1e6;
    ensure!(
        mpixels <= max_mpixels,
        "the image has {width}x{height} pixels, which is {mpixels:.0} million and more than the \
         limit of {max_mpixels} million; --max-image-mpixels sets the limit"
    );
    Ok(())
}

/// The orientation that the file asks for. EXIF goes before XMP, as in Pillow; damaged metadata
/// does not make an image unreadable.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    match decoder.orientation() {
        Ok(orientation) if orientation != Orientation::NoTransforms => orientation,
        _ => decoder
            .xmp_metadata()
            .ok()
            .flatten()
            .and_then(|xmp| xmp_orientation(&xmp))
            .unwrap_or(Orientation::NoTransforms),
    }
}

/// `tiff:Orientation` in an XMP packet, written as an attribute or as an element.
fn xmp_orientation(xmp: &[u8]) -> Option<Orientation> {
    let key = b"tiff:Orientation";
    let at = xmp.windows(key.len()).position(|window| window == key)? + key.len();
    let value = xmp.get(at..)?;
    let digit = match value {
        [b'=', b'"' | b'\'', digit, ..] | [b'>', digit, ..] => digit,
        _ => return None,
    };
    Orientation::from_exif(digit.wrapping_sub(b'0'))
}

fn turn(image: Rgb8, orientation: Orientation) -> Option<Rgb8> {
    let image = RgbImage::from_raw(image.width as u32, image.height as u32, image.data)?;
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Some(Rgb8 { width, height, data: image.into_raw() })
}

/// A decoder's error as a sentence.
fn explain(error: ImageError, format: ImageFormat, options: &DecodeOptions) -> Error {
    let format = name(format);
    let end_of_file = [
        ErrorKind::UnexpectedEof.to_string(),
        "failed to fill whole buffer".to_owned(),
        "unexpected eof".to_owned(),
        "early eof".to_owned(),
    ];
    let says = error.to_string();
    let lower = says.to_lowercase();
    if end_of_file.iter().any(|words| lower.contains(words)) {
        return anyhow!("truncated {format} file (it ends too early)");
    }
    match error {
        ImageError::Limits(_) => anyhow!(
            "damaged {format} file (it asks for more memory than an image of {} million pixels)",
            options.max_mpixels
        ),
        ImageError::Unsupported(_) => {
            anyhow!("{format} file of a kind that is not supported ({says}); convert it to PNG")
        }
        _ => anyhow!("damaged {format} file ({says})"),
    }
}
