//! The keys of preprocessor_config.json, one by one.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::class::{Class, Steps};
use super::filter::Filter;
use super::size::{Size, Sizes, Spelling, side};

/// The class that a file names, or else the encoder's.
pub(super) fn class_of(
    raw: &Map<String, Value>,
    fallback_model_type: Option<&str>,
) -> Result<&'static Class> {
    let name = |key: &str| raw.get(key).filter(|value| !value.is_null());
    match name("image_processor_type").or_else(|| name("feature_extractor_type")) {
        Some(name) => Class::from_name(
            name.as_str().with_context(|| format!("{name} is not an image processor's name"))?,
        ),
        None => Class::from_model_type(
            fallback_model_type
                .context("the image processor is not named; \"image_processor_type\" is missing")?,
        ),
    }
}

/// A height and a width, the value of `key`.
pub(super) fn sides(value: &Value, key: &str) -> Result<(usize, usize)> {
    match Size::from_json(value, key, Spelling::SIDES)? {
        Size::Exact { height, width } => Ok((height, width)),
        _ => bail!("{key} = {value} gives no \"height\" and \"width\""),
    }
}

/// The keys of a preprocessor file. As in the reference, a `size`, `crop_size`, `pad_size`,
/// `image_mean` or `image_std` that is null counts as missing, and a flag that is null as false.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => bail!("{key} = {other} is neither true nor false"),
        }
    }

    pub(super) fn do_pad(&self, class: &Class) -> Result<bool> {
        let old = "pad_and_return_pixel_mask";
        match class.steps {
            Steps::Page => self.flag("do_pad", true),
            Steps::Detection if self.0.contains_key(old) => self.flag(old, true),
            Steps::Detection => self.flag("do_pad", true),
            Steps::Picture | Steps::Floats => Ok(false),
        }
    }

    pub(super) fn do_center_crop(&self, class: &Class) -> Result<bool> {
        match (class.crop_size, class.steps) {
            (Some(_), _) => self.flag("do_center_crop", true),
            (None, Steps::Floats) => self.flag("do_center_crop", false),
            (None, _) => Ok(false),
        }
    }

    pub(super) fn size(&self, class: &Class) -> Result<Size> {
        let Some(value) = self.get("size") else { return Ok(class.size) };
        ensure!(
            !class.refuses_longest_edge() || value.get("longest_edge").is_none(),
            "size = {value} is not supported for {}: it has no longest edge",
            class.name
        );
        ensure!(
            class.sizes != Sizes::Any
                || !value.is_number()
                || self.flag("default_to_square", true)?,
            "default_to_square = false is not supported for {}",
            class.name
        );
        // A leftover of Kosmos-2 in CLIP's class.
        let square = class.name == "CLIPImageProcessor" && self.flag("use_square_size", false)?;
        let spelling = Spelling {
            sizes: class.sizes,
            list_is_width_first: class.size_list_is_width_first,
            longest: self.longest_edge(class)?,
        };
        Ok(match Size::from_json(value, "size", spelling)? {
            Size::ShortestEdge(edge) if square => Size::Exact { height: edge, width: edge },
            size => size,
        })
    }

    /// What old files gave beside a bare number for `size`.
    fn longest_edge(&self, class: &Class) -> Result<Option<usize>> {
        match self.0.get("max_size").filter(|_| class.sizes == Sizes::BothEdges) {
            None => Ok(Some(1333)),
            Some(Value::Null) => Ok(None),
            Some(value) => side(value, "max_size").map(Some),
        }
    }

    pub(super) fn resample(&self, class: &Class) -> Result<Filter> {
        match self.0.get("resample") {
            None => Ok(class.resample),
            Some(value) => {
                let code = value.as_u64();
                Filter::from_code(code.with_context(|| {
                    format!("resample = {value} is not the number of a filter, 0 to 5")
                })?)
            }
        }
    }

    pub(super) fn rescale_factor(&self, is_used: bool) -> Result<f64> {
        match self.0.get("rescale_factor").filter(|_| is_used) {
            None => Ok(1.0 / 255.0),
            Some(value) => {
                value.as_f64().with_context(|| format!("rescale_factor = {value} is not a number"))
            }
        }
    }

    /// One number for each of red, green and blue; a single number stands for all three.
    pub(super) fn channels(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        let Some(value) = self.get(key) else { return Ok(default) };
        if let Some(number) = value.as_f64() {
            return Ok([number; 3]);
        }
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok()).with_context(|| {
            format!("{key} = {value} is not three numbers, for red, green and blue")
        })
    }
}
