//! The ways in which a drawing is met: on any ground, large or small, turned a little, in other colours,
//! outlined, in one colour, scaled up, saved as JPEG.

use anyhow::Result;
use fastrand::Rng;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{DynamicImage, Rgb, RgbImage};
use resvg::tiny_skia::Pixmap;

use crate::catalog::{Item, Limits};
use crate::draw::{Look, Place, render};

const WHITE: [u8; 3] = [255; 3];

/// A drawing as a web page shows it: all of it, black if the colour is open, on white.
pub(crate) fn plain(item: &Item, side: u32) -> Result<Option<DynamicImage>> {
    let look = Look { ink: [0; 3], outline: None, blank: false, place: Place::View };
    let drawn = render(&item.drawing, &look, side)?;
    Ok(drawn.map(|drawn| over(&drawn, |_, _| WHITE).into()))
}

/// A drawing as chance will have it; none if nothing can be seen.
pub(crate) fn varied(
    item: &Item,
    limits: Limits,
    side: u32,
    rng: &mut Rng,
) -> Result<Option<DynamicImage>> {
    let mono = item.drawing.is_plain();
    let ground = Ground::choose(mono, rng);
    let look = look(item, limits, &ground, rng);
    // Few pixels, later as many as the others.
    let small = rng.f32() < 0.2;
    let own = if small { rng.u32(side * 3 / 8..side) } else { side };
    let Some(mut drawn) = render(&item.drawing, &look, own)? else { return Ok(None) };
    if !mono && limits.recolour {
        recolour(&mut drawn, rng);
    } else if rng.f32() < 0.4 {
        tune(&mut drawn, &Tune::mild(rng));
    }
    let mut picture = over(&drawn, |x, y| ground.at(x, y, own));
    if own != side && rng.f32() < 0.7 {
        let filter = if rng.f32() < 0.3 { FilterType::Nearest } else { FilterType::Triangle };
        picture = resize(&picture, side, side, filter);
    }
    if rng.f32() < 0.08 {
        noise(&mut picture, rng.f32() * 12.0, rng);
    }
    if rng.f32() < 0.2 {
        return jpeg(&picture, rng.u8(25..90)).map(Some);
    }
    Ok(Some(picture.into()))
}

/// What lies behind a drawing, and the ink that shows on it.
struct Ground {
    colour: [u8; 3],
    /// A disc or a tile of this colour under the drawing, as a button has.
    tile: Option<([u8; 3], bool)>,
    ink: [u8; 3],
}

impl Ground {
    fn choose(mono: bool, rng: &mut Rng) -> Ground {
        let colour = match rng.u8(..100) {
            0..62 => WHITE,
            62..80 => [(); 3].map(|()| rng.u8(205..)),
            80..90 => [(); 3].map(|()| rng.u8(..60)),
            _ => [(); 3].map(|()| rng.u8(..)),
        };
        let tile = (mono && rng.f32() < 0.12).then(|| ([(); 3].map(|()| rng.u8(..)), rng.bool()));
        let behind = tile.map_or(colour, |(tile, _)| tile);
        Ground { colour, tile, ink: ink(behind, rng) }
    }

    fn at(&self, x: u32, y: u32, side: u32) -> [u8; 3] {
        let Some((tile, round)) = self.tile else { return self.colour };
        let half = side as f32 / 2.0;
        let (dx, dy) = ((x as f32 + 0.5 - half).abs() / half, (y as f32 + 0.5 - half).abs() / half);
        let inside = if round { dx * dx + dy * dy < 0.96 } else { dx.max(dy) < 0.94 };
        if inside { tile } else { self.colour }
    }
}

fn brightness(colour: [u8; 3]) -> f32 {
    let [r, g, b] = colour.map(f32::from);
    0.299 * r + 0.587 * g + 0.114 * b
}

/// An ink that differs from what is behind it by 90 levels of grey or more.
fn ink(behind: [u8; 3], rng: &mut Rng) -> [u8; 3] {
    let dark = brightness(behind) > 127.0;
    let simple =
        if dark { [0; 3].map(|_: u8| rng.u8(..60)) } else { [255; 3].map(|_: u8| rng.u8(215..)) };
    if rng.f32() < 0.6 {
        return simple;
    }
    let any = [(); 3].map(|()| rng.u8(..));
    if (brightness(any) - brightness(behind)).abs() > 90.0 { any } else { simple }
}

fn look(item: &Item, limits: Limits, ground: &Ground, rng: &mut Rng) -> Look {
    let size = 0.62 + 0.38 * rng.f32().sqrt();
    let stretch = if rng.f32() < 0.3 { 0.85 + 0.15 * rng.f32() } else { 1.0 };
    let scale = if rng.bool() { (size * stretch, size) } else { (size, size * stretch) };
    let angle = if rng.f32() < 0.35 { (rng.f32() - 0.5) * 20.0 } else { 0.0 };
    let place = if rng.f32() < 0.15 {
        Place::View
    } else {
        // Mostly near the middle.
        let mut at = || 0.5 + (rng.f32() - 0.5) * (rng.f32()).sqrt();
        let at = (at(), at());
        Place::Drawn { scale, angle, flip: limits.flip && rng.f32() < 0.4, at }
    };
    let outlined = item.flat && rng.f32() < 0.22;
    Look {
        ink: ground.ink,
        outline: outlined.then(|| 0.008 + 0.022 * rng.f32()),
        blank: outlined && limits.recolour && rng.f32() < 0.15,
        place,
    }
}

/// Lays a drawing over a ground.
fn over(drawn: &Pixmap, ground: impl Fn(u32, u32) -> [u8; 3]) -> RgbImage {
    let pixels = drawn.pixels();
    RgbImage::from_fn(drawn.width(), drawn.height(), |x, y| {
        let pixel = pixels[(y * drawn.width() + x) as usize];
        let behind = ground(x, y);
        let left = 255 - u16::from(pixel.alpha());
        let own = [pixel.red(), pixel.green(), pixel.blue()];
        Rgb(std::array::from_fn(|c| {
            // Premultiplied: the sum cannot pass 255 but by rounding.
            (u16::from(own[c]) + (u16::from(behind[c]) * left + 127) / 255).min(255) as u8
        }))
    })
}

/// A linear change of colours: `out = matrix * in + lift` on values of 0 to 1.
struct Tune {
    matrix: [[f32; 3]; 3],
    lift: f32,
}

const GREY: [f32; 3] = [0.299, 0.587, 0.114];

impl Tune {
    /// Saturation, contrast, brightness.
    fn new(saturation: f32, gain: f32, lift: f32) -> Tune {
        let matrix = std::array::from_fn(|row| {
            std::array::from_fn(|column| {
                let same = f32::from(u8::from(row == column));
                gain * (saturation * same + (1.0 - saturation) * GREY[column])
            })
        });
        Tune { matrix, lift }
    }

    fn mild(rng: &mut Rng) -> Tune {
        let mut near = |width: f32| 1.0 + (rng.f32() - 0.5) * width;
        let (saturation, gain) = (near(0.5), near(0.3));
        Tune::new(saturation, gain, near(0.16) - 1.0)
    }

    /// Turns hues about the grey axis (Rodrigues' formula), after what `self` does.
    fn turned(self, degrees: f32) -> Tune {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (third, root) = ((1.0 - cos) / 3.0, sin / 3f32.sqrt());
        let turn = [
            [cos + third, third - root, third + root],
            [third + root, cos + third, third - root],
            [third - root, third + root, cos + third],
        ];
        let matrix = std::array::from_fn(|row: usize| {
            std::array::from_fn(|column: usize| {
                (0..3).map(|k| turn[row][k] * self.matrix[k][column]).sum()
            })
        });
        Tune { matrix, lift: self.lift }
    }
}

/// For drawings whose colours don't matter.
fn recolour(drawn: &mut Pixmap, rng: &mut Rng) {
    match rng.u8(..100) {
        // Grey.
        0..7 => tune(drawn, &Tune::new(0.0, 1.0, 0.0)),
        // One colour: the darkness of the drawing becomes ink.
        7..11 => one_colour(drawn, rng),
        11..45 => {
            let degrees = (rng.f32() - 0.5) * 50.0;
            tune(drawn, &Tune::mild(rng).turned(degrees));
        }
        45..65 => tune(drawn, &Tune::mild(rng)),
        _ => {}
    }
}

fn tune(drawn: &mut Pixmap, tune: &Tune) {
    for pixel in drawn.data_mut().chunks_exact_mut(4) {
        let alpha = f32::from(pixel[3]);
        let own: [f32; 3] = std::array::from_fn(|c| f32::from(pixel[c]));
        for (value, row) in pixel.iter_mut().zip(&tune.matrix) {
            let sum: f32 = row.iter().zip(own).map(|(weight, value)| weight * value).sum();
            *value = (sum + tune.lift * alpha).clamp(0.0, alpha) as u8;
        }
    }
}

/// Light parts vanish, dark ones become ink of one colour, with a threshold between.
fn one_colour(drawn: &mut Pixmap, rng: &mut Rng) {
    let ink = [(); 3].map(|()| rng.f32() * 90.0);
    let (middle, slope) = (120.0 + 80.0 * rng.f32(), 3.0 + 5.0 * rng.f32());
    for pixel in drawn.data_mut().chunks_exact_mut(4) {
        let alpha = f32::from(pixel[3]).max(1.0);
        let light: f32 = pixel.iter().zip(GREY).map(|(v, grey)| f32::from(*v) * grey).sum();
        let light = light * 255.0 / alpha;
        let covered = ((middle - light) / 255.0 * slope + 0.5).clamp(0.0, 1.0) * alpha;
        for (value, ink) in pixel.iter_mut().zip(ink) {
            *value = (ink * covered / 255.0) as u8;
        }
        pixel[3] = covered as u8;
    }
}

fn noise(picture: &mut RgbImage, sigma: f32, rng: &mut Rng) {
    for pixel in picture.pixels_mut() {
        // Three uniform numbers make a bell.
        let bell = rng.f32() + rng.f32() + rng.f32() - 1.5;
        let shift = bell * 2.0 * sigma;
        pixel.0 = pixel.0.map(|value| (f32::from(value) + shift).clamp(0.0, 255.0) as u8);
    }
}

fn jpeg(picture: &RgbImage, quality: u8) -> Result<DynamicImage> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality).encode_image(picture)?;
    Ok(image::load_from_memory(&file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_of_hue_keeps_grey_and_comes_back() {
        let turned = Tune::new(1.0, 1.0, 0.0).turned(120.0);
        for row in turned.matrix {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
        }
        // A third of the circle carries red to green.
        assert!((turned.matrix[1][0] - 1.0).abs() < 1e-6, "{:?}", turned.matrix);
    }

    #[test]
    fn ink_shows_on_any_ground() {
        let mut rng = Rng::with_seed(3);
        for _ in 0..2000 {
            let behind = [(); 3].map(|()| rng.u8(..));
            let ink = ink(behind, &mut rng);
            assert!((brightness(ink) - brightness(behind)).abs() > 60.0, "{ink:?} on {behind:?}");
        }
    }
}
