//! preprocessor_config.json, read and written.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ImageProcessor;
use super::class::Steps;
use super::fields::{Fields, class_of, sides};
use super::filter::Filter;

impl ImageProcessor {
    /// Reads the content of preprocessor_config.json, or of `image_processor` in
    /// processor_config.json. `fallback_model_type` is the encoder's `model_type`; it decides the
    /// class of a file that does not name one.
    ///
    /// Fails on a class that is not known and on settings that the class cannot follow.
    pub fn from_json(config: &Value, fallback_model_type: Option<&str>) -> Result<Self> {
        let raw =
            config.as_object().context("the image processor's settings are no JSON object")?;
        let class = class_of(raw, fallback_model_type)?;
        let fields = Fields(raw);
        let is_document = class.is_document();
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
            do_pad: fields.do_pad(class)?,
            pad_size: None,
            do_center_crop: fields.do_center_crop(class)?,
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
            processor.crop_size = sides(value, "crop_size")?;
        }
        if let (true, Some(value)) = (processor.pads_after(), fields.get("pad_size")) {
            processor.pad_size = Some(sides(value, "pad_size")?);
        }
        if class.steps == Steps::Floats {
            processor.check_floats()?;
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
            let name = self.class.written_name(self.size);
            map.insert("image_processor_type".to_owned(), json!(name));
        }
        if self.class.steps == Steps::Detection {
            map.shift_remove("max_size");
            map.shift_remove("pad_and_return_pixel_mask");
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
        if self.class.is_document() {
            set("do_thumbnail", json!(self.do_thumbnail));
            set("do_align_long_axis", json!(self.do_align_long_axis));
        }
        if matches!(self.class.steps, Steps::Page | Steps::Detection) {
            set("do_pad", json!(self.do_pad));
        }
        if let Some((height, width)) = self.pad_size {
            set("pad_size", json!({ "height": height, "width": width }));
        }
        if self.class.crop_size.is_some() || self.do_center_crop {
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
        let page = self.class.is_document() && self.do_pad;
        self.do_resize || self.do_align_long_axis || self.do_thumbnail || page
    }

    /// Whether what is normalised is padded.
    fn pads_after(&self) -> bool {
        self.class.steps == Steps::Detection && self.do_pad
    }

    /// Refuses what images that are resized as floats can't be.
    fn check_floats(&self) -> Result<()> {
        let name = self.class.name;
        // The reference resizes bytes by other rules then, and fails as soon as it normalises them.
        ensure!(self.do_rescale, "do_rescale = false is not supported for {name}");
        ensure!(
            matches!(self.resample, Filter::Bilinear | Filter::Bicubic),
            "resample = {} is not supported for {name}; its filters are 2 (bilinear) and 3 (bicubic)",
            self.resample.code()
        );
        ensure!(
            !self.do_center_crop || self.crop_size != (0, 0),
            "do_center_crop = true needs a crop_size"
        );
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::size::Size;
    use super::*;

    const YOLOS: &str = "YolosImageProcessor";
    const DINOV3: &str = "DINOv3ViTImageProcessorFast";

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
            (json!({"image_processor_type": "YolosFeatureExtractor"}), None),
            (json!({"image_processor_type": YOLOS, "size": [20, 30]}), Some((20, 30))),
            (
                json!({"image_processor_type": YOLOS, "pad_size": {"height": 40, "width": 50}}),
                Some((40, 50)),
            ),
            (json!({"image_processor_type": DINOV3}), Some((224, 224))),
            (
                json!({"image_processor_type": DINOV3, "do_center_crop": true, "crop_size": 20}),
                Some((20, 20)),
            ),
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
            (json!({"image_processor_type": "DetrImageProcessor"}), "\"DetrImageProcessor\""),
            (
                json!({"image_processor_type": YOLOS, "size": {"shortest_edge": 800}}),
                "gives no \"shortest_edge\" and \"longest_edge\"",
            ),
            (json!({"image_processor_type": YOLOS, "size": 800, "max_size": null}), "longest_edge"),
            (json!({"image_processor_type": YOLOS, "size": 800, "max_size": "9"}), "max_size"),
            (json!({"image_processor_type": YOLOS, "pad_size": {"height": 9}}), "pad_size"),
            (json!({"image_processor_type": DINOV3, "resample": 1}), "resample = 1"),
            (json!({"image_processor_type": DINOV3, "do_rescale": false}), "do_rescale = false"),
            (
                json!({"image_processor_type": DINOV3, "do_center_crop": true}),
                "do_center_crop = true needs a crop_size",
            ),
            (
                json!({"image_processor_type": DINOV3, "size": 9, "default_to_square": false}),
                "default_to_square = false",
            ),
            (
                json!({
                    "image_processor_type": "ChineseCLIPImageProcessorFast",
                    "size": {"shortest_edge": 9, "longest_edge": 20},
                }),
                "it has no longest edge",
            ),
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

    #[test]
    fn old_names_of_yolos_are_written_as_todays() {
        let written = processor(json!({
            "feature_extractor_type": "YolosFeatureExtractor", "size": 512, "max_size": 864,
            "pad_and_return_pixel_mask": true, "format": "coco_detection", "pad_size": [900, 900],
        }))
        .to_json();
        let expected = json!({
            "format": "coco_detection", "image_processor_type": YOLOS, "do_resize": true,
            "size": {"shortest_edge": 512, "longest_edge": 864}, "resample": 2, "do_pad": true,
            "pad_size": {"height": 900, "width": 900}, "do_rescale": true,
            "rescale_factor": 0.00392156862745098, "do_normalize": true,
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        });
        assert_eq!(written, expected);
        assert_eq!(processor(written.clone()).to_json(), written);
    }

    /// transformers can't run its slow class with that size.
    #[test]
    fn a_shortest_edge_of_chinese_clip_is_written_for_the_fast_class() {
        let default = ImageProcessor::default_for("chinese_clip_vision_model").unwrap();
        let name = |processor: &ImageProcessor| processor.to_json()["image_processor_type"].clone();
        assert_eq!(name(&default), "ChineseCLIPImageProcessorFast");
        let exact =
            json!({"feature_extractor_type": "ChineseCLIPFeatureExtractor", "size": [9, 9]});
        assert_eq!(name(&processor(exact)), "ChineseCLIPImageProcessor");
    }

    #[test]
    fn another_size_is_kept_in_the_form_of_the_first() {
        let sizes = |config: Value, height, width| {
            let other = processor(config).with_size(height, width).unwrap();
            (other.size.unwrap(), other.output_size())
        };
        let yolos = || json!({ "image_processor_type": YOLOS });
        let edges = Size::Edges { shortest: 24, longest: 32 };
        assert_eq!(sizes(yolos(), 32, 24), (edges, None));
        // Sides that are multiples of 16 would come to nothing.
        let exact = Size::Exact { height: 32, width: 8 };
        assert_eq!(sizes(yolos(), 32, 8), (exact, Some((32, 8))));
        let clip = json!({"image_processor_type": "CLIPImageProcessor", "size": 256});
        assert_eq!(sizes(clip, 56, 112), (Size::ShortestEdge(64), Some((56, 112))));
        let dinov3 = json!({
            "image_processor_type": DINOV3, "do_center_crop": true, "crop_size": 20,
            "size": {"shortest_edge": 30, "longest_edge": 60},
        });
        let edges = Size::Edges { shortest: 60, longest: 120 };
        assert_eq!(sizes(dinov3, 40, 40), (edges, Some((40, 40))));
    }
}
