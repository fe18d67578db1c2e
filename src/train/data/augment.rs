//! Changes that a picture of the same text could have gone through: `--augment`.
//!
//! | name | what is done, at random | how often |
//! |---|---|---|
//! | rotate | up to 3 degrees, less for long lines; nothing is cut off | 1/2 |
//! | shear | slant of up to 0.3 | 1/3 |
//! | perspective | corners move by up to 4 % of the sides | 1/3 |
//! | scale | made smaller, down to 0.4 | 1/4 |
//! | erode | dark strokes grow by a pixel or two | 1/6 |
//! | dilate | dark strokes shrink by a pixel (or two in high images) | 1/6 |
//! | blur | binomial, once to three times | 1/3 |
//! | contrast | gain of 0.5 to 1.3, brightness by up to 30 of 255 | 1/2 |
//! | noise | grey, sigma up to 12 of 255 | 1/3 |
//! | jpeg | artefacts of quality 20 to 80 | 1/4 |
//! | crop | 70 % to all of the area, sides by up to 4:3 | 3/4 |
//! | flip | left and right; captions that say left and right are wrong then | 1/2 |
//!
//! `light` is rotate, contrast, blur, noise; `ocr` the first ten; `caption` crop, flip, contrast, jpeg.
//! What happens to a picture is a function of seed, epoch and row, whatever thread does it.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::{ExtendedColorType, ImageFormat, Rgb, RgbImage};
use anyhow::{Result, bail};
use imageproc::geometric_transformations::{Interpolation, Projection, warp_into};

use super::random::Random;
use crate::image::Rgb8;
use crate::image::filter::Filter;
use crate::image::resample::resize;

/// One kind of change, in the order in which they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Crop,
    Flip,
    Rotate,
    Shear,
    Perspective,
    Erode,
    Dilate,
    Scale,
    Blur,
    Contrast,
    Noise,
    Jpeg,
}

use Step::{
    Blur, Contrast, Crop, Dilate, Erode, Flip, Jpeg, Noise, Perspective, Rotate, Scale, Shear,
};

const NAMES: &[(&str, Step)] = &[
    ("rotate", Rotate),
    ("shear", Shear),
    ("perspective", Perspective),
    ("scale", Scale),
    ("erode", Erode),
    ("dilate", Dilate),
    ("blur", Blur),
    ("contrast", Contrast),
    ("noise", Noise),
    ("jpeg", Jpeg),
    ("crop", Crop),
    ("flip", Flip),
];

const LIGHT: &[Step] = &[Rotate, Blur, Contrast, Noise];
const OCR: &[Step] =
    &[Rotate, Shear, Perspective, Erode, Dilate, Scale, Blur, Contrast, Noise, Jpeg];
const CAPTION: &[Step] = &[Crop, Flip, Contrast, Jpeg];

/// The changes that `--augment` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Augment {
    steps: Vec<Step>,
}

impl std::str::FromStr for Augment {
    type Err = anyhow::Error;

    /// `light`, `ocr`, `caption`, names of single changes, or several of these with commas between.
    fn from_str(text: &str) -> Result<Self> {
        let mut steps = Vec::new();
        for name in text.split(',').map(str::trim) {
            match name {
                "light" => steps.extend(LIGHT),
                "ocr" => steps.extend(OCR),
                "caption" => steps.extend(CAPTION),
                name => match NAMES.iter().find(|(known, _)| *known == name) {
                    Some((_, step)) => steps.push(*step),
                    None => {
                        let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                        bail!(
                            "{name:?} is no augmentation; there are light, ocr, caption, {}",
                            known.join(", ")
                        )
                    }
                },
            }
        }
        steps.sort_unstable();
        steps.dedup();
        Ok(Augment { steps })
    }
}

impl Augment {
    /// Changes an image as seed, epoch and row ask. `[h, w, 3]` -> `[h', w', 3]`, of another size where
    /// it is turned, cropped or made smaller.
    pub fn apply(&self, image: Rgb8, seed: u64, epoch: u64, row: u64) -> Rgb8 {
        let random = Random::new(&[seed, epoch, row]);
        let mut image = image;
        let mut warp = Warp::default();
        for step in &self.steps {
            // Each step draws from a generator of its own: naming one more changes no other.
            let mut random = random.branch(*step as u64);
            let often = match step {
                Crop => 0.75,
                Rotate | Contrast | Flip => 0.5,
                Shear | Perspective | Blur | Noise => 1.0 / 3.0,
                Scale | Jpeg => 0.25,
                Erode | Dilate => 1.0 / 6.0,
            };
            if *step >= Erode {
                image = std::mem::take(&mut warp).apply(image);
            }
            if random.unit() < often {
                match step {
                    Rotate | Shear | Perspective => warp.add(*step, &image, &mut random),
                    _ => image = change(*step, image, &mut random),
                }
            }
        }
        warp.apply(image)
    }
}

fn change(step: Step, mut image: Rgb8, random: &mut Random) -> Rgb8 {
    match step {
        Crop => return crop(image, random),
        Flip => {
            for row in image.data.chunks_exact_mut(image.width * 3) {
                row.reverse();
                row.chunks_exact_mut(3).for_each(<[u8]>::reverse);
            }
        }
        Erode | Dilate => {
            let most = if image.height < 64 { 2 } else { 3 };
            let (width, height) = (1 + random.below(most), 1 + random.below(most));
            let pick = if step == Erode { u8::min } else { u8::max };
            spread(&mut image, (width, height), pick);
        }
        Scale => {
            let factor = random.range(0.4, 0.9);
            let smaller = |side: usize| ((side as f64 * factor) as usize).max(16).min(side);
            let (width, height) = (smaller(image.width), smaller(image.height));
            return resize(&image, width, height, Filter::Bilinear).unwrap_or(image);
        }
        Blur => (0..1 + random.below(3)).for_each(|_| blur(&mut image)),
        Contrast => {
            let (gain, bias) = (random.range(0.5, 1.3), random.range(-30.0, 30.0));
            let table: [u8; 256] =
                std::array::from_fn(|v| ((v as f64 - 128.0) * gain + 128.0 + bias) as u8);
            image.data.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
        }
        Noise => noise(&mut image, random.range(1.0, 12.0), random),
        Jpeg => {
            let quality = 20 + random.below(61) as u8;
            return jpeg(&image, quality).unwrap_or(image);
        }
        Rotate | Shear | Perspective => {}
    }
    image
}

/// Where the corners of an image go: all geometry is done in one pass.
#[derive(Default)]
struct Warp {
    /// Radians.
    angle: f64,
    shear: f64,
    /// Of left top, right top, right bottom and left bottom, as shares of the sides.
    corners: [(f64, f64); 4],
    used: bool,
}

impl Warp {
    fn add(&mut self, step: Step, image: &Rgb8, random: &mut Random) {
        self.used = true;
        match step {
            Rotate => {
                // The image may grow by half its height, so that long lines stay as large as they are.
                let most = (0.5 * image.height as f64 / image.width as f64).min(1.0).asin();
                let most = most.min(3f64.to_radians());
                self.angle = random.range(-most, most);
            }
            Shear => self.shear = random.range(-0.3, 0.3),
            _ => {
                let mut shift = || random.range(-0.04, 0.04);
                self.corners = std::array::from_fn(|_| (shift(), shift()));
            }
        }
    }

    /// Moves the corners; the new image holds all of the old one, around it lies the colour of its rim.
    fn apply(self, image: Rgb8) -> Rgb8 {
        if !self.used || image.width < 2 || image.height < 2 {
            return image;
        }
        let (w, h) = (image.width as f64, image.height as f64);
        let (sin, cos) = self.angle.sin_cos();
        let from = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)];
        let mut to: Vec<(f64, f64)> = from
            .iter()
            .zip(self.corners)
            .map(|((x, y), (dx, dy))| {
                let (y, x) = (y - h / 2.0 + dy * h, x - w / 2.0 + dx * w);
                let x = x - self.shear * y;
                (cos * x - sin * y, sin * x + cos * y)
            })
            .collect();
        let least = |of: fn(&(f64, f64)) -> f64| to.iter().map(of).fold(f64::MAX, f64::min);
        let (left, top) = (least(|corner| corner.0), least(|corner| corner.1));
        to.iter_mut().for_each(|corner| *corner = (corner.0 - left, corner.1 - top));
        let most = |of: fn(&(f64, f64)) -> f64| to.iter().map(of).fold(1.0, f64::max);
        let (width, height) = (most(|corner| corner.0).ceil(), most(|corner| corner.1).ceil());
        let points = |points: &[(f64, f64)]| {
            let point = |i: usize| (points[i].0 as f32, points[i].1 as f32);
            [point(0), point(1), point(2), point(3)]
        };
        let Some(projection) = Projection::from_control_points(points(&from), points(&to)) else {
            return image;
        };
        let rim = Rgb(rim(&image));
        let (old_width, old_height) = (image.width as u32, image.height as u32);
        let Some(old) = RgbImage::from_raw(old_width, old_height, image.data) else {
            return Rgb8 { width: 0, height: 0, data: Vec::new() };
        };
        let mut new = RgbImage::new(width as u32, height as u32);
        warp_into(&old, &projection, Interpolation::Bilinear, rim, &mut new);
        Rgb8 { width: width as usize, height: height as usize, data: new.into_raw() }
    }
}

/// The median colour of the outermost pixels.
fn rim(image: &Rgb8) -> [u8; 3] {
    let (w, h) = (image.width, image.height);
    let across = (0..w).flat_map(|x| [x, (h - 1) * w + x]);
    let down = (0..h).flat_map(|y| [y * w, y * w + w - 1]);
    let places: Vec<usize> = across.chain(down).collect();
    std::array::from_fn(|channel| {
        let mut values: Vec<u8> =
            places.iter().map(|place| image.data[place * 3 + channel]).collect();
        let middle = values.len() / 2;
        *values.select_nth_unstable(middle).1
    })
}

fn crop(image: Rgb8, random: &mut Random) -> Rgb8 {
    let area = random.range(0.7, 1.0);
    let ratio = random.range((3f64 / 4.0).ln(), (4f64 / 3.0).ln()).exp();
    let side = |side: usize, share: f64| ((side as f64 * share) as usize).clamp(1, side.max(1));
    let (width, height) = (
        side(image.width, (area * ratio).sqrt().min(1.0)),
        side(image.height, (area / ratio).sqrt().min(1.0)),
    );
    let left = random.below(image.width - width + 1);
    let top = random.below(image.height - height + 1);
    let rows = image.data.chunks_exact(image.width * 3).skip(top).take(height);
    let data = rows.flat_map(|row| &row[left * 3..(left + width) * 3]).copied().collect();
    Rgb8 { width, height, data }
}

/// Every sample becomes the least (or the most) of those in a window whose first corner it is.
fn spread(image: &mut Rgb8, (width, height): (usize, usize), pick: fn(u8, u8) -> u8) {
    let row = image.width * 3;
    for (reach, step) in [(width, 3), (height, row)] {
        for _ in 1..reach {
            for at in 0..image.data.len().saturating_sub(step) {
                // The last pixel of a row has no right neighbour.
                if step == row || at % row < row - 3 {
                    image.data[at] = pick(image.data[at], image.data[at + step]);
                }
            }
        }
    }
}

/// [1 2 1] / 4 across and down; at the rim the outermost pixel is repeated.
fn blur(image: &mut Rgb8) {
    let row = image.width * 3;
    let mixed =
        |a: u8, b: u8, c: u8| ((u16::from(a) + 2 * u16::from(b) + u16::from(c) + 2) / 4) as u8;
    let old = image.data.clone();
    for (new, old) in image.data.chunks_exact_mut(row).zip(old.chunks_exact(row)) {
        for at in 0..row {
            let (left, right) =
                (if at < 3 { at } else { at - 3 }, if at + 3 < row { at + 3 } else { at });
            new[at] = mixed(old[left], old[at], old[right]);
        }
    }
    let old = image.data.clone();
    let (lines, last) = (old.chunks_exact(row), image.height - 1);
    let lines: Vec<&[u8]> = lines.collect();
    for (y, new) in image.data.chunks_exact_mut(row).enumerate() {
        let (above, below) = (lines[y.saturating_sub(1)], lines[(y + 1).min(last)]);
        for (((new, a), b), c) in new.iter_mut().zip(above).zip(lines[y]).zip(below) {
            *new = mixed(*a, *b, *c);
        }
    }
}

fn noise(image: &mut Rgb8, sigma: f64, random: &mut Random) {
    // Of 4096 draws, so that a pixel costs one step of the generator and no logarithm.
    let table: Vec<i16> = (0..4096).map(|_| (random.normal() * sigma).round() as i16).collect();
    for pixels in image.data.chunks_mut(3 * 5) {
        let mut bits = random.next();
        for pixel in pixels.chunks_mut(3) {
            let shift = table[(bits & 4095) as usize];
            bits >>= 12;
            pixel.iter_mut().for_each(|v| *v = (i16::from(*v) + shift).clamp(0, 255) as u8);
        }
    }
}

fn jpeg(image: &Rgb8, quality: u8) -> Option<Rgb8> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    let (width, height) = (image.width as u32, image.height as u32);
    encoder.encode(&image.data, width, height, ExtendedColorType::Rgb8).ok()?;
    let decoded = ::image::load(Cursor::new(bytes), ImageFormat::Jpeg).ok()?.into_rgb8();
    Some(Rgb8 { width: image.width, height: image.height, data: decoded.into_raw() })
}

#[cfg(test)]
#[path = "augment_tests.rs"]
mod tests;
