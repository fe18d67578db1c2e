//! The pictures in an icon: BMPs without their first header, or whole PNG files.

/// The best picture of an ICO, if it is a PNG: of those with most bits a pixel, the largest, as the decoder
/// of ICO chooses.
pub(super) fn png_within(bytes: &[u8]) -> Option<&[u8]> {
    let count = usize::from(u16::from_le_bytes(*bytes.get(4..)?.first_chunk()?));
    let entries = bytes.get(6..)?.as_chunks::<16>().0;
    // A side of 0 is one of 256.
    let side = |side: u8| u32::from(side.wrapping_sub(1)) + 1;
    let worth = |entry: &[u8; 16]| {
        (u16::from_le_bytes([entry[6], entry[7]]), side(entry[0]) * side(entry[1]))
    };
    let (last, others) = entries[..count.min(entries.len())].split_last()?;
    let best = others.iter().fold(last, |a, b| if worth(b) > worth(a) { b } else { a });
    let number = |at: usize| {
        let bytes = [best[at], best[at + 1], best[at + 2], best[at + 3]];
        u32::from_le_bytes(bytes) as usize
    };
    let picture = bytes.get(number(12)..)?;
    let picture = &picture[..picture.len().min(number(8))];
    picture.starts_with(b"\x89PNG\r\n\x1A\n").then_some(picture)
}
