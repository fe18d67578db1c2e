//! Decoding: the bytes of an image file, of whatever kind, to upright 8-bit RGB.

use std::error::Error as _;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ::image::codecs::gif::GifDecoder;
use ::image::error::UnsupportedErrorKind;
use ::image::metadata::Orientation;
use ::image::{
    AnimationDecoder, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
};
use anyhow::{Context, Error, Result, anyhow, ensure};

use super::Rgb8;
use super::bytes::{Bytes, Clock, Patch};
use super::color::to_rgb8;
use super::frames::{gif_frames, png_frames, webp_frames};
use super::ico::png_within;
use super::orientation::{orientation, turn};
use super::sniff::{is_complete, jpeg_scans, name, sniff};
use super::tiff::{self, Page};

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
    /// How long the decoding of one picture may take. Damaged and hostile files find ways to ask for
    /// hours; the largest allowed picture takes seconds.
    pub max_time: Duration,
}

/// The most pages or frames of one file that are read.
pub const MAX_PAGES: usize = 65_535;

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions {
            apply_exif: true,
            background: Background::White,
            max_mpixels: 250.0,
            max_time: Duration::from_secs(120),
        }
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

/// Decodes PNG, JPEG, GIF (first frame), WebP (first frame), TIFF (first page), BMP, PNM and ICO
/// (the best picture).
///
/// The size is checked before memory is taken for the pixels. Fails with a sentence for what is
/// not an image, is of a kind that is not read, too large, truncated or damaged; a panic inside a
/// decoder counts as damaged.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Decoded> {
    decode_page(bytes, 0, options)
}

/// Decodes one image of a file, counted from 0: a page of a TIFF, or a frame of a GIF as it is seen,
/// over what earlier frames left. Else as [`decode()`]; [`visit_pages`](super::visit_pages) goes through
/// the frames of all kinds of animations.
pub fn decode_page(bytes: &[u8], page: usize, options: &DecodeOptions) -> Result<Decoded> {
    match sniff(bytes)? {
        ImageFormat::Tiff => decode_tiff(bytes, &tiff::pages(bytes, MAX_PAGES), page, options),
        ImageFormat::Gif if page > 0 => {
            guarded(ImageFormat::Gif, || decode_frame(bytes, page, options))
        }
        format => guarded(format, || {
            ensure!(page == 0, "a {} file has no page {}", name(format), page + 1);
            decode_as(bytes, &[], format, options, |image| image)
        }),
    }
}

/// A page of a TIFF; `pages` are those of [`tiff::pages`].
pub(super) fn decode_tiff(
    bytes: &[u8],
    pages: &[usize],
    page: usize,
    options: &DecodeOptions,
) -> Result<Decoded> {
    guarded(ImageFormat::Tiff, || {
        let page = Page::of(bytes, pages, page)?;
        decode_as(bytes, &page.patches, ImageFormat::Tiff, options, |image| page.finish(image))
    })
}

/// A panic of a decoder is damage.
fn guarded<T>(format: ImageFormat, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(gave_up(format)))
}

/// The sentence for a decoder that panicked.
pub(super) fn gave_up(format: ImageFormat) -> Error {
    anyhow!("damaged {} file (its decoder gave up)", name(format))
}

/// How many images a file has: the pages of a TIFF (not many more than
/// [`MAX_PAGES`] are counted), the frames of a GIF, an
/// animated WebP or PNG, 1 for others. Fails where the file is no image.
pub fn page_count(bytes: &[u8]) -> Result<usize> {
    Ok(match sniff(bytes)? {
        ImageFormat::Tiff => tiff::pages(bytes, MAX_PAGES + 1).len().max(1),
        ImageFormat::Gif => gif_frames(bytes).max(1),
        ImageFormat::WebP => webp_frames(bytes).max(1),
        ImageFormat::Png => png_frames(bytes).max(1),
        _ => 1,
    })
}

/// The size that an image says it has, without decoding it: finds what is no image, too large, or cut
/// short, but not damage inside. Width and height.
pub fn probe(bytes: &[u8], options: &DecodeOptions) -> Result<(usize, usize)> {
    let format = sniff(bytes)?;
    guarded(format, || {
        let reader = ImageReader::with_format(Cursor::new(bytes), format);
        let (width, height) =
            reader.into_dimensions().map_err(|error| explain(error, format, options))?;
        check_size(width, height, options.max_mpixels)?;
        ensure!(is_complete(bytes, format), "truncated {} file (it ends too early)", name(format));
        Ok((width as usize, height as usize))
    })
}

fn decode_as(
    bytes: &[u8],
    patches: &[Patch],
    format: ImageFormat,
    options: &DecodeOptions,
    finish: impl FnOnce(DynamicImage) -> DynamicImage,
) -> Result<Decoded> {
    // The decoder of ICO refuses PNGs without transparency.
    if let Some(png) = png_within(bytes).filter(|_| format == ImageFormat::Ico) {
        return decode_as(png, &[], ImageFormat::Png, options, finish);
    }
    let clock = Clock::start(options.max_time);
    let explain = |error| clock.over().unwrap_or_else(|| explain(error, format, options));
    let mut reader = ImageReader::with_format(Bytes::new(bytes, patches, &clock), format);
    reader.limits(limits(options));
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, options.max_mpixels)?;
    let orientation = orientation(&mut decoder, bytes, format);
    check_whole(bytes, format, f64::from(width) * f64::from(height))?;
    let mut image = finish(DynamicImage::from_decoder(decoder).map_err(explain)?);
    if format == ImageFormat::Bmp && is_invisible(&image) {
        image = DynamicImage::ImageRgb8(image.into_rgb8());
    }
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

/// Refuses files cut short, and JPEGs that go over their pixels too often: a few bytes are a pass.
fn check_whole(bytes: &[u8], format: ImageFormat, pixels: f64) -> Result<()> {
    let scans = match format {
        ImageFormat::Jpeg => jpeg_scans(bytes),
        _ => is_complete(bytes, format).then_some(1),
    };
    let scans =
        scans.with_context(|| format!("truncated {} file (it ends too early)", name(format)))?;
    let mpixels = pixels / 1e6;
    ensure!(
        scans as f64 * mpixels <= MAX_SCANNED_MPIXELS,
        "damaged JPEG file ({scans} passes over {mpixels:.0} million pixels)"
    );
    Ok(())
}

/// Millions of pixels times passes over them. Encoders make some ten passes, decoders take seconds for one
/// over the largest pictures.
const MAX_SCANNED_MPIXELS: f64 = 5000.0;

/// A later frame of a GIF.
fn decode_frame(bytes: &[u8], index: usize, options: &DecodeOptions) -> Result<Decoded> {
    let clock = Clock::start(options.max_time);
    let explain = |error| clock.over().unwrap_or_else(|| explain(error, ImageFormat::Gif, options));
    let mut decoder = GifDecoder::new(Bytes::new(bytes, &[], &clock)).map_err(explain)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, options.max_mpixels)?;
    decoder.set_limits(limits(options)).map_err(explain)?;
    let frames = gif_frames(bytes).max(1);
    ensure!(index < frames, "the file has no page {}, it has {frames}", index + 1);
    let frame = decoder.into_frames().nth(index);
    let frame = frame.context("truncated GIF file (it ends too early)")?.map_err(explain)?;
    let image = DynamicImage::ImageRgba8(frame.into_buffer());
    let image = to_rgb8(image, options.background);
    Ok(Decoded { image, orientation: 1, width: width as usize, height: height as usize })
}

/// Whether an image has nothing but transparent pixels. In a BMP this means that whoever wrote it
/// left the fourth byte of the pixels at 0.
fn is_invisible(image: &DynamicImage) -> bool {
    match image {
        DynamicImage::ImageRgba8(image) => image.pixels().all(|pixel| pixel[3] == 0),
        _ => false,
    }
}

/// Memory for decoders: room for the largest allowed image with 16-bit RGBA samples, twice, since
/// some decoders hold the image in two forms.
pub(super) fn limits(options: &DecodeOptions) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some((options.max_mpixels * 1e6) as u64 * 16 + (64 << 20));
    limits
}

pub(super) fn check_size(width: u32, height: u32, max_mpixels: f64) -> Result<()> {
    ensure!(width > 0 && height > 0, "the image is empty ({width}x{height} pixels)");
    let mpixels = f64::from(width) * f64::from(height) / 1e6;
    ensure!(
        mpixels <= max_mpixels,
        "the image has {width}x{height} pixels, which is {mpixels} million and more than the \
         limit of {max_mpixels} million; --max-image-mpixels sets the limit"
    );
    Ok(())
}

/// A decoder's error as a sentence.
pub(super) fn explain(error: ImageError, format: ImageFormat, options: &DecodeOptions) -> Error {
    let format = name(format);
    let says = match &error {
        ImageError::Unsupported(unsupported) => match unsupported.kind() {
            UnsupportedErrorKind::Color(color) => format!("samples of {color:?}"),
            UnsupportedErrorKind::GenericFeature(feature) => feature.clone(),
            _ => error.to_string(),
        },
        // The cause itself, without the library's words around it.
        _ => error.source().map_or_else(|| error.to_string(), ToString::to_string),
    };
    let says = says.lines().next().unwrap_or_default().trim_end_matches(['.', ' ']);
    // What follows is the decoder's own picture of its state.
    let says = if says.starts_with("CRC error") { "a checksum is wrong" } else { says };
    let lower = says.to_lowercase();
    if END_OF_FILE.iter().any(|words| lower.contains(words)) {
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

/// How decoders say that a file ends too early.
const END_OF_FILE: &[&str] = &[
    "unexpected end of file",
    "unexpected eof",
    "early eof",
    "failed to fill whole buffer",
    "not enough bytes",
    "no more data",
];
