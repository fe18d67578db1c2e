//! The format of a file, by its first bytes. Names are never looked at.

use anyhow::{Result, bail};

use ::image::ImageFormat;

/// Formats that are recognised and not read: their name, where their mark lies, and the mark.
const REFUSED: &[(&str, usize, &[u8])] = &[
    ("an AVIF", 4, b"ftypavif"),
    ("an AVIF", 4, b"ftypavis"),
    ("a HEIC", 4, b"ftypheic"),
    ("a HEIC", 4, b"ftypheix"),
    ("a HEIC", 4, b"ftyphevc"),
    ("a HEIC", 4, b"ftyphevx"),
    ("a HEIC", 4, b"ftypheim"),
    ("a HEIC", 4, b"ftypheis"),
    ("a HEIF", 4, b"ftypmif1"),
    ("a HEIF", 4, b"ftypmsf1"),
    ("a Canon CR3", 4, b"ftypcrx "),
    ("a JPEG XL", 0, b"\xFF\x0A"),
    ("a JPEG XL", 0, b"\0\0\0\x0CJXL \r\n\x87\n"),
    ("a JPEG 2000", 0, b"\0\0\0\x0CjP  \r\n\x87\n"),
    ("a JPEG 2000", 0, b"\xFF\x4F\xFF\x51"),
    ("a PostScript", 0, b"%!PS"),
    ("a PostScript", 0, b"\xC5\xD0\xD3\xC6"),
    ("a Photoshop", 0, b"8BPS"),
    ("a CUR", 0, b"\0\0\x02\0"),
    ("an ICNS", 0, b"icns"),
    ("a DDS", 0, b"DDS "),
    ("an OpenEXR", 0, b"\x76\x2F\x31\x01"),
    ("a Radiance HDR", 0, b"#?RADIANCE"),
    ("a Radiance HDR", 0, b"#?RGBE"),
    ("a QOI", 0, b"qoif"),
    ("a farbfeld", 0, b"farbfeld"),
    ("a DjVu", 0, b"AT&TFORM"),
    ("a BigTIFF", 0, b"II\x2B\0"),
    ("a BigTIFF", 0, b"MM\0\x2B"),
    ("a PFM", 0, b"PF\n"),
    ("a PFM", 0, b"Pf\n"),
];

/// Formats that are read, but for PNM: where their mark lies, and the mark.
const READ: &[(ImageFormat, usize, &[u8])] = &[
    (ImageFormat::Png, 0, b"\x89PNG\r\n\x1A\n"),
    (ImageFormat::Jpeg, 0, b"\xFF\xD8\xFF"),
    (ImageFormat::Gif, 0, b"GIF87a"),
    (ImageFormat::Gif, 0, b"GIF89a"),
    (ImageFormat::WebP, 0, b"RIFF"),
    (ImageFormat::Tiff, 0, b"II*\0"),
    (ImageFormat::Tiff, 0, b"MM\0*"),
    (ImageFormat::Bmp, 0, b"BM"),
    (ImageFormat::Ico, 0, b"\0\0\x01\0"),
];

/// Archives, whose members are read only where the archive is a file.
const ARCHIVES: &[(&str, usize, &[u8])] = &[
    ("a zip archive", 0, b"PK\x03\x04"),
    ("a gzip file", 0, b"\x1F\x8B"),
    ("a tar archive", 257, b"ustar"),
    ("a 7z archive", 0, b"7z\xBC\xAF\x27\x1C"),
    ("a RAR archive", 0, b"Rar!\x1A\x07"),
    ("a zstd file", 0, b"\x28\xB5\x2F\xFD"),
];

/// The format of `bytes`, or a sentence that says what they are instead.
pub(super) fn sniff(bytes: &[u8]) -> Result<ImageFormat> {
    if bytes.is_empty() {
        bail!("not an image (the file is empty)");
    }
    // A cursor file of no cursors is another that begins with zeros, a TGA mostly.
    let zeros = has(bytes, 0, b"\0\0\x02\0\0\0");
    let refused = REFUSED.iter().find(|(_, at, mark)| has(bytes, *at, mark) && !zeros);
    if let Some((name, ..)) = refused {
        bail!("{name} file, which is not supported; convert it to PNG or JPEG first");
    }
    if let Some((name, ..)) = ARCHIVES.iter().find(|(_, at, mark)| has(bytes, *at, mark)) {
        bail!("not an image ({name}; unpack it first)");
    }
    // A PDF may have up to 1024 bytes of something else in front.
    if contains(&bytes[..bytes.len().min(1024)], b"%PDF-") {
        bail!("a PDF file, which is not supported; turn its pages into PNG images first");
    }
    match READ.iter().find(|(_, at, mark)| has(bytes, *at, mark)) {
        // RIFF holds sounds and films too.
        Some((ImageFormat::WebP, ..)) if !has(bytes, 8, b"WEBP") => bail!("{}", describe(bytes)),
        Some((format, ..)) => Ok(*format),
        None if is_pnm(bytes) => Ok(ImageFormat::Pnm),
        None => bail!("{}", describe(bytes)),
    }
}

/// Whether a file that begins like this is a picture, of a kind that is read or not. Documents, web
/// pages and archives are not.
pub fn is_picture(head: &[u8]) -> bool {
    let documents = ["a PostScript", "a DjVu"];
    let is_refused =
        |(name, at, mark): &(&str, usize, &[u8])| has(head, *at, mark) && !documents.contains(name);
    sniff(head).is_ok() || REFUSED.iter().any(is_refused)
}

/// `P`, a digit, then white space and a number or comment: some texts begin with `P1`.
fn is_pnm(bytes: &[u8]) -> bool {
    match bytes {
        [b'P', b'7', b'\n', ..] => true,
        [b'P', b'1'..=b'6', space, rest @ ..] if space.is_ascii_whitespace() => {
            let next = rest.iter().find(|byte| !byte.is_ascii_whitespace());
            next.is_some_and(|byte| byte.is_ascii_digit() || *byte == b'#')
        }
        [b'P', b'1'..=b'6', b'#', ..] => true,
        _ => false,
    }
}

/// The sentence for bytes that carry no mark of an image format.
fn describe(bytes: &[u8]) -> &'static str {
    let head = &bytes[..bytes.len().min(1024)];
    if head.iter().all(|&byte| byte == 0) {
        return "not an image (the file holds zeros)";
    }
    // The cut at 1024 bytes may split one last character.
    let is_text = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    if !is_text || head.contains(&0) {
        return "not an image (no known format begins like this file)";
    }
    let start = head.trim_ascii_start();
    if contains(head, b"<svg") {
        "an SVG file, which is not supported; render it to PNG first"
    } else if start.starts_with(b"version https://git-lfs") {
        "not an image (a Git LFS pointer; fetch the file itself with git lfs pull)"
    } else if start.len() >= 5 && start[..5].eq_ignore_ascii_case(b"<html")
        || start.len() >= 9 && start[..9].eq_ignore_ascii_case(b"<!doctype")
    {
        "not an image (a web page)"
    } else {
        "not an image (a text file)"
    }
}

/// The name of a format that is read, for sentences.
pub(super) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Ico => "ICO",
        _ => "PNM",
    }
}

fn has(bytes: &[u8], at: usize, mark: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(mark))
}

fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}

/// Whether the file reaches the end that its format gives it, for formats whose decoders do not ask.
pub(super) fn is_complete(bytes: &[u8], format: ImageFormat) -> bool {
    match (format, bytes) {
        (ImageFormat::Jpeg, _) => jpeg_scans(bytes).is_some(),
        (ImageFormat::WebP, [_, _, _, _, a, b, c, d, rest @ ..]) => {
            rest.len() as u64 >= u64::from(u32::from_le_bytes([*a, *b, *c, *d]))
        }
        _ => true,
    }
}

/// How many passes over the picture a JPEG makes, if it goes on to its end-of-image marker. The decoder
/// paints what is missing in grey and reports nothing, so a file cut short has to be found by walking its
/// segments.
pub(super) fn jpeg_scans(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut scans) = (2, 0);
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) {
        at += offset + 1;
        match bytes.get(at) {
            Some(0xD9) => return Some(scans),
            // A fill byte: the marker's own 0xFF follows.
            Some(0xFF) => {}
            // A stuffed zero in coded data, a restart or another marker without a segment.
            Some(0x00 | 0x01 | 0xD0..=0xD8) => at += 1,
            Some(marker) => {
                scans += usize::from(*marker == 0xDA);
                let length = bytes.get(at + 1..at + 3)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
            None => return None,
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_named() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "not an image (the file is empty)"),
            (&[0; 40], "not an image (the file holds zeros)"),
            (b"hello, world", "not an image (a text file)"),
            (b"P1 is a text", "not an image (a text file)"),
            (b"RIFF\x10\0\0\0WAVE", "not an image (no known format begins like this file)"),
            (b"PK\x03\x04", "not an image (a zip archive; unpack it first)"),
            ("h\u{e9}llo".as_bytes(), "not an image (a text file)"),
            (b"  <!DOCTYPE html><html>", "not an image (a web page)"),
            (b"\x7FELF\x02\x01\0\0", "not an image (no known format begins like this file)"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "not an image (a Git LFS pointer; fetch the file itself with git lfs pull)",
            ),
            (
                b"<?xml version=\"1.0\"?>\n<svg xmlns=\"\">",
                "an SVG file, which is not supported; render it to PNG first",
            ),
            (
                b"\n%PDF-1.7",
                "a PDF file, which is not supported; turn its pages into PNG images first",
            ),
            (
                b"\0\0\0\x1CftypavifXXXX",
                "an AVIF file, which is not supported; convert it to PNG or JPEG first",
            ),
            (
                b"\0\0\0\x18ftypheicXXXX",
                "a HEIC file, which is not supported; convert it to PNG or JPEG first",
            ),
        ];
        for (bytes, sentence) in cases {
            assert_eq!(sniff(bytes).unwrap_err().to_string(), *sentence);
        }
    }

    #[test]
    fn pictures_are_told_from_other_files() {
        let pictures: &[&[u8]] = &[b"GIF89a", b"\0\0\0\x18ftypheicXXXX", b"8BPS", b"P6 1 1 255 "];
        assert!(pictures.iter().all(|head| is_picture(head)));
        let others: &[&[u8]] = &[b"", b"text", b"%PDF-1.4", b"%!PS-Adobe", b"<svg>", b"PK\x03\x04"];
        assert!(!others.iter().any(|head| is_picture(head)));
    }

    #[test]
    fn what_is_read_is_known_by_content() {
        let cases: &[(&[u8], &str)] = &[
            (b"\x89PNG\r\n\x1a\n", "PNG"),
            (b"\xFF\xD8\xFF\xE0", "JPEG"),
            (b"GIF89a", "GIF"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
            (b"II*\0", "TIFF"),
            (b"MM\0*", "TIFF"),
            (b"BM\x10\0", "BMP"),
            (b"P6\n1 1\n", "PNM"),
            (b"P5\n# made by hand\n", "PNM"),
            (b"\0\0\x01\0\x01\0", "ICO"),
        ];
        for (bytes, format) in cases {
            assert_eq!(name(sniff(bytes).unwrap()), *format);
        }
    }

    #[test]
    fn a_jpeg_ends_with_its_own_marker() {
        // The comment holds an end marker of its own, as an embedded thumbnail does.
        let whole =
            b"\xFF\xD8\xFF\xFE\0\x04\xFF\xD9\xFF\xDA\0\x02\x11\xFF\0\x22\xFF\xD0\x33\xFF\xD9";
        assert_eq!(jpeg_scans(whole), Some(1));
        assert_eq!(jpeg_scans(&[whole, b"trailing".as_slice()].concat()), Some(1));
        for len in 2..whole.len() {
            assert_eq!(jpeg_scans(&whole[..len]), None, "{len}");
        }
    }
}
