//! The classes of image processors: what each takes for granted when its file does not say.

use anyhow::{Context, Result, bail};

use super::filter::Filter;
use super::size::Size;

/// A class of `transformers`' image processors: its name and its defaults.
///
/// All classes take the same steps in the same order (`processor`); they differ in which steps
/// they have, in the defaults, and in what `size` may look like.
#[derive(Debug, PartialEq)]
pub struct Class {
    /// `image_processor_type` of preprocessor_config.json, without the `Fast` of its twin.
    pub name: &'static str,
    pub size: Size,
    /// A bare number for `size` is the shortest edge, and the size may be given as such.
    pub by_shortest_edge: bool,
    /// A list for `size` is `[width, height]`.
    pub size_list_is_width_first: bool,
    pub resample: Filter,
    /// `crop_size` (height, width) of the centre crop, for classes that have one.
    pub crop_size: Option<(usize, usize)>,
    /// Pages: the shortest edge is scaled to the smaller side of `size`, then shrunk into `size`
    /// and padded.
    pub is_document: bool,
    pub do_crop_margin: bool,
    pub image_mean: [f64; 3],
    pub image_std: [f64; 3],
}

/// IMAGENET_STANDARD_MEAN and IMAGENET_STANDARD_STD.
const HALF: [f64; 3] = [0.5; 3];
const IMAGENET_DEFAULT_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_DEFAULT_STD: [f64; 3] = [0.229, 0.224, 0.225];
const OPENAI_CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const OPENAI_CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

const VIT: Class = Class {
    name: "ViTImageProcessor",
    size: Size::Exact { height: 224, width: 224 },
    by_shortest_edge: false,
    size_list_is_width_first: false,
    resample: Filter::Bilinear,
    crop_size: None,
    is_document: false,
    do_crop_margin: false,
    image_mean: HALF,
    image_std: HALF,
};

const DEIT: Class = Class {
    name: "DeiTImageProcessor",
    size: Size::Exact { height: 256, width: 256 },
    resample: Filter::Bicubic,
    crop_size: Some((224, 224)),
    ..VIT
};

const CLIP: Class = Class {
    name: "CLIPImageProcessor",
    size: Size::ShortestEdge(224),
    by_shortest_edge: true,
    resample: Filter::Bicubic,
    crop_size: Some((224, 224)),
    image_mean: OPENAI_CLIP_MEAN,
    image_std: OPENAI_CLIP_STD,
    ..VIT
};

const DONUT: Class = Class {
    name: "DonutImageProcessor",
    size: Size::Exact { height: 2560, width: 1920 },
    size_list_is_width_first: true,
    is_document: true,
    ..VIT
};

/// Every class that is read. ConvNext, YOLOS and the rest have no encoder here to go with.
pub static CLASSES: &[Class] = &[
    VIT,
    DEIT,
    Class { name: "BeitImageProcessor", ..DEIT },
    CLIP,
    Class { name: "BitImageProcessor", ..CLIP },
    Class { name: "SiglipImageProcessor", resample: Filter::Bicubic, ..VIT },
    DONUT,
    Class {
        name: "NougatImageProcessor",
        size: Size::Exact { height: 896, width: 672 },
        size_list_is_width_first: false,
        do_crop_margin: true,
        image_mean: IMAGENET_DEFAULT_MEAN,
        image_std: IMAGENET_DEFAULT_STD,
        ..DONUT
    },
];

/// The class that `transformers` takes for each type of encoder.
const MODEL_TYPES: &[(&str, &str)] = &[
    ("vit", "ViTImageProcessor"),
    ("vit_mae", "ViTImageProcessor"),
    ("vit_msn", "ViTImageProcessor"),
    ("ijepa", "ViTImageProcessor"),
    ("swin", "ViTImageProcessor"),
    ("swinv2", "ViTImageProcessor"),
    ("deit", "DeiTImageProcessor"),
    ("beit", "BeitImageProcessor"),
    ("data2vec-vision", "BeitImageProcessor"),
    ("dinov2", "BitImageProcessor"),
    ("dinov2_with_registers", "BitImageProcessor"),
    ("clip", "CLIPImageProcessor"),
    ("clip_vision_model", "CLIPImageProcessor"),
    ("aimv2", "CLIPImageProcessor"),
    ("aimv2_vision_model", "CLIPImageProcessor"),
    ("siglip", "SiglipImageProcessor"),
    ("siglip_vision_model", "SiglipImageProcessor"),
    ("donut-swin", "DonutImageProcessor"),
    ("nougat", "NougatImageProcessor"),
];

impl Class {
    /// The class of a name in preprocessor_config.json: today's (`ViTImageProcessor`), that of its
    /// fast twin (`ViTImageProcessorFast`, the same parameters), or the old one
    /// (`ViTFeatureExtractor`).
    pub fn from_name(name: &str) -> Result<&'static Self> {
        let today = name.replace("FeatureExtractor", "ImageProcessor");
        let today = today.strip_suffix("Fast").unwrap_or(&today);
        CLASSES.iter().find(|class| class.name == today).with_context(|| {
            let known: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
            format!("image processor {name:?} is not supported; known are {}", known.join(", "))
        })
    }

    /// The class for an encoder's `model_type`.
    pub fn from_model_type(model_type: &str) -> Result<&'static Self> {
        match MODEL_TYPES.iter().find(|(known, _)| *known == model_type) {
            Some((_, name)) => Class::from_name(name),
            None => bail!(
                "no image processor is known for encoders of type {model_type:?}; \
                 give one in preprocessor_config.json"
            ),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_times_lead_to_the_class() {
        let cases = [
            ("ViTImageProcessor", "ViTImageProcessor"),
            ("ViTImageProcessorFast", "ViTImageProcessor"),
            ("ViTFeatureExtractor", "ViTImageProcessor"),
            ("DeiTFeatureExtractor", "DeiTImageProcessor"),
            ("BeitFeatureExtractor", "BeitImageProcessor"),
            ("DonutFeatureExtractor", "DonutImageProcessor"),
            ("CLIPImageProcessorFast", "CLIPImageProcessor"),
            ("NougatImageProcessor", "NougatImageProcessor"),
        ];
        for (name, class) in cases {
            assert_eq!(Class::from_name(name).unwrap().name, class);
        }
    }

    #[test]
    fn every_model_type_has_a_class() {
        for (model_type, name) in MODEL_TYPES {
            assert_eq!(Class::from_model_type(model_type).unwrap().name, *name);
        }
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        let error = Class::from_name("YolosImageProcessor").unwrap_err().to_string();
        assert!(error.starts_with("image processor \"YolosImageProcessor\" is not supported"));
        let error = Class::from_model_type("yolos").unwrap_err().to_string();
        assert!(error.starts_with("no image processor is known for encoders of type \"yolos\""));
    }
}
