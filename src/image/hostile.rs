//! Files made to take all time and memory there is.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::{
    DecodeOptions, ImageProcessor, MAX_PAGES, Pages, Rgb8, decode, memory, page_count, visit_pages,
};

/// Every page that is visited: its number and the error, if it has one.
fn visited(bytes: &[u8], pages: Option<&str>) -> Vec<(Option<usize>, Option<String>)> {
    let pages: Option<Pages> = pages.map(|pages| pages.parse().unwrap());
    let mut visited = Vec::new();
    visit_pages(bytes, pages.as_ref(), &DecodeOptions::default(), &mut |page, decoded| {
        visited.push((page, decoded.err().map(|error| error.to_string())));
        true
    });
    visited
}

fn refusal(bytes: &[u8]) -> String {
    decode(bytes, &DecodeOptions::default()).unwrap_err().to_string()
}

/// An entry of a directory: a number of 32 bits.
fn entry(tag: u16, value: u32) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &[4, 0, 1, 0, 0, 0], &value.to_le_bytes()].concat()
}

/// A grey TIFF of one strip, whose pixels are not there.
fn tiff(width: u32, height: u32, compression: u32) -> Vec<u8> {
    let entries = [(256, width), (257, height), (258, 8), (259, compression), (262, 1), (273, 8)];
    let entries: Vec<u8> = entries
        .into_iter()
        .chain([(278, height), (279, 16)])
        .flat_map(|(tag, value)| entry(tag, value))
        .collect();
    [b"II*\0\x08\0\0\0\x08\0", entries.as_slice(), &[0; 4], &[0; 16]].concat()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [b"IHDR", size.as_slice(), &[8, 6, 0, 0, 0]].concat();
    let mut sum = flate2::Crc::new();
    sum.update(&header);
    let (length, sum) = (13u32.to_be_bytes(), sum.sum().to_be_bytes());
    [b"\x89PNG\r\n\x1A\n", length.as_slice(), &header, &sum, b"\0\0\x10\0IDATx"].concat()
}

#[test]
fn what_headers_promise_is_not_believed() {
    let jpeg =
        b"\xFF\xD8\xFF\xC0\0\x0B\x08\xFF\xDC\xFF\xDC\x01\x01\x11\0\xFF\xDA\0\x08\x01\x01\0\0\x3F\0";
    let webp = b"RIFF\x40\0\0\0WEBPVP8X\x0A\0\0\0\0\0\0\0\xFF\x3F\0\xFF\x3F\0VP8L\x08\0\0\0\x2F\xFF\xFF\xFF\x0F";
    let webp = [&webp[..], &[0; 64]].concat();
    let table = [
        (png(100_000, 100_000), "100000x100000"),
        (tiff(100_000, 100_000, 1), "100000x100000"),
        (tiff(4_000_000_000, 4_000_000_000, 5), "4000000000x4000000000"),
        (b"P5 100000 100000 255\n".to_vec(), "100000x100000"),
        (b"P1 100000 100000\n".to_vec(), "100000x100000"),
        (jpeg.to_vec(), "65500x65500"),
        (webp, "16384x16384"),
    ];
    for (bytes, size) in table {
        let start = Instant::now();
        let error = refusal(&bytes);
        let expected = format!("the image has {size} pixels");
        assert!(error.starts_with(&expected) || error.starts_with("damaged"), "{size}: {error}");
        // It says no to another limit than that of the decoder itself.
        assert!(start.elapsed() < Duration::from_secs(2), "{size}: {:?}", start.elapsed());
    }
    // Within the limit, and not a thousandth of it there.
    for bytes in [png(15_000, 15_000), tiff(15_000, 15_000, 1), tiff(15_000, 15_000, 5)] {
        let error = refusal(&bytes);
        assert!(error.starts_with("truncated") || error.starts_with("damaged"), "{error}");
    }
}

#[test]
fn pages_without_end_are_told() {
    // Each directory is empty and leads to the next, six bytes on.
    let count = MAX_PAGES + 1000;
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    for page in 1..=count as u32 {
        let next = if page == count as u32 { 0 } else { 8 + 6 * page };
        bytes.extend([&[0, 0], next.to_le_bytes().as_slice()].concat());
    }
    assert_eq!(page_count(&bytes).unwrap(), MAX_PAGES + 1);
    let pages = visited(&bytes, None);
    assert_eq!(pages.len(), MAX_PAGES + 1);
    let (number, error) = pages.last().unwrap();
    assert_eq!(*number, Some(MAX_PAGES + 1));
    let expected = "has more than 65535 pages, and no more of one file are read";
    assert_eq!(error.as_deref(), Some(expected));
    assert_eq!(visited(&bytes, Some("65535-70000")).len(), 2);
    assert_eq!(visited(&bytes, Some("70000")).len(), 1);
    // A circle is no more than its pages.
    let circle = b"II*\0\x08\0\0\0\0\0\x0E\0\0\0\0\0\x08\0\0\0";
    assert_eq!(visited(circle, None).len(), 2);
}

/// A GIF of one pixel and many frames.
fn gif(frames: usize) -> Vec<u8> {
    let mut bytes = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xFF\xFF\xFF".to_vec();
    for frame in 0..frames {
        // Black and white by turns.
        let codes = if frame % 2 == 0 { b"\x44\x01" } else { b"\x4C\x01" };
        bytes.extend(b"\x2C\0\0\0\0\x01\0\x01\0\0\x02\x02");
        bytes.extend(codes);
        bytes.push(0);
    }
    bytes.push(b';');
    bytes
}

#[test]
fn long_animations_take_no_more_than_is_asked_for() {
    let bytes = gif(10_000);
    assert_eq!(page_count(&bytes).unwrap(), 10_000);
    assert_eq!(visited(&bytes, None), [(Some(1), None)]);
    assert_eq!(visited(&bytes, Some("2,10000")), [(Some(2), None), (Some(10_000), None)]);
    let all = visited(&bytes, Some("1-"));
    assert_eq!(all.len(), 10_000);
    assert!(all.iter().all(|(_, error)| error.is_none()));
    let beyond = visited(&gif(MAX_PAGES + 5), Some("65535-"));
    assert_eq!(beyond.len(), 2);
    assert!(beyond[1].1.as_ref().unwrap().starts_with("has more than 65535 pages"));
}

/// A frame that is announced and does not come is told.
#[test]
fn missing_frames_are_told() {
    let bytes = gif(3);
    let cut = &bytes[..bytes.len() - 8];
    let pages = visited(cut, Some("2-"));
    assert_eq!(pages[0], (Some(2), None));
    assert_eq!(pages.len(), 2);
    assert!(pages[1].1.is_some());
}

#[test]
fn a_jpeg_may_not_go_over_its_pixels_without_end() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bytes =
        std::fs::read(folder.join("src/image/testdata/images/progressive.jpg")).unwrap();
    let size = bytes.windows(2).position(|pair| pair == b"\xFF\xC2").unwrap() + 5;
    bytes[size..size + 4].copy_from_slice(&[0x3A, 0x98, 0x3A, 0x98]);
    let passes = b"\xFF\xDA\0\x08\x01\x01\0\x01\x3F\0".repeat(30);
    bytes.splice(bytes.len() - 2..bytes.len() - 2, passes);
    let start = Instant::now();
    let error = refusal(&bytes);
    assert!(error.starts_with("damaged JPEG file (") && error.contains("225 million"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn no_picture_takes_all_the_time() {
    let options = DecodeOptions { max_time: Duration::ZERO, ..DecodeOptions::default() };
    // Rows are read one by one.
    let mut bmp =
        b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x04\0\0\0\0\x04\0\0\x01\0\x18\0".to_vec();
    bmp.extend([0; 24]);
    bmp.extend([7; 12 * 1024]);
    assert_eq!(decode(&bmp, &DecodeOptions::default()).unwrap().image.height, 1024);
    let error = decode(&bmp, &options).unwrap_err().to_string();
    assert_eq!(error, "takes more than 0 s to decode");
    let mut errors = Vec::new();
    let pages = "1-".parse().unwrap();
    visit_pages(&gif(5), Some(&pages), &options, &mut |_, decoded| {
        errors.extend(decoded.err().map(|error| error.to_string()));
        true
    });
    assert_eq!(errors, ["takes more than 0 s to decode"]);
}

/// Room is asked for by the largest page, not by the first.
#[test]
fn memory_is_that_of_the_largest_page() {
    let small = tiff(10, 10, 1);
    let mut bytes = small.clone();
    let second = bytes.len() as u32;
    // The first directory leads to the second.
    bytes[8 + 2 + 8 * 12..][..4].copy_from_slice(&second.to_le_bytes());
    bytes.extend(&tiff(10_000, 10_000, 1)[8..]);
    assert!(memory(&small) < 10_000);
    assert!(memory(&bytes) >= 10_000 * 10_000 * 7);
}

/// A strip that is to be enlarged until its shorter side fits would be larger than the memory.
#[test]
fn nothing_is_enlarged_beyond_reason() {
    let strip = Rgb8 { width: 30_000, height: 2, data: vec![7; 180_000] };
    let process = |json: serde_json::Value| {
        let processor = ImageProcessor::from_json(&json, None).unwrap();
        processor.process(&strip).map(|pixels| [pixels.width, pixels.height])
    };
    let class = "CLIPImageProcessor";
    let error = process(serde_json::json!({
        "image_processor_type": class, "size": {"shortest_edge": 224}, "do_center_crop": false
    }));
    let expected =
        "the image processor would make 3360000x224 pixels of it, more than any model takes";
    assert_eq!(error.unwrap_err().to_string(), expected);
    let error = process(serde_json::json!({
        "image_processor_type": "ViTImageProcessor", "size": {"height": 60_000, "width": 60_000}
    }));
    assert!(error.unwrap_err().to_string().contains("60000x60000"));
    let error = process(serde_json::json!({
        "image_processor_type": "YolosImageProcessor", "size": {"shortest_edge": 800, "longest_edge": 1333}
    }));
    assert!(
        error.unwrap_err().to_string().contains("is too narrow: it would be resized to 1328x0")
    );
    let error = process(serde_json::json!({
        "image_processor_type": "DINOv3ViTImageProcessor", "size": {"max_height": 9, "max_width": 60}
    }));
    assert!(error.unwrap_err().to_string().contains("is too narrow: it would be resized to 60x0"));
    let error = process(serde_json::json!({
        "image_processor_type": "YolosImageProcessor", "size": {"height": 9, "width": 60},
        "pad_size": {"height": 20, "width": 40}
    }));
    let expected = "an image of 60x9 pixels cannot be padded to the pad_size 40x20";
    assert_eq!(error.unwrap_err().to_string(), expected);
    // Where only the middle is kept, nothing of the rest is made.
    let kept = process(serde_json::json!({
        "image_processor_type": class, "size": {"shortest_edge": 224}, "crop_size": 224
    }));
    assert_eq!(kept.unwrap(), [224, 224]);
    let kept = process(serde_json::json!({
        "image_processor_type": "DINOv3ViTImageProcessor", "size": {"shortest_edge": 224},
        "do_center_crop": true, "crop_size": 224
    }));
    assert_eq!(kept.unwrap(), [224, 224]);
}
