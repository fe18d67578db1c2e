//! What an image processor is, and what it makes of an image.

use std::borrow::Cow;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use super::Rgb8;
use super::class::Class;
use super::filter::Filter;
use super::geometry::{
    align_long_axis, crop_margin, pad, resize_and_center_crop, resize_page, shortest_edge_size,
    thumbnail,
};
use super::resample::resize;
use super::size::Size;

/// What a model sees of one image: `[channels, height, width]` floats.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub data: Vec<f32>,
}

/// An image processor, field by field as in preprocessor_config.json; what the file leaves out has
/// the default of its class.
///
/// Follows the slow (Pillow) processors of transformers. Each `do_` flag guards its step; steps
/// that the class does not have are off.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    pub class: &'static Class,
    pub do_crop_margin: bool,
    pub do_align_long_axis: bool,
    pub do_resize: bool,
    /// None only where no step reads it.
    pub size: Option<Size>,
    pub resample: Filter,
    pub do_thumbnail: bool,
    pub do_pad: bool,
    pub do_center_crop: bool,
    /// Height and width of the centre crop.
    pub crop_size: (usize, usize),
    pub do_rescale: bool,
    pub rescale_factor: f64,
    pub do_normalize: bool,
    pub image_mean: [f64; 3],
    pub image_std: [f64; 3],
    /// The file as it was read, with the keys that are not known here.
    pub(super) raw: Map<String, Value>,
}

/// The most pixels of what goes into a model: a gigabyte of floats. A long strip, its shorter side
/// enlarged to a model's size, or a mistaken config, would ask for all memory.
const MAX_OUTPUT: usize = 90_000_000;

fn check_area((height, width): (usize, usize)) -> Result<()> {
    ensure!(
        height.saturating_mul(width) <= MAX_OUTPUT,
        "the image processor would make {width}x{height} pixels of it, more than any model takes"
    );
    Ok(())
}

impl ImageProcessor {
    /// The same processor for images of another height and width; where it crops, the ratio of what
    /// is resized to what is cropped stays.
    pub fn with_size(&self, height: usize, width: usize) -> Result<Self> {
        let mut other = self.clone();
        let exact = Size::Exact { height, width };
        if !self.do_center_crop {
            other.size = Some(exact);
        } else {
            let (old_height, old_width) = (self.crop_size.0.max(1), self.crop_size.1.max(1));
            other.crop_size = (height, width);
            other.size = self.size.map(|size| match size {
                Size::ShortestEdge(edge) => Size::ShortestEdge(
                    (edge * height.min(width)).div_ceil(old_height.min(old_width)),
                ),
                Size::Exact { height: h, width: w } => Size::Exact {
                    height: (h * height).div_ceil(old_height),
                    width: (w * width).div_ceil(old_width),
                },
            });
        }
        Self::from_json(&other.to_json(), None)
    }

    /// The height and width that every image comes out with; None when it depends on the image.
    pub fn output_size(&self) -> Option<(usize, usize)> {
        let exact = match self.size {
            Some(Size::Exact { height, width }) => Some((height, width)),
            _ => None,
        };
        if self.class.is_document {
            exact.filter(|_| self.do_pad)
        } else if self.do_center_crop {
            Some(self.crop_size)
        } else {
            exact.filter(|_| self.do_resize)
        }
    }

    /// Takes `image` through the steps: `[height, width, 3]` bytes to `[3, h, w]` floats.
    ///
    /// Fails where a step cannot be done, such as a page so narrow that nothing of it is left.
    pub fn process(&self, image: &Rgb8) -> Result<Pixels> {
        Ok(self.to_floats(self.steps(image)?.as_ref()))
    }

    /// The steps on 8-bit pixels alone: the first half of [`ImageProcessor::process`], before
    /// [`ImageProcessor::to_floats`].
    pub fn arrange(&self, image: Rgb8) -> Result<Rgb8> {
        let arranged = match self.steps(&image)? {
            Cow::Owned(arranged) => Some(arranged),
            Cow::Borrowed(_) => None,
        };
        Ok(arranged.unwrap_or(image))
    }

    fn steps<'a>(&self, image: &'a Rgb8) -> Result<Cow<'a, Rgb8>> {
        ensure!(image.width > 0 && image.height > 0, "the image is empty");
        if self.class.is_document { self.lay_out_page(image) } else { self.resize_and_crop(image) }
    }

    fn resize_and_crop<'a>(&self, image: &'a Rgb8) -> Result<Cow<'a, Rgb8>> {
        let size = match self.size {
            Some(Size::Exact { height, width }) if self.do_resize => (height, width),
            Some(Size::ShortestEdge(edge)) if self.do_resize => shortest_edge_size(image, edge),
            _ => (image.height, image.width),
        };
        check_area(if self.do_center_crop { self.crop_size } else { size })?;
        if self.do_center_crop {
            let crop = self.crop_size;
            Ok(Cow::Owned(resize_and_center_crop(image, size, self.resample, crop)?))
        } else if size == (image.height, image.width) {
            Ok(Cow::Borrowed(image))
        } else {
            Ok(Cow::Owned(resize(image, size.1, size.0, self.resample)?))
        }
    }

    /// The steps of Donut and Nougat.
    fn lay_out_page<'a>(&self, image: &'a Rgb8) -> Result<Cow<'a, Rgb8>> {
        let mut image = Cow::Borrowed(image);
        if let (true, Some(cut)) = (self.do_crop_margin, crop_margin(&image)) {
            image = Cow::Owned(cut);
        }
        let Some(Size::Exact { height, width }) = self.size else { return Ok(image) };
        let size = (height, width);
        check_area(size)?;
        if let (true, Some(turned)) = (self.do_align_long_axis, align_long_axis(&image, size)) {
            image = Cow::Owned(turned);
        }
        if self.do_resize {
            image = Cow::Owned(resize_page(&image, size, self.resample, self.do_thumbnail)?);
        } else if self.do_thumbnail {
            image = Cow::Owned(thumbnail(image.into_owned(), size)?);
        }
        if self.do_pad {
            image = Cow::Owned(pad(image.into_owned(), size)?);
        }
        Ok(image)
    }

    /// Rescales and normalises, channel by channel: `[h, w, 3]` -> `[3, h, w]`.
    pub fn to_floats(&self, image: &Rgb8) -> Pixels {
        let area = image.width * image.height;
        let mut data = vec![0f32; area * 3];
        for (channel, plane) in data.chunks_exact_mut(area).enumerate() {
            // A channel has 256 values: each goes once through the reference's arithmetic.
            let values: [f32; 256] = std::array::from_fn(|value| self.to_float(value, channel));
            for (out, pixel) in plane.iter_mut().zip(image.data.chunks_exact(3)) {
                *out = values[usize::from(pixel[channel])];
            }
        }
        Pixels { channels: 3, height: image.height, width: image.width, data }
    }

    /// The way back from what the model sees to a picture, clipped to what a picture can hold:
    /// `[3, h, w]` -> `[h, w, 3]`.
    pub fn to_picture(&self, pixels: &Pixels) -> Rgb8 {
        let (width, height) = (pixels.width, pixels.height);
        let mut data = vec![0; width * height * 3];
        for (channel, plane) in pixels.data.chunks_exact((width * height).max(1)).enumerate() {
            for (value, out) in plane.iter().zip(data.chunks_exact_mut(3)) {
                let mut float = f64::from(*value);
                if self.do_normalize {
                    float = float * self.image_std[channel] + self.image_mean[channel];
                }
                if self.do_rescale && self.rescale_factor != 0.0 {
                    float /= self.rescale_factor;
                }
                out[channel] = float.round().clamp(0.0, 255.0) as u8;
            }
        }
        Rgb8 { width, height, data }
    }

    /// One sample: rescaled in f64 and rounded to f32, then normalised in f32, in that order.
    fn to_float(&self, value: usize, channel: usize) -> f32 {
        let mut float = value as f32;
        if self.do_rescale {
            float = (value as f64 * self.rescale_factor) as f32;
        }
        if self.do_normalize {
            float = (float - self.image_mean[channel] as f32) / self.image_std[channel] as f32;
        }
        float
    }
}
