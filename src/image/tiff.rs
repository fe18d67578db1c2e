//! The pages of a TIFF.
//!
//! The decoder reads the first page, and knows nothing of palettes and of the colours of JPEG. It is helped
//! by small changes to the directory in front of the pixels: patches that stand for the file's own bytes.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};

use ::image::{DynamicImage, RgbImage};

use super::bytes::Patch;

const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC_INTERPRETATION: u16 = 262;
const FILL_ORDER: u16 = 266;
const COLOR_MAP: u16 = 320;
const EXTRA_SAMPLES: u16 = 338;

/// One page of a TIFF, made ready for the decoder.
pub(super) struct Page {
    /// They put this page in front.
    pub(super) patches: Vec<Patch>,
    /// The colours that the page's samples stand for.
    palette: Option<Vec<[u8; 3]>>,
    /// The samples are multiplied by their alpha already.
    is_premultiplied: bool,
    /// The samples are luma and chroma of a JPEG.
    is_ycc: bool,
}

impl Page {
    /// Page `index`, from 0; `pages` are those that [`pages`] finds in the same file.
    pub(super) fn of(bytes: &[u8], pages: &[usize], index: usize) -> Result<Self> {
        let tiff = Tiff::new(bytes).context("truncated TIFF file (it ends too early)")?;
        let Some(&directory) = pages.get(index) else {
            // Page 0 is the decoder's to complain about.
            ensure!(index == 0, "the file has no page {}, it has {}", index + 1, pages.len());
            let patches = Vec::new();
            return Ok(Page { patches, palette: None, is_premultiplied: false, is_ycc: false });
        };
        let tag = |tag| tiff.short(directory, tag);
        // Fax coders know about the order of bits; for the others the decoder ignores it.
        if tag(FILL_ORDER) == Some(2) && !matches!(tag(COMPRESSION), Some(2..=4)) {
            bail!("TIFF file of a kind that is not supported (bits in reverse); convert it to PNG");
        }
        let mut patches = Vec::new();
        if index > 0 {
            let start = u32::try_from(directory).context("the page lies too far in the file")?;
            patches.push((4, tiff.u32_bytes(start).to_vec()));
        }
        let palette = tiff.palette(directory);
        let is_ycc = tag(COMPRESSION) == Some(7)
            && tag(PHOTOMETRIC_INTERPRETATION) == Some(6)
            && tag(BITS_PER_SAMPLE) == Some(8);
        // Indices are read as greys, luma and chroma as colours; `finish` makes of them what they are.
        let read_as = palette.as_ref().map(|_| 1).or(is_ycc.then_some(2));
        if let Some((kind, at)) = read_as.zip(tiff.entry(directory, PHOTOMETRIC_INTERPRETATION))
            && at + 10 <= bytes.len()
        {
            patches.push((at + 8, tiff.u16_bytes(kind).to_vec()));
        }
        Ok(Page { patches, palette, is_premultiplied: tag(EXTRA_SAMPLES) == Some(1), is_ycc })
    }

    /// Looks up the palette and divides by alpha, where the page asks for it.
    pub(super) fn finish(&self, image: DynamicImage) -> DynamicImage {
        match (image, &self.palette) {
            (DynamicImage::ImageLuma8(image), Some(palette)) => {
                let (width, height) = image.dimensions();
                let color = |index: &u8| palette.get(usize::from(*index)).copied();
                let data = image.iter().flat_map(|index| color(index).unwrap_or_default());
                match RgbImage::from_raw(width, height, data.collect()) {
                    Some(image) => DynamicImage::ImageRgb8(image),
                    None => DynamicImage::ImageLuma8(image),
                }
            }
            (DynamicImage::ImageRgba8(mut image), _) if self.is_premultiplied => {
                for pixel in image.pixels_mut() {
                    let alpha = u32::from(pixel[3]);
                    for value in &mut pixel.0[..3] {
                        let straight = (u32::from(*value) * 255).checked_div(alpha);
                        *value = straight.map_or(0, |value| value.min(255) as u8);
                    }
                }
                DynamicImage::ImageRgba8(image)
            }
            (DynamicImage::ImageRgb8(mut image), _) if self.is_ycc => {
                image.pixels_mut().for_each(|pixel| pixel.0 = rgb(pixel.0));
                DynamicImage::ImageRgb8(image)
            }
            (image, _) => image,
        }
    }
}

/// The colour of a JPEG's luma and chroma, by the integers of libjpeg (jdcolor.c).
fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91_881 * cr + HALF) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
    let blue = y + ((116_130 * cb + HALF) >> 16);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}

/// Where the pages of a TIFF begin, `most` of them at most.
pub(super) fn pages(bytes: &[u8], most: usize) -> Vec<usize> {
    Tiff::new(bytes).map_or_else(Vec::new, |tiff| tiff.pages(most))
}

/// How many pixels the largest page of a TIFF says it has.
pub(super) fn largest(bytes: &[u8], most: usize) -> u64 {
    let Some(tiff) = Tiff::new(bytes) else { return 0 };
    let side = |directory, tag| tiff.long(directory, tag).unwrap_or(0);
    let pages = tiff.pages(most).into_iter();
    pages.map(|page| side(page, IMAGE_WIDTH) * side(page, IMAGE_LENGTH)).max().unwrap_or(0)
}

/// The directories of a TIFF.
struct Tiff<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= 8).then(|| Tiff { bytes, is_big_endian: bytes.starts_with(b"MM") })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u16_bytes(&self, value: u16) -> [u8; 2] {
        if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32_bytes(&self, value: u32) -> [u8; 4] {
        if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Where the directories of the pages lie. A damaged file may lead in circles.
    fn pages(&self, most: usize) -> Vec<usize> {
        let mut pages = Vec::new();
        let mut seen = HashSet::new();
        let mut next = self.u32(4);
        while let Some(at) = next.filter(|&at| at != 0).map(|at| at as usize) {
            let Some(entries) = self.u16(at) else { break };
            if pages.len() == most || !seen.insert(at) {
                break;
            }
            pages.push(at);
            next = self.u32(at + 2 + usize::from(entries) * 12);
        }
        pages
    }

    /// Where the entry of a tag lies: tag, type (2 bytes each), count, value (4 bytes each).
    fn entry(&self, directory: usize, tag: u16) -> Option<usize> {
        let entries = usize::from(self.u16(directory)?);
        (0..entries).map(|i| directory + 2 + i * 12).find(|&at| self.u16(at) == Some(tag))
    }

    /// The first value of a tag of 16-bit numbers.
    fn short(&self, directory: usize, tag: u16) -> Option<u16> {
        let at = self.entry(directory, tag)?;
        match (self.u16(at + 2)?, self.u32(at + 4)?) {
            (3, 1 | 2) => self.u16(at + 8),
            (3, _) => self.u16(self.u32(at + 8)? as usize),
            _ => None,
        }
    }

    /// The only value of a tag of 16 or 32 bits.
    fn long(&self, directory: usize, tag: u16) -> Option<u64> {
        let at = self.entry(directory, tag)?;
        match self.u16(at + 2)? {
            3 => self.u16(at + 8).map(u64::from),
            4 => self.u32(at + 8).map(u64::from),
            _ => None,
        }
    }

    /// The colours of a page of 8-bit indices. Like Pillow, the high bytes of the colour map.
    fn palette(&self, directory: usize) -> Option<Vec<[u8; 3]>> {
        let is_indexed = self.short(directory, PHOTOMETRIC_INTERPRETATION) == Some(3)
            && self.short(directory, BITS_PER_SAMPLE) == Some(8);
        let at = self.entry(directory, COLOR_MAP).filter(|_| is_indexed)?;
        let (count, start) = (self.u32(at + 4)?, self.u32(at + 8)? as usize);
        if count != 3 * 256 {
            return None;
        }
        // All reds, then all greens, then all blues.
        let sample = |i: usize| self.u16(start + i * 2).map(|value| (value >> 8) as u8);
        (0..256).map(|i| Some([sample(i)?, sample(256 + i)?, sample(512 + i)?])).collect()
    }
}
