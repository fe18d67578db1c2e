//! How many frames an animation has: GIF, WebP or PNG.

use ::image::ImageFormat;

/// How many frames an animated WebP has, by its chunks; 0 for others.
pub(super) fn webp_frames(bytes: &[u8]) -> usize {
    let mut frames = 0;
    let mut at = 12;
    let head = |at: usize| bytes.get(at..)?.first_chunk::<8>();
    while let Some([name @ .., a, b, c, d]) = head(at) {
        frames += usize::from(name == b"ANMF");
        let size = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        // Chunks of odd size are followed by a byte of padding.
        at = at.saturating_add(8).saturating_add(size).saturating_add(size & 1);
    }
    frames
}

/// How many images an animated PNG has; 0 for others.
pub(super) fn png_frames(bytes: &[u8]) -> usize {
    let control = png_chunks(bytes).find(|(kind, _)| kind == b"acTL" || kind == b"IDAT");
    match control {
        Some((kind, data)) if &kind == b"acTL" => {
            let frames = data.first_chunk::<4>();
            let frames = frames.map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
            // The number is only told; there can't be more than there are frame controls.
            let controls = png_chunks(bytes).filter(|(kind, _)| kind == b"fcTL").count();
            frames.min(controls) + usize::from(has_separate_first(bytes, ImageFormat::Png))
        }
        _ => 0,
    }
}

/// Whether a PNG's first image is none of its animation's frames.
pub(super) fn has_separate_first(bytes: &[u8], format: ImageFormat) -> bool {
    let is_first = |kind: &[u8; 4]| kind == b"fcTL" || kind == b"IDAT";
    let mut chunks = png_chunks(bytes);
    format == ImageFormat::Png
        && chunks.find(|(kind, _)| is_first(kind)).is_some_and(|(kind, _)| &kind == b"IDAT")
        && chunks.any(|(kind, _)| &kind == b"fcTL")
}

/// The chunks of a PNG: name, and data, as far as it is there.
pub(super) fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> + '_ {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<8>()?;
        let size = u32::from_be_bytes(*head.first_chunk::<4>()?) as usize;
        let (data, behind) = behind.split_at(size.min(behind.len()));
        // Four bytes of checksum follow.
        rest = behind.get(4..).unwrap_or_default();
        Some((*head.last_chunk::<4>()?, data))
    })
}

/// How many frames a GIF has, found by stepping over its blocks. A file cut short has those whose
/// blocks are begun.
pub(super) fn gif_frames(bytes: &[u8]) -> usize {
    let mut frames = 0;
    let color_table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let Some(&flags) = bytes.get(10) else { return 0 };
    let mut at = 13 + color_table(flags);
    while let Some(block) = bytes.get(at) {
        at += match block {
            // An extension, with its label.
            0x21 => 2,
            // A frame: its place and size, its flags, its colours, the size of its codes.
            0x2C => {
                frames += 1;
                11 + bytes.get(at + 9).map_or(0, |&flags| color_table(flags))
            }
            _ => return frames,
        };
        // Blocks of data, each after its length, up to one of no length.
        while let Some(&length @ 1..) = bytes.get(at) {
            at += 1 + usize::from(length);
        }
        at += 1;
    }
    frames
}
