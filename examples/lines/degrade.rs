//! Ink becomes a picture: worn print, paper, light, a camera or a scanner, JPEG.

use std::f32::consts::TAU;

use fastrand::Rng;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, RgbImage};

use crate::canvas::{Plane, normal, uniform};
use crate::draw::Drawn;

/// The picture of a line; none if it came out too small.
pub(crate) fn finish(drawn: Drawn, clean: bool, rng: &mut Rng) -> Option<DynamicImage> {
    let Drawn { mut ink, size } = drawn;
    if clean {
        return gray(&ink, |value| 255.0 * (1.0 - value));
    }
    if rng.f32() < 0.12 && size > 22.0 {
        ink.dilate();
    } else if rng.f32() < 0.06 && size > 38.0 {
        ink.erode();
    }
    if rng.f32() < 0.4 {
        ink.blur(uniform(rng, 0.3, 1.2) * size / 28.0);
    }
    let small = if rng.f32() < 0.22 {
        uniform(rng, 0.4, 0.8) * (34.0 / ink.height as f32).min(1.0)
    } else {
        1.0
    };
    let (width, height) =
        ((ink.width as f32 * small) as usize, (ink.height as f32 * small) as usize);
    if width < 3 || height < 8 {
        return None;
    }
    if small < 1.0 {
        ink = ink.resize(width, height);
    }
    match rng.u8(..100) {
        0..16 => one_bit(ink, rng),
        16..20 => one_bit(fax(ink, rng), rng),
        20..30 => {
            worn(&mut ink, rng);
            paper(ink, rng)
        }
        30..40 => paper(thermal(ink, rng), rng),
        _ => paper(ink, rng),
    }
}

fn gray(plane: &Plane, value: impl Fn(f32) -> f32) -> Option<DynamicImage> {
    let bytes = plane.data.iter().map(|ink| value(*ink).clamp(0.0, 255.0) as u8).collect();
    GrayImage::from_raw(plane.width as u32, plane.height as u32, bytes).map(DynamicImage::from)
}

/// A scan in black and white, with specks.
fn one_bit(ink: Plane, rng: &mut Rng) -> Option<DynamicImage> {
    let (noise, threshold) = (uniform(rng, 0.02, 0.22), uniform(rng, 0.3, 0.65));
    let specks = if rng.f32() < 0.4 { uniform(rng, 0.0, 0.012) } else { 0.0 };
    let mut bits = ink.clone();
    for value in &mut bits.data {
        let black = *value + noise * normal(rng) > threshold;
        *value = f32::from(black != (rng.f32() < specks));
    }
    gray(&bits, |value| 255.0 * (1.0 - value))
}

/// Few lines to the inch, each a little displaced.
fn fax(ink: Plane, rng: &mut Rng) -> Plane {
    let (width, height) = (ink.width, ink.height);
    let rows = ((height as f32 * uniform(rng, 0.5, 0.9)) as usize).max(8);
    let mut coarse = ink.resize(width, rows);
    for row in coarse.data.chunks_mut(width) {
        if rng.f32() < 0.2 && width > 4 {
            let shift = rng.usize(0..2);
            row.rotate_right(shift);
        }
    }
    coarse.resize(width, height)
}

/// Patchy ink.
fn worn(ink: &mut Plane, rng: &mut Rng) {
    let step = (ink.height as f32 / 6.0).max(2.0);
    let clouds = Plane::clouds(ink.width, ink.height, step, rng);
    let strength = uniform(rng, 1.0, 2.2);
    for (value, cloud) in ink.data.iter_mut().zip(&clouds.data) {
        *value *= (cloud * strength).clamp(0.25, 1.0);
    }
}

/// A thermal printer: dots in rows, faint bands, columns that a dead heater leaves white.
fn thermal(mut ink: Plane, rng: &mut Rng) -> Plane {
    let (width, height) = (ink.width, ink.height);
    let pitch = (height / rng.usize(7..14)).max(2);
    let dots = uniform(rng, 0.2, 0.7);
    let dead = if rng.f32() < 0.2 { rng.usize(..width) } else { width };
    let (phase, period) = (rng.f32() * 6.3, uniform(rng, 20.0, 200.0));
    let bands = uniform(rng, 0.0, 0.35);
    for y in 0..height {
        let gap = if y % pitch == 0 { 1.0 - dots } else { 1.0 };
        for x in 0..width {
            let band = 1.0 - bands * (0.5 + 0.5 * (phase + x as f32 / period * TAU).sin());
            let dead = if x == dead { 0.1 } else { 1.0 };
            ink.data[y * width + x] *= gap * band * dead;
        }
    }
    ink
}

/// Ink on paper, lit and photographed.
fn paper(ink: Plane, rng: &mut Rng) -> Option<DynamicImage> {
    let (width, height) = (ink.width, ink.height);
    let mut ground =
        if rng.f32() < 0.75 { uniform(rng, 205.0, 255.0) } else { uniform(rng, 110.0, 255.0) };
    let mut print =
        if rng.f32() < 0.8 { uniform(rng, 0.0, 90.0) } else { uniform(rng, 40.0, ground - 40.0) };
    // A contrast below 60 grey levels can't be read by anyone once noise is added.
    print = print.min(ground - 60.0);
    if rng.f32() < 0.05 {
        std::mem::swap(&mut ground, &mut print);
    }
    let mut picture = ink;
    picture.data.iter_mut().for_each(|value| *value = ground * (1.0 - *value) + print * *value);
    if rng.f32() < 0.2 {
        let step = uniform(rng, 2.0, 40.0);
        let clouds = Plane::clouds(width, height, step, rng);
        let depth = uniform(rng, 4.0, 30.0).min((ground - print).abs() * 0.25);
        picture.data.iter_mut().zip(&clouds.data).for_each(|(v, c)| *v += depth * (c - 0.5));
    }
    if rng.f32() < 0.2 {
        let (from, to) = (uniform(rng, -30.0, 30.0), uniform(rng, -30.0, 30.0));
        let down = uniform(rng, -12.0, 12.0);
        for (place, value) in picture.data.iter_mut().enumerate() {
            let (x, y) = (place % width, place / width);
            let along = x as f32 / width as f32;
            *value += from + (to - from) * along + down * (y as f32 / height as f32 - 0.5);
        }
    }
    if rng.f32() < 0.45 {
        let noise = uniform(rng, 1.0, 16.0).min((ground - print).abs() * 0.2);
        picture.data.iter_mut().for_each(|value| *value += noise * normal(rng));
    }
    let plain = gray(&picture, |value| value)?;
    let plain = if rng.f32() < 0.1 { tinted(&plain.to_luma8(), rng) } else { plain };
    if rng.f32() < 0.2 { jpeg(&plain, rng) } else { Some(plain) }
}

/// Coloured paper or ink: each channel its own gain.
fn tinted(plain: &GrayImage, rng: &mut Rng) -> DynamicImage {
    let gains = [(); 3].map(|()| uniform(rng, 0.7, 1.05));
    let lifts = [(); 3].map(|()| uniform(rng, 0.0, 40.0));
    RgbImage::from_fn(plain.width(), plain.height(), |x, y| {
        let value = f32::from(plain.get_pixel(x, y).0[0]);
        image::Rgb([0, 1, 2].map(|c| (lifts[c] + value * gains[c]).clamp(0.0, 255.0) as u8))
    })
    .into()
}

fn jpeg(picture: &DynamicImage, rng: &mut Rng) -> Option<DynamicImage> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, rng.u8(22..88)).encode_image(picture).ok()?;
    image::load_from_memory(&file).ok()
}
