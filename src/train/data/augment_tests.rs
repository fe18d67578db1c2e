//! Augmentations: what they may do to an image, and what they may not.
#![allow(clippy::unwrap_used)]

use super::*;

/// Grey paper with a black bar, not symmetric.
fn picture(width: usize, height: usize) -> Rgb8 {
    let ink = |x: usize, y: usize| (x > width / 4 && x < width / 2 && y > height / 3) || x == y;
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data = pixels.flat_map(|(x, y)| if ink(x, y) { [10, 20, 30] } else { [220, 210, 200] });
    Rgb8 { width, height, data: data.collect() }
}

fn augment(names: &str) -> Augment {
    names.parse().unwrap_or(Augment { steps: Vec::new() })
}

#[test]
fn names_and_presets() {
    assert_eq!(augment("light").steps, LIGHT);
    assert_eq!(augment("ocr").steps, OCR);
    assert_eq!(augment("caption").steps, CAPTION);
    assert_eq!(augment("noise, light,flip").steps, [Flip, Rotate, Blur, Contrast, Noise]);
    assert!(!augment("ocr").steps.contains(&Flip));
    let error = "ocr,wobble".parse::<Augment>().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("\"wobble\" is no augmentation"), "{error}");
}

#[test]
fn the_same_numbers_give_the_same_picture() {
    let (all, image) = (augment("ocr,caption"), picture(97, 31));
    let first: Vec<Rgb8> = (0..40).map(|row| all.apply(image.clone(), 42, 1, row)).collect();
    let again: Vec<Rgb8> = (0..40).map(|row| all.apply(image.clone(), 42, 1, row)).collect();
    assert_eq!(first, again);
    for (seed, epoch) in [(43, 1), (42, 2)] {
        let other: Vec<Rgb8> =
            (0..40).map(|row| all.apply(image.clone(), seed, epoch, row)).collect();
        assert!(first.iter().zip(&other).filter(|(a, b)| a != b).count() > 30);
    }
    for image in &first {
        assert_eq!(image.data.len(), image.width * image.height * 3);
    }
}

#[test]
fn every_change_happens_about_as_often_as_told() {
    let image = picture(120, 40);
    let table = [
        ("rotate", 0.5),
        ("shear", 0.33),
        ("perspective", 0.33),
        ("scale", 0.25),
        ("erode", 0.125),
        ("dilate", 0.125),
        ("blur", 0.33),
        ("contrast", 0.5),
        ("noise", 0.33),
        ("jpeg", 0.25),
        ("crop", 0.75),
        ("flip", 0.5),
    ];
    for (name, often) in table {
        let step = augment(name);
        let changed = (0..300).filter(|row| step.apply(image.clone(), 7, 0, *row) != image).count();
        let share = changed as f64 / 300.0;
        assert!((share - often).abs() < 0.1, "{name}: {share}");
    }
}

#[test]
fn tiny_and_empty_pictures_survive() {
    let all = augment("ocr,caption");
    for (width, height) in [(1, 1), (1, 9), (300, 1), (2, 2), (3, 400)] {
        for row in 0..30 {
            let image = all.apply(picture(width, height), 1, 0, row);
            assert!(image.width > 0 && image.height > 0);
        }
    }
}

#[test]
fn a_flip_mirrors_pixels_and_twice_is_nothing() {
    let mut random = Random::new(&[1]);
    let image = picture(9, 4);
    let flipped = change(Flip, image.clone(), &mut random);
    assert_eq!(flipped.data[..3], image.data[8 * 3..9 * 3]);
    assert_eq!(change(Flip, flipped, &mut random), image);
}

#[test]
fn dark_strokes_grow_and_shrink() {
    let dark = |image: &Rgb8| image.data.iter().filter(|value| **value < 100).count();
    let image = picture(40, 30);
    for (pick, grows) in [(u8::min as fn(u8, u8) -> u8, true), (u8::max, false)] {
        let mut spread_out = image.clone();
        spread(&mut spread_out, (2, 2), pick);
        assert_eq!(dark(&spread_out) > dark(&image), grows);
    }
}

#[test]
fn turning_keeps_all_of_the_ink_and_fills_with_the_rim() {
    let image = picture(400, 20);
    let warp = Warp { angle: 0.025, used: true, ..Warp::default() };
    let turned = warp.apply(image.clone());
    assert!(turned.height > 25 && turned.height < 40, "{}", turned.height);
    let ink = |image: &Rgb8| image.data.iter().filter(|v| **v < 100).count() as f64;
    assert!((ink(&turned) / ink(&image) - 1.0).abs() < 0.1);
    let last = &turned.data[turned.width * 3 - 3..turned.width * 3];
    assert_eq!(last, [220, 210, 200]);
}
