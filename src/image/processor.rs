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

impl ImageProcessor {
<<<<<<< HEAD
    /// Reads the content of preprocessor_config.json, or of `image_processor` in
    /// processor_config.json. `fallback_model_type` is the encoder's `model_type`; it decides the
    /// class of a file that does not name one.
    ///
    /// Fails on a class that is not known and on settings that the class cannot follow.
    pub fn from_json(config: &Value, fallback_model_type: Option<&str>) -> Result<Self> {
        let raw =
            config.as_object().context("the image processor's settings are no JSON object")?;
        let fields = Fields(raw);
        let class = match (fields.get("image_processor_type"), fields.get("feature_extractor_type"))
        {
            (Some(name), _) | (None, Some(name)) => Class::from_name(
                name.as_str()
                    .with_context(|| format!("{name} is not an image processor's name"))?,
            )?,
            (None, None) => Class::from_model_type(fallback_model_type.context(
                "the image processor is not named; \"image_processor_type\" is missing",
            )?)?,
        };
        let is_document = class.is_document;
        let do_resize = fields.flag("do_resize", true)?;
        let mut processor = ImageProcessor {
            class,
            do_crop_margin: class.do_crop_margin && fields.flag("do_crop_margin", true)?,
            do_align_long_axis: is_document && fields.flag("do_align_long_axis", false)?,
            do_resize,
            size: None,
            resample: if do_resize { fields.resample(class)? } else { class.resample },
            do_thumbnail: is_document && fields.flag("do_thumbnail", true)?,
            do_pad: is_document && fields.flag("do_pad", true)?,
            do_center_crop: class.crop_size.is_some() && fields.flag("do_center_crop", true)?,
            crop_size: class.crop_size.unwrap_or_default(),
            do_rescale: fields.flag("do_rescale", true)?,
            rescale_factor: fields.rescale_factor()?,
            do_normalize: fields.flag("do_normalize", true)?,
            image_mean: fields.channels("image_mean", class.image_mean)?,
            image_std: fields.channels("image_std", class.image_std)?,
            raw: raw.clone(),
        };
        if processor.reads_size() {
            processor.size = Some(fields.size(class)?);
        }
        if let (true, Some(value)) = (processor.do_center_crop, fields.get("crop_size")) {
            processor.crop_size = crop_size(value)?;
        }
        ensure!(
            !processor.do_normalize || processor.image_std.iter().all(|&std| std != 0.0),
            "image_std has a 0, and images are divided by it"
        );
        Ok(processor)
    }

    /// The processor of a checkpoint that has no preprocessor file: the defaults of the class that
    /// goes with encoders of `model_type`.
    pub fn default_for(model_type: &str) -> Result<Self> {
        Self::from_json(&json!({}), Some(model_type))
    }

    /// The content of a preprocessor_config.json that gives this processor: today's keys with
    /// their values, after whatever else the file held.
    pub fn to_json(&self) -> Value {
        let mut map = self.raw.clone();
        map.shift_remove("feature_extractor_type");
        map.shift_remove("use_square_size");
        // A file that names the fast twin of the class keeps that name.
        if !map.get("image_processor_type").is_some_and(Value::is_string) {
            map.insert("image_processor_type".to_owned(), json!(self.class.name));
        }
        let mut set = |key: &str, value: Value| map.insert(key.to_owned(), value);
        if self.class.do_crop_margin {
            set("do_crop_margin", json!(self.do_crop_margin));
        }
        set("do_resize", json!(self.do_resize));
        if let Some(size) = self.size {
            set("size", size.to_json());
        }
        set("resample", json!(self.resample.code()));
        if self.class.is_document {
            set("do_thumbnail", json!(self.do_thumbnail));
            set("do_align_long_axis", json!(self.do_align_long_axis));
            set("do_pad", json!(self.do_pad));
        }
        if self.class.crop_size.is_some() {
            let (height, width) = self.crop_size;
            set("do_center_crop", json!(self.do_center_crop));
            set("crop_size", json!({ "height": height, "width": width }));
        }
        set("do_rescale", json!(self.do_rescale));
        set("rescale_factor", json!(self.rescale_factor));
        set("do_normalize", json!(self.do_normalize));
        set("image_mean", json!(self.image_mean));
        set("image_std", json!(self.image_std));
        Value::Object(map)
    }

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

=======
>>>>>>> image
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
        ensure!(image.width > 0 && image.height > 0, "the image is empty");
        let image = if self.class.is_document {
            self.lay_out_page(image)?
        } else {
            self.resize_and_crop(image)?
        };
        Ok(self.to_floats(&image))
    }

    fn resize_and_crop<'a>(&self, image: &'a Rgb8) -> Result<Cow<'a, Rgb8>> {
        let size = match self.size {
            Some(Size::Exact { height, width }) if self.do_resize => (height, width),
            Some(Size::ShortestEdge(edge)) if self.do_resize => shortest_edge_size(image, edge),
            _ => (image.height, image.width),
        };
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
    fn to_floats(&self, image: &Rgb8) -> Pixels {
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
