//! What a file is by its first bytes, where it is no picture that can be decoded.

use anyhow::{Error, anyhow};

/// Formats that are recognised to be refused by name.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"%PDF-", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"DDS ", "DirectDraw Surface"),
    (0, b"qoif", "QOI"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"PK\x03\x04", "zip"),
];

/// The error for bytes that none of the decoders takes.
pub(super) fn refuse(bytes: &[u8]) -> Error {
    if bytes.is_empty() {
        return anyhow!("not an image (the file is empty)");
    }
    let foreign =
        FOREIGN.iter().find(|(at, magic, _)| bytes[(*at).min(bytes.len())..].starts_with(magic));
    if let Some((_, _, name)) = foreign {
        return match *name {
            "gzip" | "zip" => anyhow!("not an image (a {name} archive)"),
            _ => anyhow!("{name} files are not read; convert it to PNG or JPEG first"),
        };
    }
    let head = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(head);
    if text.contains("<svg") {
        return anyhow!("SVG files are not read; convert it to PNG first");
    }
    let printable =
        head.iter().filter(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if text.trim_start().starts_with('<') {
        return anyhow!("not an image (HTML or XML text)");
    }
    if printable.count() * 20 >= head.len() * 19 {
        return anyhow!("not an image (plain text)");
    }
    anyhow!("not an image (unknown format)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named() {
        let table: &[(&[u8], &str)] = &[
            (b"", "not an image (the file is empty)"),
            (b"hello there, this is text\n", "not an image (plain text)"),
            (b"<!doctype html><p>no", "not an image (HTML or XML text)"),
            (
                b"\x00\x00\x00\x20ftypheicxxxx",
                "HEIC files are not read; convert it to PNG or JPEG first",
            ),
            (b"%PDF-1.7", "PDF files are not read; convert it to PNG or JPEG first"),
            (b"<?xml version='1.0'?><svg/>", "SVG files are not read; convert it to PNG first"),
            (b"PK\x03\x04....", "not an image (a zip archive)"),
            (&[1, 2, 250, 251], "not an image (unknown format)"),
        ];
        for (bytes, expected) in table {
            assert_eq!(refuse(bytes).to_string(), *expected);
        }
    }
}
