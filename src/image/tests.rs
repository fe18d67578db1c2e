//! Against Pillow 13.0.0 and the slow image processors of transformers 4.57.6, with the numbers
//! that testdata/make.py wrote.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::filter::Filter;
use super::reduce::resize_with_gap;
use super::resample::{Window, resize, resize_window};
use super::{DecodeOptions, ImageProcessor, Rgb8, decode, decode_page, page_count};

/// The picture of make.py: a slope with noise on it, and `margin` white pixels all around.
pub(super) fn picture(width: usize, height: usize, margin: usize) -> Rgb8 {
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
pub(super) fn hash(bytes: impl IntoIterator<Item = u8>) -> String {
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
    assert_eq!(cases.len(), 157);
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

/// The slow class fails on a shortest edge; its fast one is CLIP's.
#[test]
fn chinese_clip_resizes_to_a_shortest_edge_as_clip() {
    let out = |class: &str| {
        let config =
            serde_json::json!({"image_processor_type": class, "size": 40, "crop_size": 33});
        let processor = ImageProcessor::from_json(&config, None).unwrap();
        processor.process(&picture(90, 50, 0)).unwrap()
    };
    assert_eq!(out("ChineseCLIPImageProcessor"), out("CLIPImageProcessor"));
}

/// What is arranged ahead and what is left to do come to the same as all at once.
#[test]
fn the_two_halves_of_the_steps_are_the_whole() {
    let sizes = serde_json::json!({"height": 20, "width": 30});
    for class in ["ViTImageProcessor", "YolosImageProcessor", "DINOv3ViTImageProcessorFast"] {
        let config = serde_json::json!({
            "image_processor_type": class, "size": sizes, "pad_size": {"height": 33, "width": 40},
        });
        let processor = ImageProcessor::from_json(&config, None).unwrap();
        let image = picture(50, 61, 0);
        let whole = processor.process(&image).unwrap();
        assert_eq!(processor.to_floats(&processor.arrange(image).unwrap()), whole, "{class}");
        let last = *whole.data.last().unwrap();
        assert_eq!(last == processor.padding()[2], class.starts_with("Yolos"), "{class}");
    }
}

#[derive(Deserialize)]
struct DecodeCase {
    file: String,
    page: usize,
    size: [usize; 2],
    orientation: u8,
    lossy: bool,
    hash: String,
    pixels: Vec<u8>,
}

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/testdata/images");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn files_decode_as_in_pillow() {
    let cases = include_str!("testdata/images/decode.json");
    let cases: Vec<DecodeCase> = serde_json::from_str(cases).unwrap();
    assert_eq!(cases.len(), 37);
    for case in cases {
        let bytes = file(&case.file);
        let decoded = decode_page(&bytes, case.page, &DecodeOptions::default());
        let decoded = decoded.unwrap_or_else(|error| panic!("{}: {error:#}", case.file));
        let Rgb8 { width, height, data } = decoded.image;
        assert_eq!([width, height], case.size, "{}", case.file);
        assert_eq!(decoded.orientation, case.orientation, "{}", case.file);
        if case.lossy {
            // JPEG leaves its arithmetic to the decoder: libjpeg-turbo is a few levels away.
            let far = data.iter().zip(&case.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(far <= 4, "{}: off by {far}", case.file);
        } else {
            assert_eq!(hash(data), case.hash, "{} page {}", case.file, case.page);
        }
    }
}

#[test]
fn pages_are_counted() {
    for (name, pages) in [("pages.tif", 3), ("frames.gif", 2), ("colour.jpg", 1)] {
        let bytes = file(name);
        assert_eq!(page_count(&bytes).unwrap(), pages);
        let error = decode_page(&bytes, pages, &DecodeOptions::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("no page {}", pages + 1)), "{error}");
    }
}

/// Icons hold PNGs of all kinds.
#[test]
fn a_png_in_an_icon_is_the_picture() {
    let small = file("indexed.png");
    for name in ["rgb_transparent.png", "indexed.png", "alpha.png", "bilevel.png"] {
        let png = file(name);
        let expected = decode(&png, &DecodeOptions::default()).unwrap();
        let mut ico = b"\0\0\x01\0\x02\0".to_vec();
        for (side, bits, picture, start) in [(9, 8, &small, 38 + png.len()), (16, 32, &png, 38)] {
            ico.extend([side, side, 0, 0, 1, 0, bits, 0]);
            ico.extend((picture.len() as u32).to_le_bytes());
            ico.extend((start as u32).to_le_bytes());
        }
        ico.extend([png, small.clone()].concat());
        let found = decode(&ico, &DecodeOptions::default()).unwrap();
        assert_eq!(found.image, expected.image, "{name}");
        let cut = decode(&ico[..80], &DecodeOptions::default()).unwrap_err().to_string();
        assert!(cut.starts_with("truncated PNG file"), "{cut}");
    }
}

#[test]
fn exif_is_left_alone_when_asked() {
    let options = DecodeOptions { apply_exif: false, ..DecodeOptions::default() };
    let turned = decode(&file("exif6.png"), &options).unwrap();
    let upright = decode(&file("exif1.png"), &options).unwrap();
    assert_eq!((turned.orientation, upright.orientation), (6, 1));
    assert_eq!((turned.width, turned.height), (12, 8));
    assert_eq!(turned.image, upright.image);
}

#[test]
fn half_a_file_is_no_picture() {
    let names = [
        "alpha.png",
        "colour.jpg",
        "progressive.jpg",
        "grey.jpg",
        "cmyk.jpg",
        "frames.gif",
        "lossy.webp",
        "lossless_alpha.webp",
        "lzw.tif",
        "colour.bmp",
        "colour.ppm",
        "grey.pgm",
        "bilevel.pbm",
    ];
    for name in names {
        let bytes = file(name);
        for percent in [40, 60, 80] {
            let cut = &bytes[..bytes.len() * percent / 100];
            // What is left may still hold the whole first frame.
            if name == "frames.gif" && percent > 40 {
                continue;
            }
            let result = decode(cut, &DecodeOptions::default());
            let error = result.err().unwrap_or_else(|| panic!("{name} at {percent} %")).to_string();
            assert!(error.starts_with("truncated") || error.starts_with("damaged"), "{error}");
        }
    }
}

#[test]
fn a_size_beyond_the_limit_is_refused_by_the_header() {
    // Headers alone: there are no pixels to decode.
    let mut bmp = b"BM\x64\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([60_000u32.to_le_bytes(), 60_000u32.to_le_bytes()].concat());
    bmp.extend(b"\x01\0\x18\0");
    bmp.extend([0; 24]);
    let mut gif = b"GIF89a".to_vec();
    gif.extend([60_000u16.to_le_bytes(), 60_000u16.to_le_bytes()].concat());
    // The palette flags, and where the first frame lies.
    gif.extend(b"\0\0\0\x2C\0\0\0\0\x01\0\x01\0\0\x02");
    let ppm = b"P6 60000 60000 255\n".to_vec();
    for bytes in [bmp, gif, ppm] {
        let error = decode(&bytes, &DecodeOptions::default()).unwrap_err().to_string();
        assert_eq!(
            error,
            "the image has 60000x60000 pixels, which is 3600 million and more than the limit of \
             250 million; --max-image-mpixels sets the limit"
        );
    }
    let options = DecodeOptions { max_mpixels: 0.000095, ..DecodeOptions::default() };
    let error = decode(&file("alpha.png"), &options).unwrap_err().to_string();
    assert!(error.contains("12x8 pixels, which is 0.000096 million and more than"), "{error}");
    let options = DecodeOptions { max_mpixels: 0.000096, ..DecodeOptions::default() };
    assert!(decode(&file("alpha.png"), &options).is_ok());
}
