//! The classes of image processors: what each takes for granted when its file does not say.

use anyhow::{Context, Result, bail};

use super::filter::Filter;
use super::size::{Size, Sizes};

/// A class of `transformers`' image processors: its name and its defaults.
#[derive(Debug, PartialEq)]
pub struct Class {
    /// `image_processor_type` of preprocessor_config.json; without the `Fast` of its twin, unless
    /// the fast one is all there is.
    pub name: &'static str,
    pub steps: Steps,
    pub size: Size,
    /// What `size` may look like.
    pub sizes: Sizes,
    /// A list for `size` is `[width, height]`.
    pub size_list_is_width_first: bool,
    pub resample: Filter,
    /// `crop_size` (height, width) of the centre crop, for classes that have one.
    pub crop_size: Option<(usize, usize)>,
    pub do_crop_margin: bool,
    pub image_mean: [f64; 3],
    pub image_std: [f64; 3],
}

/// How the images of a class come to their size and become floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Resized, perhaps cropped, rescaled and normalised.
    Picture,
    /// Pages: the shortest edge is scaled to the smaller side of `size`, then shrunk into `size`
    /// and padded; rescaled and normalised.
    Page,
    /// For the detection of objects: resized to sides that are multiples of 16, rescaled and
    /// normalised, and padded after that.
    Detection,
    /// Rescaled, resized as floats, perhaps cropped, and normalised.
    Floats,
}

/// IMAGENET_STANDARD_MEAN and IMAGENET_STANDARD_STD.
const HALF: [f64; 3] = [0.5; 3];
const IMAGENET_DEFAULT_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_DEFAULT_STD: [f64; 3] = [0.229, 0.224, 0.225];
const OPENAI_CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const OPENAI_CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

const VIT: Class = Class {
    name: "ViTImageProcessor",
    steps: Steps::Picture,
    size: Size::Exact { height: 224, width: 224 },
    sizes: Sizes::Sides,
    size_list_is_width_first: false,
    resample: Filter::Bilinear,
    crop_size: None,
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
    sizes: Sizes::ShortestEdge,
    resample: Filter::Bicubic,
    crop_size: Some((224, 224)),
    image_mean: OPENAI_CLIP_MEAN,
    image_std: OPENAI_CLIP_STD,
    ..VIT
};

/// The slow class of this name can't resize to a shortest edge, though that is its own default
/// (`KeyError: 'height'`). Its fast twin can, as CLIP does.
const CHINESE_CLIP: &str = "ChineseCLIPImageProcessor";

const DONUT: Class = Class {
    name: "DonutImageProcessor",
    steps: Steps::Page,
    size: Size::Exact { height: 2560, width: 1920 },
    size_list_is_width_first: true,
    ..VIT
};

/// Every class that is read. ConvNext and the rest have no encoder here to go with.
pub static CLASSES: &[Class] = &[
    VIT,
    DEIT,
    Class { name: "BeitImageProcessor", ..DEIT },
    CLIP,
    Class { name: "BitImageProcessor", ..CLIP },
    Class { name: CHINESE_CLIP, ..CLIP },
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
    Class {
        name: "YolosImageProcessor",
        steps: Steps::Detection,
        size: Size::Edges { shortest: 800, longest: 1333 },
        sizes: Sizes::BothEdges,
        image_mean: IMAGENET_DEFAULT_MEAN,
        image_std: IMAGENET_DEFAULT_STD,
        ..VIT
    },
    Class {
        name: "DINOv3ViTImageProcessorFast",
        steps: Steps::Floats,
        sizes: Sizes::Any,
        image_mean: IMAGENET_DEFAULT_MEAN,
        image_std: IMAGENET_DEFAULT_STD,
        ..VIT
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
    ("chinese_clip", CHINESE_CLIP),
    ("chinese_clip_vision_model", CHINESE_CLIP),
    ("aimv2", "CLIPImageProcessor"),
    ("aimv2_vision_model", "CLIPImageProcessor"),
    ("siglip", "SiglipImageProcessor"),
    ("siglip_vision_model", "SiglipImageProcessor"),
    ("dinov3_vit", "DINOv3ViTImageProcessorFast"),
    ("yolos", "YolosImageProcessor"),
    ("donut-swin", "DonutImageProcessor"),
    ("nougat", "NougatImageProcessor"),
];

impl Class {
    /// The class of a name in preprocessor_config.json: today's (`ViTImageProcessor`), that of its
    /// fast twin (`ViTImageProcessorFast`, the same parameters), or the old one
    /// (`ViTFeatureExtractor`).
    pub fn from_name(name: &str) -> Result<&'static Self> {
        let today = name.replace("FeatureExtractor", "ImageProcessor");
        let slow = |name: &str| name.strip_suffix("Fast").unwrap_or(name).to_owned();
        let today = slow(&today);
        CLASSES.iter().find(|class| slow(class.name) == today).with_context(|| {
            let known: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
            format!("image processor {name:?} is not supported; known are {}", known.join(", "))
        })
    }

    /// Pages, whose shape is kept.
    pub fn is_document(&self) -> bool {
        self.steps == Steps::Page
    }

    /// Whether a longest edge in `size` is refused: where the slow class fails and the fast one
    /// would heed it, there is no telling what is meant.
    pub(super) fn refuses_longest_edge(&self) -> bool {
        self.name == CHINESE_CLIP
    }

    /// The name for a file that had none: one that transformers can run with this size.
    pub(super) fn written_name(&self, size: Option<Size>) -> String {
        let fails = self.name == CHINESE_CLIP && matches!(size, Some(Size::ShortestEdge(_)));
        format!("{}{}", self.name, if fails { "Fast" } else { "" })
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
            ("YolosFeatureExtractor", "YolosImageProcessor"),
            ("YolosImageProcessorFast", "YolosImageProcessor"),
            ("ChineseCLIPFeatureExtractor", "ChineseCLIPImageProcessor"),
            ("ChineseCLIPImageProcessorFast", "ChineseCLIPImageProcessor"),
            ("DINOv3ViTImageProcessorFast", "DINOv3ViTImageProcessorFast"),
            // As transformers 5 names it.
            ("DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast"),
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
        let error = Class::from_name("DetrImageProcessor").unwrap_err().to_string();
        assert!(error.starts_with("image processor \"DetrImageProcessor\" is not supported"));
        let error = Class::from_model_type("detr").unwrap_err().to_string();
        assert!(error.starts_with("no image processor is known for encoders of type \"detr\""));
    }
}
