//! Pages pasted together from the sample lines at known places.
#![allow(clippy::unwrap_used)]

use super::*;

/// A page in grey and the boxes of the lines on it, in reading order.
struct Paper {
    width: usize,
    height: usize,
    gray: Vec<f32>,
    boxes: Vec<[f32; 4]>,
}

const SAMPLES: [&str; 6] =
    ["address", "date", "heading", "receipt-total", "sentence", "serial-number"];

/// A sample in grey, its background made white.
fn sample(name: &str) -> (usize, usize, Vec<f32>) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("assets/samples").join(name).with_extension("png");
    let picture = ::image::open(path).unwrap().to_luma8();
    let background = f32::from(picture.as_raw()[0]);
    let gray = picture.as_raw().iter().map(|value| f32::from(*value) * 255.0 / background);
    (picture.width() as usize, picture.height() as usize, gray.map(|v| v.min(255.0)).collect())
}

impl Paper {
    fn new(width: usize, height: usize) -> Paper {
        Paper { width, height, gray: vec![255.0; width * height], boxes: Vec::new() }
    }

    /// Pastes a sample; its box is that of its ink.
    fn paste(&mut self, name: &str, left: usize, top: usize) {
        let (width, height, gray) = sample(name);
        let mut around = [f32::MAX, f32::MAX, 0.0, 0.0];
        for (index, value) in gray.iter().enumerate() {
            let (x, y) = (left + index % width, top + index / width);
            let at = y * self.width + x;
            self.gray[at] = self.gray[at].min(*value);
            if *value < 160.0 {
                let (x, y) = (x as f32, y as f32);
                around = [
                    around[0].min(x),
                    around[1].min(y),
                    around[2].max(x + 1.0),
                    around[3].max(y + 1.0),
                ];
            }
        }
        assert!(left + width <= self.width && top + height <= self.height, "{name} is cut off");
        self.boxes.push(around);
    }

    fn column(&mut self, left: usize, top: usize, lines: usize, apart: usize) {
        for line in 0..lines {
            self.paste(SAMPLES[line % SAMPLES.len()], left, top + line * apart);
        }
    }

    /// Blackens a rectangle: left, top, width, height.
    fn fill(&mut self, left: usize, top: usize, width: usize, height: usize) {
        self.shade(left, top, width, height, 0.0);
    }

    fn shade(&mut self, left: usize, top: usize, width: usize, height: usize, shade: f32) {
        for y in top..top + height {
            self.gray[y * self.width + left..][..width].fill(shade);
        }
    }

    /// Pastes a sample in white; its box is that of its ink, as on paper.
    fn paste_light(&mut self, name: &str, left: usize, top: usize) {
        let mut paper = Paper::new(self.width, self.height);
        paper.paste(name, left, top);
        for (value, ink) in self.gray.iter_mut().zip(&paper.gray) {
            *value += (255.0 - *value) * (255.0 - ink) / 255.0;
        }
        self.boxes.extend(paper.boxes);
    }

    fn map(&mut self, change: impl Fn(usize, usize, f32) -> f32) {
        for (index, value) in self.gray.iter_mut().enumerate() {
            *value = change(index % self.width, index / self.width, *value);
        }
    }

    /// Turns the page about its middle, clockwise, and the boxes with it.
    fn turn(&mut self, degrees: f32) {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let middle = (self.width as f32 / 2.0, self.height as f32 / 2.0);
        let old = self.gray.clone();
        let at = |x: f32, y: f32| {
            let inside = x >= 0.0 && y >= 0.0 && x < self.width as f32 && y < self.height as f32;
            if inside { old[y as usize * self.width + x as usize] } else { 255.0 }
        };
        for (index, value) in self.gray.iter_mut().enumerate() {
            let x = (index % self.width) as f32 - middle.0;
            let y = (index / self.width) as f32 - middle.1;
            *value = at(x * cos + y * sin + middle.0, y * cos - x * sin + middle.1);
        }
        for [left, top, right, bottom] in &mut self.boxes {
            let corners = [(*left, *top), (*right, *top), (*left, *bottom), (*right, *bottom)];
            let turned = corners.map(|(x, y)| {
                let (x, y) = (x - middle.0, y - middle.1);
                (x * cos - y * sin + middle.0, x * sin + y * cos + middle.1)
            });
            *left = turned.iter().map(|(x, _)| *x).fold(f32::MAX, f32::min);
            *right = turned.iter().map(|(x, _)| *x).fold(0.0, f32::max);
            *top = turned.iter().map(|(_, y)| *y).fold(f32::MAX, f32::min);
            *bottom = turned.iter().map(|(_, y)| *y).fold(0.0, f32::max);
        }
    }

    fn picture(&self) -> Rgb8 {
        let data = self.gray.iter().flat_map(|value| [value.clamp(0.0, 255.0) as u8; 3]);
        Rgb8 { width: self.width, height: self.height, data: data.collect() }
    }

    /// The lines found are those pasted, in the same order, their boxes alike.
    #[track_caller]
    fn check(&self, what: &str) -> Vec<Line> {
        let found = find(&self.picture());
        let boxes: Vec<_> = found.iter().map(|line| line.bbox).collect();
        assert_eq!(boxes.len(), self.boxes.len(), "{what}: {boxes:?}, not {:?}", self.boxes);
        for (found, expected) in boxes.iter().zip(&self.boxes) {
            let shared = overlap(&found.map(|value| value as f32), expected);
            assert!(shared >= 0.6, "{what}: {found:?} for {expected:?}: {shared}");
        }
        found
    }
}

/// Intersection over union.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |r: &[f32; 4]| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let both = [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])];
    area(&both) / (area(a) + area(b) - area(&both))
}

/// Noise that is the same in each run, from 0 to 1.
fn noise(x: usize, y: usize) -> f32 {
    let mut bits = (x as u32).wrapping_mul(0x9E37_79B9) ^ (y as u32).wrapping_mul(0x85EB_CA6B);
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x2C1B_3C6D);
    bits = (bits ^ (bits >> 12)).wrapping_mul(0x297A_2D39);
    (bits ^ (bits >> 15)) as f32 / u32::MAX as f32
}

fn one_column() -> Paper {
    let mut paper = Paper::new(900, 900);
    paper.column(90, 90, 12, 58);
    paper
}

fn two_columns() -> Paper {
    let mut paper = Paper::new(1500, 800);
    paper.paste("sentence", 420, 60);
    for left in [60, 800] {
        for line in 0..8 {
            let name = ["sentence", "address", "date"][line % 3];
            paper.paste(name, left, 150 + 60 * line);
        }
    }
    paper
}

#[test]
fn columns_are_read_one_after_the_other() {
    one_column().check("one column");
    two_columns().check("two columns under a heading");
}

#[test]
fn rows_of_a_receipt_are_read_across() {
    let mut paper = Paper::new(760, 500);
    for row in 0..6 {
        paper.paste("date", 20, 30 + 70 * row);
        paper.paste("receipt-total", 540, 33 + 70 * row);
    }
    paper.check("receipt");
}

#[test]
fn skewed_pages_give_level_lines() {
    for degrees in [-5.0, -3.0, -0.7, 1.5, 4.0] {
        let mut paper = one_column();
        paper.turn(degrees);
        let found = paper.check(&format!("{degrees} degrees"));
        // The longest line, 41 pixels high as a sample, would be some 100 if it were still skewed.
        let sentence = &found[4].image;
        assert!(sentence.height <= 56, "{degrees} degrees: {} pixels high", sentence.height);
        let mut paper = two_columns();
        paper.turn(degrees);
        paper.check(&format!("two columns, {degrees} degrees"));
    }
}

#[test]
fn light_noise_and_colour_do_not_matter() {
    type Change = fn(usize, usize, f32) -> f32;
    let changes: [(&str, Change); 6] = [
        ("white on black", |_, _, v| 255.0 - v),
        ("one bit", |_, _, v| if v < 128.0 { 0.0 } else { 255.0 }),
        ("pale", |_, _, v| 150.0 + v * 0.3),
        ("uneven light", |x, _, v| v * (0.35 + 0.65 * x as f32 / 900.0)),
        ("grain", |x, y, v| 0.8 * v + 50.0 * noise(x, y) - 10.0),
        ("specks", |x, y, v| if noise(x, y) < 0.004 { 0.0 } else { v }),
    ];
    for (what, change) in changes {
        let mut paper = one_column();
        paper.map(change);
        paper.check(what);
    }
}

#[test]
fn rules_boxes_and_pictures_are_no_lines() {
    let mut paper = one_column();
    paper.fill(60, 140, 700, 3);
    paper.fill(40, 40, 820, 2);
    paper.fill(40, 840, 820, 2);
    paper.fill(40, 40, 2, 802);
    paper.fill(858, 40, 2, 802);
    paper.fill(700, 450, 140, 180);
    paper.check("rules, a frame and a picture");
}

/// A heading on a band as wide as the page, a table with a head, and a text beside it.
fn banded(shade: f32) -> Paper {
    let mut paper = Paper::new(1000, 700);
    paper.shade(0, 0, 1000, 120, shade);
    paper.paste_light("heading", 60, 40);
    paper.paste("sentence", 60, 180);
    paper.shade(50, 270, 900, 56, shade);
    paper.paste_light("date", 60, 278);
    paper.paste_light("receipt-total", 500, 280);
    paper.paste("address", 60, 350);
    paper.paste("receipt-total", 500, 352);
    paper.paste("sentence", 60, 430);
    paper.paste("sentence", 60, 500);
    paper
}

#[test]
fn light_text_on_a_dark_ground_is_found_among_dark() {
    type Change = fn(usize, usize, f32) -> f32;
    let changes: [(&str, Change); 4] = [
        ("as it is", |_, _, v| v),
        ("the other way about", |_, _, v| 255.0 - v),
        ("grain", |x, y, v| 0.8 * v + 50.0 * noise(x, y) - 10.0),
        ("pale", |_, _, v| 100.0 + v * 0.5),
    ];
    for shade in [0.0, 60.0, 130.0] {
        for (what, change) in changes {
            let mut paper = banded(shade);
            paper.map(change);
            paper.check(&format!("grounds of {shade}, {what}"));
        }
        for degrees in [-3.0, 1.5] {
            let mut paper = banded(shade);
            paper.turn(degrees);
            paper.check(&format!("grounds of {shade}, {degrees} degrees"));
        }
    }
    let cut = &banded(60.0).check("cut out")[0].image;
    assert_eq!(cut.data[..3], [60; 3], "the margin is the ground's");
    assert!(cut.data.iter().any(|value| *value > 220), "the text is as light as it was");
}

#[test]
fn holes_that_are_no_glyphs_are_no_lines() {
    // A table of thick rules, with text in its fields.
    let mut grid = Paper::new(1000, 500);
    grid.fill(40, 40, 920, 420);
    for column in 0..2 {
        for row in 0..4 {
            grid.shade(52 + 456 * column, 52 + 102 * row, 444, 90, 255.0);
            grid.paste("date", 60 + 456 * column, 70 + 102 * row);
        }
    }
    grid.check("fields of a grid");
    let mut picture = Paper::new(1200, 900);
    picture.column(90, 90, 12, 58);
    // Two houses with windows, and thick edges of a scan.
    for top in [100, 500] {
        picture.fill(900, top, 200, 200);
        for window in 0..9 {
            let (across, down) = (60 * (window % 3), 60 * (window / 3));
            picture.shade(920 + across, top + 20 + down, 30, 36, 255.0);
        }
    }
    picture.fill(0, 0, 30, 900);
    picture.fill(0, 880, 1200, 20);
    picture.check("pictures");
    // Strokes that touch, with a row of holes.
    let mut letters = Paper::new(900, 300);
    for letter in 0..6 {
        letters.fill(100 + 100 * letter, 100, 104, 100);
        letters.shade(120 + 100 * letter, 120, 64, 60, 255.0);
    }
    let found = find(&letters.picture());
    assert!(found.iter().all(|line| line.bbox[3] - line.bbox[1] > 90), "{found:?}");
}

#[test]
fn a_line_is_one_line_and_keeps_its_ink() {
    for name in SAMPLES {
        let (width, height, _) = sample(name);
        let mut paper = Paper::new(width, height);
        paper.paste(name, 0, 0);
        let found = paper.check(name);
        let cut = &found[0].image;
        let dark = |data: &[u8]| data.iter().filter(|value| **value < 100).count() as f32;
        let kept = dark(&cut.data) / dark(&paper.picture().data);
        assert!((0.97..1.03).contains(&kept), "{name}: {kept} of the ink");
        assert_eq!(cut.data[..3], [255; 3], "{name}: the margin is the background's");
    }
}

#[test]
fn pages_without_text_have_no_lines() {
    type Change = fn(usize, usize, f32) -> f32;
    let empty: [(&str, Change); 5] = [
        ("white", |_, _, v| v),
        ("black", |_, _, _| 0.0),
        ("a slope of light", |x, y, _| (x + y) as f32 / 8.0),
        ("grain", |x, y, _| 200.0 + 40.0 * noise(x, y)),
        ("specks", |x, y, v| if noise(x, y) < 0.01 { 0.0 } else { v }),
    ];
    for (what, change) in empty {
        let mut paper = Paper::new(900, 700);
        paper.map(change);
        paper.check(what);
    }
    for (width, height) in [(0, 0), (1, 1), (1, 500), (500, 2)] {
        Paper::new(width, height).check("a page of next to nothing");
    }
}

#[test]
fn large_pages_are_looked_at_reduced() {
    let mut paper = Paper::new(2600, 2400);
    paper.column(200, 200, 20, 100);
    paper.check("six megapixels");
}

#[test]
fn rows_stand_one_below_the_other() {
    for name in SAMPLES {
        let mut paper = Paper::new(900, 120);
        paper.paste(name, 60, 30);
        assert_eq!(rows(&paper.picture()), 1, "{name}");
    }
    let mut skewed = one_column();
    skewed.turn(2.0);
    for (what, paper, expected) in [
        ("one column", one_column(), 12),
        ("skewed", skewed, 12),
        ("two columns", two_columns(), 9),
    ] {
        assert_eq!(rows(&paper.picture()), expected, "{what}");
    }
    assert_eq!(rows(&Paper::new(900, 900).picture()), 0);
}
