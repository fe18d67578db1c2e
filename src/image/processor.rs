//! What an image processor is, and what it makes of an image.

use std::borrow::Cow;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use super::Rgb8;
use super::antialias::resize_floats;
use super::class::{Class, Steps};
use super::filter::Filter;
use super::geometry::{
    align_long_axis, center_window, crop_margin, pad, resize_and_center_crop, resize_page,
    thumbnail,
};
use super::resample::resize;
use super::size::Size;
use super::target::{DETECTION_STEP, detection_size, target_size};

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
/// Follows the slow (Pillow) processors of transformers, and the fast one where there is no slow one. Each `do_` flag guards its step; steps
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
    /// Height and width that what is normalised is padded to. The reference pads to the largest
    /// image of a batch where it is None; here images of one size share a batch.
    pub pad_size: Option<(usize, usize)>,
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
    /// The same processor for images of another height and width. Where it crops, the ratio of what
    /// is resized to what is cropped stays; where the size has a shortest and a longest edge, these
    /// become the new sides, and the aspect is kept as before.
    pub fn with_size(&self, height: usize, width: usize) -> Result<Self> {
        let mut other = self.clone();
        let edges = matches!(self.size, Some(Size::Edges { .. }));
        let (shortest, longest) = (height.min(width), height.max(width));
        if self.do_center_crop {
            let (old, new) = (self.crop_size, (height, width));
            other.crop_size = new;
            other.size = self.size.map(|size| size.for_crop(old, new));
        } else if edges && shortest >= DETECTION_STEP {
            other.size = Some(Size::Edges { shortest, longest });
        } else {
            other.size = Some(Size::Exact { height, width });
        }
        Self::from_json(&other.to_json(), None)
    }

    /// The height and width that every image comes out with; None when it depends on the image.
    pub fn output_size(&self) -> Option<(usize, usize)> {
        let exact = match self.size {
            Some(Size::Exact { height, width }) => Some((height, width)),
            _ => None,
        };
        if self.class.is_document() {
            exact.filter(|_| self.do_pad)
        } else if self.do_center_crop {
            Some(self.crop_size)
        } else {
            self.pad_size.or(exact.filter(|_| self.do_resize))
        }
    }

    /// The most pixels that an image comes out with; None where there is no bound.
    pub fn most_pixels(&self) -> Option<usize> {
        let bound = match self.size {
            Some(Size::Edges { shortest, longest }) => Some((shortest, longest)),
            Some(Size::Within { height, width }) => Some((height, width)),
            _ => None,
        };
        let size = self.output_size().or(bound.filter(|_| self.do_resize));
        size.map(|(height, width)| height.saturating_mul(width))
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
        match self.class.steps {
            Steps::Page => self.lay_out_page(image),
            Steps::Picture => self.resize_and_crop(image),
            Steps::Detection => {
                let resized = self.resize_and_crop(image)?;
                self.check_padding(&resized)?;
                Ok(resized)
            }
            // All is done on floats.
            Steps::Floats => {
                let size = self.checked_size(image)?;
                check_area(if self.do_center_crop { self.crop_size } else { size })?;
                Ok(Cow::Borrowed(image))
            }
        }
    }

    /// As `resized`, where something is left of the image.
    fn checked_size(&self, image: &Rgb8) -> Result<(usize, usize)> {
        let (height, width) = self.resized(image);
        ensure!(
            height > 0 && width > 0,
            "an image of {}x{} pixels is too narrow: it would be resized to {width}x{height}",
            image.width,
            image.height
        );
        Ok((height, width))
    }

    /// The height and width that `image` is resized to; its own without resizing.
    fn resized(&self, image: &Rgb8) -> (usize, usize) {
        match (self.size.filter(|_| self.do_resize), self.class.steps) {
            (None, _) => (image.height, image.width),
            (Some(size), Steps::Detection) => detection_size(image, size),
            (Some(size), _) => target_size(image, size),
        }
    }

    fn resize_and_crop<'a>(&self, image: &'a Rgb8) -> Result<Cow<'a, Rgb8>> {
        let size = self.checked_size(image)?;
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

    fn check_padding(&self, image: &Rgb8) -> Result<()> {
        let Some((height, width)) = self.pad_size else { return Ok(()) };
        check_area((height, width))?;
        ensure!(
            image.height <= height && image.width <= width,
            "an image of {}x{} pixels cannot be padded to the pad_size {width}x{height}",
            image.width,
            image.height
        );
        Ok(())
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

    /// What is left to do after [`ImageProcessor::arrange`]: `[h, w, 3]` bytes to `[3, h', w']` floats.
    pub fn to_floats(&self, image: &Rgb8) -> Pixels {
        if self.class.steps == Steps::Floats {
            return self.resize_as_floats(image);
        }
        let (height, width) = self.pad_size.unwrap_or((image.height, image.width));
        // What is padded after normalising is padded with zeros.
        let mut data = vec![0f32; height * width * 3];
        for (channel, plane) in data.chunks_exact_mut(height * width).enumerate() {
            // A channel has 256 values: each goes once through the reference's arithmetic.
            let values: [f32; 256] = std::array::from_fn(|value| self.to_float(value, channel));
            let rows = image.data.chunks_exact(image.width * 3);
            for (out, row) in plane.chunks_exact_mut(width).zip(rows) {
                for (out, pixel) in out.iter_mut().zip(row.chunks_exact(3)) {
                    *out = values[usize::from(pixel[channel])];
                }
            }
        }
        Pixels { channels: 3, height, width, data }
    }

    /// All steps of DINOv3: `[h, w, 3]` bytes to `[3, h', w']` floats.
    fn resize_as_floats(&self, image: &Rgb8) -> Pixels {
        let size = self.resized(image);
        let (height, width) = if self.do_center_crop { self.crop_size } else { size };
        let (window, above, before) = center_window(size, (height, width));
        let levels = std::array::from_fn(|value| value as f32 * self.rescale_factor as f32);
        let kept = resize_floats(image, &levels, size, self.resample, window);
        let mut data = vec![0f32; height * width * 3];
        for (channel, plane) in data.chunks_exact_mut(height * width).enumerate() {
            // The smaller half of an odd border comes first, otherwise than with Pillow.
            let rows = plane.chunks_exact_mut(width).skip(above / 2);
            for (out, row) in rows.zip(kept.chunks_exact(window.width * 3)) {
                for (out, pixel) in out[before / 2..].iter_mut().zip(row.chunks_exact(3)) {
                    *out = pixel[channel];
                }
            }
            plane.iter_mut().for_each(|value| *value = self.normalized(*value, channel));
        }
        Pixels { channels: 3, height, width, data }
    }

    /// What a place of padding holds, channel by channel.
    pub fn padding(&self) -> [f32; 3] {
        match self.class.steps {
            Steps::Detection => [0.0; 3],
            _ => std::array::from_fn(|channel| self.to_float(0, channel)),
        }
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
        self.normalized(float, channel)
    }

    fn normalized(&self, float: f32, channel: usize) -> f32 {
        if !self.do_normalize {
            return float;
        }
        (float - self.image_mean[channel] as f32) / self.image_std[channel] as f32
    }
}
