//! Pictures as bytes of PNG files.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::Rgb8;

/// A PNG of `image`, without loss.
pub fn png(image: &Rgb8) -> anyhow::Result<Vec<u8>> {
    encode(&image.data, image.width, image.height, ExtendedColorType::Rgb8)
}

/// A PNG of one colour, more or less opaque: `opacity` [height, width], row by row.
pub fn png_of_opacity(
    color: [u8; 3],
    opacity: &[u8],
    width: usize,
    height: usize,
) -> anyhow::Result<Vec<u8>> {
    let [red, green, blue] = color;
    let data: Vec<u8> = opacity.iter().flat_map(|alpha| [red, green, blue, *alpha]).collect();
    encode(&data, width, height, ExtendedColorType::Rgba8)
}

fn encode(
    data: &[u8],
    width: usize,
    height: usize,
    color: ExtendedColorType,
) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(data, width as u32, height as u32, color)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::image::{DecodeOptions, decode};

    #[test]
    fn what_is_encoded_is_decoded() {
        let image = Rgb8 { width: 3, height: 2, data: (0..18).map(|i| i * 14).collect() };
        let back = decode(&png(&image).unwrap(), &DecodeOptions::default()).unwrap();
        assert_eq!(back.image, image);
        // Over white: nothing of red at all, then all of it.
        let bytes = png_of_opacity([255, 0, 0], &[0, 255], 2, 1).unwrap();
        let back = decode(&bytes, &DecodeOptions::default()).unwrap();
        assert_eq!(back.image.data, [255, 255, 255, 255, 0, 0]);
    }
}
