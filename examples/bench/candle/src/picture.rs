//! A picture as the model sees it: resized to the side that the checkpoint names, rescaled, normalized.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use image::imageops::{FilterType, resize};
use serde::Deserialize;

/// preprocessor_config.json, as far as a TrOCR with a ViT needs it.
#[derive(Deserialize)]
pub(crate) struct Processor {
    size: Size,
    /// As Pillow counts them.
    resample: u32,
    rescale_factor: f32,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    #[serde(default)]
    do_center_crop: bool,
}

#[derive(Deserialize)]
struct Size {
    height: u32,
    width: u32,
}

impl Processor {
    /// (height, width)
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.size.height as usize, self.size.width as usize)
    }

    /// Appends the picture's numbers, [3, H, W].
    pub(crate) fn read(&self, path: &Path, pixels: &mut Vec<f32>) -> Result<()> {
        ensure!(
            !self.do_center_crop,
            "pictures of this checkpoint are cropped, which is not done here"
        );
        let filter = match self.resample {
            0 => FilterType::Nearest,
            1 => FilterType::Lanczos3,
            2 => FilterType::Triangle,
            3 => FilterType::CatmullRom,
            other => bail!("resample {other} of preprocessor_config.json is not done here"),
        };
        let picture =
            image::open(path).with_context(|| format!("can't read {path:?}"))?.into_rgb8();
        let picture = resize(&picture, self.size.width, self.size.height, filter);
        for channel in 0..3 {
            let (mean, std) = (self.image_mean[channel], self.image_std[channel]);
            pixels.extend(
                picture
                    .pixels()
                    .map(|pixel| (f32::from(pixel.0[channel]) * self.rescale_factor - mean) / std),
            );
        }
        Ok(())
    }
}
