//! Against Pillow 13.0.0 and the slow image processors of transformers 4.57.6, with the numbers
//! that testdata/make.py wrote.

#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use serde_json::Value;

use super::resample::{Filter, Window, resize, resize_window, resize_with_gap};
use super::{ImageProcessor, Rgb8};

/// The picture of make.py: a slope with noise on it, and `margin` white pixels all around.
fn picture(width: usize, height: usize, margin: usize) -> Rgb8 {
    let inside = |at: usize, side: usize| (margin..side - margin).contains(&at);
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let noise = ((x * 73856093) ^ (y * 19349663) ^ (c * 83492791)) >> 7 & 63;
                let value = (x * 2 + y * 3 + c * 40) % 192 + noise;
                data.push(if inside(x, width) && inside(y, height) { value as u8 } else { 255 });
            }
        }
    }
    Rgb8 { width, height, data }
}

/// FNV-1a.
fn hash(bytes: impl IntoIterator<Item = u8>) -> String {
    let step = |value: u64, byte| (value ^ u64::from(byte)).wrapping_mul(0x100000001B3);
    format!("{:016x}", bytes.into_iter().fold(0xCBF29CE484222325, step))
}

#[derive(Deserialize)]
struct ResampleCase {
    from: [usize; 2],
    to: [usize; 2],
    resample: u64,
    gap: Option<f64>,
    hash: String,
    samples: Vec<(usize, f64)>,
}

#[test]
fn resize_is_pillows() {
    let cases: Vec<ResampleCase> =
        serde_json::from_str(include_str!("testdata/resample.json")).unwrap();
    assert_eq!(cases.len(), 117);
    for ResampleCase { from, to: [width, height], resample, gap, hash: expected, samples } in cases
    {
        let image = picture(from[0], from[1], 0);
        let filter = Filter::from_code(resample).unwrap();
        let out = match gap {
            Some(gap) => resize_with_gap(&image, width, height, filter, gap).unwrap(),
            None => resize(&image, width, height, filter).unwrap(),
        };
        let case = format!("{from:?} -> {width}x{height}, {filter:?}, gap {gap:?}");
        assert_eq!((out.width, out.height), (width, height), "{case}");
        for (at, value) in samples {
            assert_eq!(f64::from(out.data[at]), value, "{case}, byte {at}");
        }
        assert_eq!(hash(out.data), expected, "{case}");
    }
}

#[test]
fn a_window_is_a_part_of_the_whole() {
    let image = picture(97, 61, 0);
    let window = Window { left: 5, top: 9, width: 13, height: 7 };
    for code in 0..6 {
        let filter = Filter::from_code(code).unwrap();
        for (width, height) in [(30, 20), (150, 90), (97, 20), (30, 61), (97, 61)] {
            let whole = resize(&image, width, height, filter).unwrap();
            let part = resize_window(&image, width, height, filter, window).unwrap();
            let rows = whole.data.chunks_exact(width * 3).skip(9).take(7);
            let expected: Vec<u8> = rows.flat_map(|row| &row[5 * 3..18 * 3]).copied().collect();
            assert_eq!(part.data, expected, "{filter:?} {width}x{height}");
        }
    }
}

#[derive(Deserialize)]
struct ProcessorCase {
    class: String,
    config: Value,
    image: [usize; 3],
    shape: [usize; 3],
    hash: String,
    samples: Vec<(usize, f64)>,
}

#[test]
fn pixel_values_are_the_reference() {
    let cases: Vec<ProcessorCase> =
        serde_json::from_str(include_str!("testdata/processor.json")).unwrap();
    assert_eq!(cases.len(), 91);
    for ProcessorCase { class, mut config, image, shape, hash: expected, samples } in cases {
        config["image_processor_type"] = Value::from(class);
        let [width, height, margin] = image;
        let processor = ImageProcessor::from_json(&config, None).unwrap();
        let out = processor.process(&picture(width, height, margin)).unwrap();
        let case = format!("{config} on {image:?}");
        assert_eq!([out.channels, out.height, out.width], shape, "{case}");
        if let Some(size) = processor.output_size() {
            assert_eq!(size, (out.height, out.width), "{case}");
        }
        for (at, value) in samples {
            let found = f64::from(out.data[at]);
            assert!((found - value).abs() <= 1e-6, "{case}, value {at}: {found} for {value}");
        }
        // Not only close: the same floats.
        let bytes = out.data.iter().flat_map(|value| value.to_le_bytes());
        assert_eq!(hash(bytes), expected, "{case}");
    }
}
