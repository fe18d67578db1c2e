//! Which way up a picture is, and turning it so.

use std::io::Read;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, RgbImage};

use super::Rgb8;
use super::frames::png_chunks;

/// The orientation that the file asks for. EXIF goes before XMP, as in Pillow; damaged metadata
/// does not make an image unreadable.
pub(super) fn orientation(
    decoder: &mut impl ImageDecoder,
    bytes: &[u8],
    format: ImageFormat,
) -> Orientation {
    let told = |orientation: &Orientation| *orientation != Orientation::NoTransforms;
    let exif = decoder.orientation().ok().filter(told);
    exif.or_else(|| (format == ImageFormat::Png).then(|| raw_profile(bytes))?.filter(told))
        .or_else(|| xmp_orientation(&decoder.xmp_metadata().ok().flatten()?))
        .unwrap_or(Orientation::NoTransforms)
}

/// EXIF as ImageMagick wrote it into a PNG before the format had a place for it: in a text, as digits.
fn raw_profile(bytes: &[u8]) -> Option<Orientation> {
    /// EXIF fits into a segment of a JPEG.
    const MAX_TEXT: u64 = 1 << 18;
    let keyword = b"Raw profile type exif\0";
    let (kind, data) = png_chunks(bytes)
        .find(|(kind, data)| (kind == b"tEXt" || kind == b"zTXt") && data.starts_with(keyword))?;
    let data = &data[keyword.len()..];
    let mut text = Vec::new();
    if &kind == b"zTXt" {
        let mut unzipped = flate2::read::ZlibDecoder::new(data.get(1..)?).take(MAX_TEXT);
        unzipped.read_to_end(&mut text).ok()?;
    } else {
        data.take(MAX_TEXT).read_to_end(&mut text).ok()?;
    }
    // A line of nothing, the profile's name, its length; then its bytes in lines.
    let lines = text.split(|&byte| byte == b'\n').skip(3);
    let digits: Vec<u8> = lines.flatten().copied().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let exif: Vec<u8> = digits.chunks_exact(2).map(byte).collect::<Option<_>>()?;
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif))
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

pub(super) fn turn(image: Rgb8, orientation: Orientation) -> Option<Rgb8> {
    let image = RgbImage::from_raw(image.width as u32, image.height as u32, image.data)?;
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Some(Rgb8 { width, height, data: image.into_raw() })
}
