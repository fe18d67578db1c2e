//! preprocessor_config.json and what it does to a picture (the reference's slow image processors).

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::classes::Class;
use super::geometry::{align_long_axis, center_crop, crop_margin, pad, thumbnail};
use super::resample::{Filter, resize};
use super::size::{Size, shortest_edge};
use super::{Pixels, Rgb8};

/// The steps from a picture to a model's pixels.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    class: Class,
    size: Size,
    resample: Filter,
    /// (height, width)
    crop_size: Option<(usize, usize)>,
    do_resize: bool,
    do_rescale: bool,
    do_normalize: bool,
    do_crop_margin: bool,
    do_align_long_axis: bool,
    do_thumbnail: bool,
    do_pad: bool,
    rescale_factor: f64,
    mean: [f32; 3],
    std: [f32; 3],
    /// The file, for writing back.
    raw: Map<String, Value>,
}

impl ImageProcessor {
    /// Reads a parsed preprocessor_config.json. If it names no class, that of the encoder's type counts.
    pub fn from_json(json: &Value, fallback_model_type: Option<&str>) -> Result<Self> {
        let Value::Object(raw) = json else { bail!("not a JSON object") };
        let name = ["image_processor_type", "feature_extractor_type"]
            .iter()
            .find_map(|key| raw.get(*key).and_then(Value::as_str));
        let class = match (name, fallback_model_type) {
            (Some(name), _) => Class::from_name(name)?,
            (None, Some(model_type)) => Class::from_model_type(model_type)?,
            (None, None) => bail!("it has neither image_processor_type nor feature_extractor_type"),
        };
        Self::new(class, raw.clone())
    }

    /// What checkpoints of this encoder type usually do.
    pub fn default_for(model_type: &str) -> Result<Self> {
        let class = Class::from_model_type(model_type)?;
        match Class::published(model_type) {
            Value::Object(raw) => Self::new(class, raw),
            _ => Self::new(class, Map::new()),
        }
    }

    fn new(class: Class, raw: Map<String, Value>) -> Result<Self> {
        let Value::Object(mut all) = class.defaults() else { bail!("no defaults") };
        for (key, value) in raw.iter().filter(|(_, value)| !value.is_null()) {
            all.insert(key.clone(), value.clone());
        }
        let flag = |name: &str| match all.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => bail!("{name} is {other}, expected true or false"),
        };
        let get = |name: &str| all.get(name).with_context(|| format!("{name} is missing"));
        let size = Size::parse(get("size")?, class.spelling()).context("size")?;
        ensure!(
            class.takes_shortest_edge() || matches!(size, Size::Exact { .. }),
            "size: {} needs height and width, not shortest_edge",
            class.name()
        );
        let crop_size = if flag("do_center_crop")? && all.contains_key("crop_size") {
            // Whatever the class: a lone number is a square here.
            match Size::parse(get("crop_size")?, super::size::Spelling::Square)
                .context("crop_size")?
            {
                Size::Exact { height, width } => Some((height, width)),
                Size::ShortestEdge { .. } => bail!("crop_size needs height and width"),
            }
        } else {
            None
        };
        let resample = get("resample")?;
        let resample = resample.as_i64().with_context(|| format!("resample is {resample}"))?;
        let rescale_factor = get("rescale_factor")?;
        Ok(ImageProcessor {
            class,
            size,
            resample: Filter::from_code(resample)?,
            crop_size,
            do_resize: flag("do_resize")?,
            do_rescale: flag("do_rescale")?,
            do_normalize: flag("do_normalize")?,
            do_crop_margin: flag("do_crop_margin")?,
            do_align_long_axis: flag("do_align_long_axis")?,
            do_thumbnail: flag("do_thumbnail")?,
            do_pad: flag("do_pad")?,
            rescale_factor: rescale_factor
                .as_f64()
                .with_context(|| format!("rescale_factor is {rescale_factor}"))?,
            mean: channels(get("image_mean")?).context("image_mean")?,
            std: channels(get("image_std")?).context("image_std")?,
            raw,
        })
    }

    /// Picture to pixels, in the class's order.
    pub fn process(&self, image: &Rgb8) -> Result<Pixels> {
        let picture = match self.class {
            Class::Donut | Class::Nougat => self.page(image),
            _ => self.resized_and_cropped(image),
        };
        Ok(self.normalized(&picture))
    }

    fn resized_and_cropped(&self, image: &Rgb8) -> Rgb8 {
        let mut picture = std::borrow::Cow::Borrowed(image);
        if self.do_resize {
            let (height, width) = self.size.of(picture.height, picture.width);
            picture = std::borrow::Cow::Owned(resize(&picture, width, height, self.resample));
        }
        if let Some((height, width)) = self.crop_size {
            picture = std::borrow::Cow::Owned(center_crop(&picture, height, width));
        }
        picture.into_owned()
    }

    /// Donut's and Nougat's steps.
    fn page(&self, image: &Rgb8) -> Rgb8 {
        let Size::Exact { height, width } = self.size else { return image.clone() };
        let mut picture = image.clone();
        if self.do_crop_margin {
            picture = crop_margin(picture);
        }
        if self.do_align_long_axis {
            picture = align_long_axis(picture, height, width);
        }
        if self.do_resize {
            let (h, w) = shortest_edge(picture.height, picture.width, height.min(width), None);
            picture = resize(&picture, w, h, self.resample);
        }
        if self.do_thumbnail {
            picture = thumbnail(picture, height, width);
        }
        if self.do_pad {
            picture = pad(&picture, height, width);
        }
        picture
    }

    /// 8-bit HWC to f32 CHW: scaled in f64, then normalised in f32, as numpy does it there.
    fn normalized(&self, picture: &Rgb8) -> Pixels {
        let (height, width) = (picture.height, picture.width);
        let mut data = vec![0f32; 3 * height * width];
        for (channel, plane) in data.chunks_exact_mut(height * width).enumerate() {
            // 256 values are all there are.
            let table: Vec<f32> = (0..256u32).map(|value| self.value(value, channel)).collect();
            let values = picture.data.iter().skip(channel).step_by(3);
            for (out, value) in plane.iter_mut().zip(values) {
                *out = table[usize::from(*value)];
            }
        }
        Pixels { channels: 3, height, width, data }
    }

    fn value(&self, value: u32, channel: usize) -> f32 {
        let value = if self.do_rescale {
            (f64::from(value) * self.rescale_factor) as f32
        } else {
            value as f32
        };
        if self.do_normalize { (value - self.mean[channel]) / self.std[channel] } else { value }
    }

    /// (height, width) of what `process` gives; None where it depends on the picture.
    pub fn output_size(&self) -> Option<(usize, usize)> {
        let exact = match self.size {
            Size::Exact { height, width } => Some((height, width)),
            Size::ShortestEdge { .. } => None,
        };
        match self.class {
            Class::Donut | Class::Nougat => exact.filter(|_| self.do_pad),
            _ => self.crop_size.or(exact.filter(|_| self.do_resize)),
        }
    }

    /// The same processor for another size: crops keep the ratio of resize to crop.
    pub fn with_size(&self, height: usize, width: usize) -> Result<Self> {
        let mut raw = self.raw.clone();
        let exact = json!({"height": height, "width": width});
        match (self.crop_size, self.size) {
            (Some((old, _)), Size::ShortestEdge { edge, .. }) => {
                let edge = (edge * height.min(width)).div_ceil(old.max(1));
                raw.insert("size".into(), json!({"shortest_edge": edge}));
                raw.insert("crop_size".into(), exact);
            }
            (Some((old_height, old_width)), Size::Exact { height: h, width: w }) => {
                let scaled =
                    |side: usize, new: usize, old: usize| (side * new).div_ceil(old.max(1));
                let size = json!({
                    "height": scaled(h, height, old_height), "width": scaled(w, width, old_width),
                });
                raw.insert("size".into(), size);
                raw.insert("crop_size".into(), exact);
            }
            (None, _) => {
                raw.insert("size".into(), exact);
            }
        }
        Self::new(self.class, raw)
    }

    /// preprocessor_config.json, complete, unknown keys kept.
    pub fn to_json(&self) -> Value {
        let Value::Object(mut json) = self.class.defaults() else { return Value::Null };
        for (key, value) in &self.raw {
            json.insert(key.clone(), value.clone());
        }
        // The reference would swap a list of Donut's once more; the long form is clear.
        json.insert(
            "size".into(),
            match self.size {
                Size::Exact { height, width } => json!({"height": height, "width": width}),
                Size::ShortestEdge { edge, longest: None } => json!({"shortest_edge": edge}),
                Size::ShortestEdge { edge, longest: Some(longest) } => {
                    json!({"shortest_edge": edge, "longest_edge": longest})
                }
            },
        );
        json.shift_remove("feature_extractor_type");
        json.insert("image_processor_type".into(), json!(self.class.name()));
        Value::Object(json)
    }
}

/// One number for all channels, or three.
fn channels(value: &Value) -> Result<[f32; 3]> {
    if let Some(number) = value.as_f64() {
        return Ok([number as f32; 3]);
    }
    let numbers: Option<Vec<f64>> =
        value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    match numbers.as_deref() {
        Some([r, g, b]) => Ok([*r as f32, *g as f32, *b as f32]),
        Some([grey]) => Ok([*grey as f32; 3]),
        _ => bail!("{value} is neither a number nor three of them"),
    }
}
