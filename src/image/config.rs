//! preprocessor_config.json, read and written.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::ImageProcessor;
use super::class::Class;
use super::filter::Filter;
use super::size::{Size, Spelling};

impl ImageProcessor {
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
        let do_rescale = fields.flag("do_rescale", true)?;
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
            do_rescale,
            rescale_factor: fields.rescale_factor(do_rescale)?,
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

    /// Whether any step needs `size`.
    fn reads_size(&self) -> bool {
        self.do_resize || self.do_align_long_axis || self.do_thumbnail || self.do_pad
    }
}

fn crop_size(value: &Value) -> Result<(usize, usize)> {
    let square = Spelling { by_shortest_edge: false, list_is_width_first: false };
    match Size::from_json(value, "crop_size", square)? {
        Size::Exact { height, width } => Ok((height, width)),
        Size::ShortestEdge(_) => bail!("crop_size = {value} gives no \"height\" and \"width\""),
    }
}

/// The keys of a preprocessor file. As in the reference, a `size`, `crop_size`, `image_mean` or
/// `image_std` that is null counts as missing, and a flag that is null as false.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => bail!("{key} = {other} is neither true nor false"),
        }
    }

    fn size(&self, class: &Class) -> Result<Size> {
        let Some(value) = self.get("size") else { return Ok(class.size) };
        // A leftover of Kosmos-2 in CLIP's class.
        let square = class.name == "CLIPImageProcessor" && self.flag("use_square_size", false)?;
        let spelling = Spelling {
            by_shortest_edge: class.by_shortest_edge,
            list_is_width_first: class.size_list_is_width_first,
        };
        Ok(match Size::from_json(value, "size", spelling)? {
            Size::ShortestEdge(edge) if square => Size::Exact { height: edge, width: edge },
            size => size,
        })
    }

    fn resample(&self, class: &Class) -> Result<Filter> {
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

    fn rescale_factor(&self, is_used: bool) -> Result<f64> {
        match self.0.get("rescale_factor").filter(|_| is_used) {
            None => Ok(1.0 / 255.0),
            Some(value) => {
                value.as_f64().with_context(|| format!("rescale_factor = {value} is not a number"))
            }
        }
    }

    /// One number for each of red, green and blue; a single number stands for all three.
    fn channels(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn processor(config: Value) -> ImageProcessor {
        ImageProcessor::from_json(&config, Some("vit")).unwrap()
    }

    #[test]
    fn the_class_comes_from_the_file_or_from_the_encoder() {
        let cases = [
            (json!({}), "ViTImageProcessor"),
            (json!({"image_processor_type": null}), "ViTImageProcessor"),
            (json!({"feature_extractor_type": "DeiTFeatureExtractor"}), "DeiTImageProcessor"),
            (
                json!({
                    "feature_extractor_type": "ViTFeatureExtractor",
                    "image_processor_type": "DonutImageProcessorFast"
                }),
                "DonutImageProcessor",
            ),
        ];
        for (config, class) in cases {
            assert_eq!(processor(config).class.name, class);
        }
        assert_eq!(ImageProcessor::default_for("beit").unwrap().class.name, "BeitImageProcessor");
        assert!(ImageProcessor::from_json(&json!({}), None).is_err());
    }

    #[test]
    fn the_size_of_what_comes_out() {
        let cases = [
            (json!({}), Some((224, 224))),
            (json!({"do_resize": false}), None),
            (json!({"image_processor_type": "DeiTImageProcessor"}), Some((224, 224))),
            (
                json!({"image_processor_type": "DeiTImageProcessor", "do_center_crop": false}),
                Some((256, 256)),
            ),
            (json!({"image_processor_type": "CLIPImageProcessor", "do_center_crop": false}), None),
            (json!({"feature_extractor_type": "DonutFeatureExtractor"}), Some((2560, 1920))),
            (json!({"image_processor_type": "DonutImageProcessor", "do_pad": false}), None),
        ];
        for (config, size) in cases {
            assert_eq!(processor(config.clone()).output_size(), size, "{config}");
        }
    }

    #[test]
    fn null_means_what_it_means_in_the_reference() {
        let read = processor(json!({
            "size": null, "image_mean": null, "do_normalize": null, "do_center_crop": null,
        }));
        assert_eq!(read.size, Some(Size::Exact { height: 224, width: 224 }));
        assert_eq!((read.do_normalize, read.image_mean), (false, [0.5; 3]));
    }

    #[test]
    fn settings_that_cannot_be_followed_are_refused() {
        let cases = [
            (json!({"image_processor_type": "YolosImageProcessor"}), "\"YolosImageProcessor\""),
            (json!({"size": {"shortest_edge": 224}}), "gives no \"height\" and \"width\""),
            (json!({"resample": 6}), "resample = 6 is not supported"),
            (json!({"resample": null}), "resample = null"),
            (json!({"do_resize": "yes"}), "do_resize = \"yes\""),
            (json!({"image_mean": [0.5]}), "image_mean = [0.5]"),
            (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std has a 0"),
            (json!({"rescale_factor": null}), "rescale_factor = null"),
            (
                json!({
                    "image_processor_type": "BitImageProcessor", "crop_size": {"shortest_edge": 2}
                }),
                "crop_size",
            ),
            (json!([]), "no JSON object"),
        ];
        for (config, says) in cases {
            let error = ImageProcessor::from_json(&config, Some("vit")).unwrap_err().to_string();
            assert!(error.contains(says), "{config}: {error}");
        }
    }

    #[test]
    fn what_is_written_reads_back_and_keeps_strangers() {
        let config = json!({
            "feature_extractor_type": "DonutFeatureExtractor", "size": [1920, 2560],
            "processor_class": "DonutProcessor",
        });
        let written = processor(config).to_json();
        assert_eq!(
            written,
            json!({
                "size": {"height": 2560, "width": 1920}, "processor_class": "DonutProcessor",
                "image_processor_type": "DonutImageProcessor", "do_resize": true, "resample": 2,
                "do_thumbnail": true, "do_align_long_axis": false, "do_pad": true,
                "do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true,
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            })
        );
        assert_eq!(processor(written.clone()).to_json(), written);
    }
}
