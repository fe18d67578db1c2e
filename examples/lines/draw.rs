//! A text becomes ink: glyphs set on a line, slanted and turned a little, cut out as a detector would.

use std::f32::consts::TAU;

use ab_glyph::{Font, FontVec, PxScale, ScaleFont, point};
use fastrand::Rng;

use crate::canvas::{Plane, normal, uniform};
use crate::fonts::has;
use crate::text::Corpus;

/// The ink of a line, and the size of its font in pixels.
pub(crate) struct Drawn {
    pub(crate) ink: Plane,
    pub(crate) size: f32,
}

/// How glyphs are set.
struct Setting {
    scale: PxScale,
    /// Pixels between letters and between words, beside the font's own.
    letters: f32,
    words: f32,
    margin: f32,
}

/// Draws `label`; none if the face lacks a character or nothing is left.
pub(crate) fn line(
    label: &str,
    face: &FontVec,
    corpus: &Corpus,
    clean: bool,
    rng: &mut Rng,
) -> Option<Drawn> {
    let shown = typeset(label, face, rng);
    if shown.chars().any(|c| c != ' ' && !has(face, c)) {
        return None;
    }
    let size = match rng.u8(..3) {
        0 => uniform(rng, 15.0, 24.0),
        1 => uniform(rng, 22.0, 36.0),
        _ => uniform(rng, 30.0, 56.0),
    };
    let narrow = if rng.f32() < 0.3 { uniform(rng, 0.75, 1.25) } else { 1.0 };
    let letters = if rng.f32() < 0.3 { uniform(rng, -0.05, 0.15) * size } else { 0.0 };
    let words = if rng.f32() < 0.25 { uniform(rng, -0.08, 0.5) * size } else { 0.0 };
    let setting =
        Setting { scale: PxScale { x: size * narrow, y: size }, letters, words, margin: size };
    let (ascent, descent) = {
        let scaled = face.as_scaled(setting.scale);
        (scaled.ascent(), -scaled.descent())
    };
    let width = measure(&shown, face, &setting);
    let (w, h) = ((width + 2.0 * size) as usize + 4, (ascent + descent + 2.0 * size) as usize + 4);
    if !(8..6000).contains(&w) || !(8..400).contains(&h) {
        return None;
    }
    let mut ink = Plane::new(w, h);
    let baseline = setting.margin + ascent;
    set(&shown, face, &setting, (setting.margin, baseline), &mut ink);
    let [mut left, mut top, mut right, mut bottom] = ink.bounds()?.map(|edge| edge as f32);
    // Detectors give the box of the font as often as that of the ink.
    if rng.f32() < 0.45 && label.chars().count() > 1 {
        top = top.min(baseline - 0.78 * ascent);
        bottom = bottom.max(baseline + 0.6 * descent);
    }
    if !clean {
        if rng.f32() < 0.10 {
            neighbours(face, corpus, &setting, baseline, ascent + descent, rng, &mut ink);
            top = top.max(baseline - 1.12 * ascent);
            bottom = bottom.min(baseline + 1.1 * descent);
        }
        rules(&mut ink, [left, right], baseline, descent, size, rng);
        if rng.f32() < 0.35 {
            ink = turned(&ink, label.len(), rng);
            let [l, t, r, b] = ink.bounds()?.map(|edge| edge as f32);
            (left, right) = (left.min(l), right.max(r));
            (top, bottom) = (top.min(t.max(top - 3.0)), bottom.max(b.min(bottom + 3.0)));
        }
    }
    let tall = (bottom - top).max(0.6 * size);
    let (low, high, sides) = match rng.u8(..10) {
        0..5 => (-0.03, 0.12, 0.25),
        5..9 => (0.0, 0.3, 0.6),
        _ => (0.1, 0.6, 1.2),
    };
    top -= uniform(rng, low, high) * tall;
    bottom += uniform(rng, low, high) * tall;
    left -= uniform(rng, 0.0, sides) * tall;
    right += uniform(rng, 0.0, sides) * tall;
    let (width, height) = ((right - left) as usize, (bottom - top) as usize);
    (width >= 4 && height >= 7)
        .then(|| Drawn { ink: ink.crop(left as isize, top as isize, width, height), size })
}

/// Printers turn straight quotes into curly ones and hyphens into dashes; the labels keep to what a
/// keyboard has.
fn typeset(label: &str, face: &FontVec, rng: &mut Rng) -> String {
    if rng.f32() < 0.6 {
        return label.to_string();
    }
    let dashes = rng.f32() < 0.4;
    let mut open = true;
    let swap = |c: char| {
        let curly = match c {
            '\'' => '\u{2019}',
            '"' if open => '\u{201C}',
            '"' => '\u{201D}',
            '-' if dashes => '\u{2013}',
            other => other,
        };
        open = c == ' ' || c == '(';
        if has(face, curly) { curly } else { c }
    };
    label.chars().map(swap).collect()
}

fn advance(c: char, next: Option<char>, face: &FontVec, setting: &Setting) -> f32 {
    let scaled = face.as_scaled(setting.scale);
    let id = scaled.glyph_id(c);
    let kern = next.map_or(0.0, |next| scaled.kern(id, scaled.glyph_id(next)));
    let word = if c == ' ' { setting.words } else { 0.0 };
    (scaled.h_advance(id) + kern + setting.letters + word).max(0.5)
}

fn measure(text: &str, face: &FontVec, setting: &Setting) -> f32 {
    let chars: Vec<char> = text.chars().collect();
    (0..chars.len()).map(|i| advance(chars[i], chars.get(i + 1).copied(), face, setting)).sum()
}

/// Sets `text` with its baseline starting at `start`.
fn set(text: &str, face: &FontVec, setting: &Setting, start: (f32, f32), ink: &mut Plane) {
    let chars: Vec<char> = text.chars().collect();
    let (mut x, y) = start;
    for (i, c) in chars.iter().enumerate() {
        let glyph = face.glyph_id(*c).with_scale_and_position(setting.scale, point(x, y));
        if let Some(outlined) = face.outline_glyph(glyph) {
            let bounds = outlined.px_bounds();
            let (left, top) = (bounds.min.x as isize, bounds.min.y as isize);
            outlined.draw(|gx, gy, coverage| {
                let (px, py) = (left + gx as isize, top + gy as isize);
                let inside =
                    px >= 0 && py >= 0 && (px as usize) < ink.width && (py as usize) < ink.height;
                if inside {
                    let value = &mut ink.data[py as usize * ink.width + px as usize];
                    *value = value.max(coverage.min(1.0));
                }
            });
        }
        x += advance(*c, chars.get(i + 1).copied(), face, setting);
    }
}

/// Pieces of the lines above and below.
fn neighbours(
    face: &FontVec,
    corpus: &Corpus,
    setting: &Setting,
    baseline: f32,
    height: f32,
    rng: &mut Rng,
    ink: &mut Plane,
) {
    let pitch = height * uniform(rng, 0.9, 1.15);
    for direction in [-1.0, 1.0] {
        if rng.f32() < 0.6 {
            let other = corpus.prose(rng, 90);
            let start = setting.margin - uniform(rng, 0.0, 1.0) * setting.scale.y;
            set(&other, face, setting, (start, baseline + direction * pitch), ink);
        }
    }
}

/// Now and then an underline, or the rule of a table beside the text.
fn rules(ink: &mut Plane, sides: [f32; 2], baseline: f32, descent: f32, size: f32, rng: &mut Rng) {
    let thick = (size / 18.0).max(1.0) as usize;
    let (width, height) = (ink.width, ink.height);
    if rng.f32() < 0.03 {
        let y = (baseline + uniform(rng, 1.0, descent.max(2.0))) as usize;
        for row in y..(y + thick).min(height) {
            ink.data[row * width + sides[0] as usize..row * width + sides[1] as usize].fill(1.0);
        }
    }
    if rng.f32() < 0.02 {
        let x = if rng.bool() { sides[0] - 3.0 } else { sides[1] + 2.0 };
        for column in x.max(0.0) as usize..(x.max(0.0) as usize + thick).min(width) {
            ink.data.iter_mut().skip(column).step_by(width).for_each(|value| *value = 1.0);
        }
    }
}

/// A small turn, a slant, a little perspective and a wave.
fn turned(ink: &Plane, length: usize, rng: &mut Rng) -> Plane {
    let angle = normal(rng) * if length > 25 { 0.6 } else { 1.0 };
    let slant = if rng.f32() < 0.15 { uniform(rng, -0.1, 0.35) } else { normal(rng) * 0.04 };
    let (sin, cos) = angle.to_radians().sin_cos();
    let (cx, cy) = (ink.width as f32 / 2.0, ink.height as f32 / 2.0);
    let perspective = if rng.f32() < 0.25 { normal(rng) * 0.06 / cx } else { 0.0 };
    let wave = if rng.f32() < 0.15 { uniform(rng, 0.0, 1.2) } else { 0.0 };
    let (phase, period) = (uniform(rng, 0.0, 6.3), uniform(rng, 60.0, 400.0));
    ink.warp(|x, y| {
        let (dx, dy) = (x - cx, y - cy);
        let dy = dy * (1.0 + perspective * dx) + wave * (phase + x / period * TAU).sin();
        (cx + cos * dx + (sin + slant) * dy, cy - sin * dx + cos * dy)
    })
}
