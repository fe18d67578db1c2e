//! The image processor classes of the reference and their defaults.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::size::Spelling;

/// A class by what it does; classes that do the same share a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Vit,
    Deit,
    Beit,
    Bit,
    Clip,
    Siglip,
    Donut,
    Nougat,
}

const HALF: [f64; 3] = [0.5, 0.5, 0.5];
const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

impl Class {
    /// By `image_processor_type`, with or without "Fast", or the older `feature_extractor_type`.
    pub(super) fn from_name(name: &str) -> Result<Self> {
        let stem = name.strip_suffix("Fast").unwrap_or(name);
        let stem = stem.strip_suffix("ImageProcessor").or(stem.strip_suffix("FeatureExtractor"));
        Ok(match stem {
            Some("ViT") => Class::Vit,
            Some("DeiT") => Class::Deit,
            Some("Beit") => Class::Beit,
            Some("Bit") => Class::Bit,
            Some("CLIP") => Class::Clip,
            Some("Siglip") => Class::Siglip,
            Some("Donut") => Class::Donut,
            Some("Nougat") => Class::Nougat,
            _ => bail!(
                "image processor {name:?} is not supported (supported: ViT, DeiT, Beit, Bit, CLIP, \
                 Siglip, Donut, Nougat)"
            ),
        })
    }

    /// What checkpoints of an encoder type use.
    pub(super) fn from_model_type(model_type: &str) -> Result<Self> {
        Ok(match model_type {
            "vit" | "swin" | "swinv2" | "vit_mae" | "vit_msn" | "ijepa" => Class::Vit,
            "deit" => Class::Deit,
            "beit" | "data2vec-vision" => Class::Beit,
            "dinov2" | "dinov2_with_registers" => Class::Bit,
            "clip_vision_model" => Class::Clip,
            "siglip_vision_model" => Class::Siglip,
            "donut-swin" => Class::Donut,
            "yolos" => Class::Vit,
            _ => bail!("no image processor is known for the encoder type {model_type:?}"),
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Vit => "ViTImageProcessor",
            Class::Deit => "DeiTImageProcessor",
            Class::Beit => "BeitImageProcessor",
            Class::Bit => "BitImageProcessor",
            Class::Clip => "CLIPImageProcessor",
            Class::Siglip => "SiglipImageProcessor",
            Class::Donut => "DonutImageProcessor",
            Class::Nougat => "NougatImageProcessor",
        }
    }

    pub(super) fn spelling(self) -> Spelling {
        match self {
            Class::Bit | Class::Clip => Spelling::Short,
            Class::Donut | Class::Nougat => Spelling::WidthFirst,
            _ => Spelling::Square,
        }
    }

    /// True if the class takes `shortest_edge`; the others need height and width.
    pub(super) fn takes_shortest_edge(self) -> bool {
        matches!(self, Class::Bit | Class::Clip)
    }

    /// The keys of the constructor that this class has no use for are absent.
    pub(super) fn defaults(self) -> Value {
        let mut json = json!({
            "do_resize": true, "do_rescale": true, "rescale_factor": 1.0 / 255.0,
            "do_normalize": true, "image_mean": HALF, "image_std": HALF,
        });
        let (size, resample) = match self {
            Class::Vit => (json!({"height": 224, "width": 224}), 2),
            Class::Siglip => (json!({"height": 224, "width": 224}), 3),
            Class::Deit | Class::Beit => (json!({"height": 256, "width": 256}), 3),
            Class::Bit | Class::Clip => (json!({"shortest_edge": 224}), 3),
            Class::Donut => (json!({"height": 2560, "width": 1920}), 2),
            Class::Nougat => (json!({"height": 896, "width": 672}), 2),
        };
        json["size"] = size;
        json["resample"] = json!(resample);
        if matches!(self, Class::Deit | Class::Beit | Class::Bit | Class::Clip) {
            json["do_center_crop"] = json!(true);
            json["crop_size"] = json!({"height": 224, "width": 224});
        }
        if matches!(self, Class::Bit | Class::Clip) {
            json["image_mean"] = json!(CLIP_MEAN);
            json["image_std"] = json!(CLIP_STD);
            json["do_convert_rgb"] = json!(true);
        }
        if matches!(self, Class::Donut | Class::Nougat) {
            json["do_thumbnail"] = json!(true);
            json["do_align_long_axis"] = json!(false);
            json["do_pad"] = json!(true);
        }
        if self == Class::Nougat {
            json["do_crop_margin"] = json!(true);
            json["image_mean"] = json!(IMAGENET_MEAN);
            json["image_std"] = json!(IMAGENET_STD);
        }
        json
    }

    /// What the published checkpoints of a type say beyond the class's defaults.
    pub(super) fn published(model_type: &str) -> Value {
        match model_type {
            "dinov2" | "dinov2_with_registers" => json!({
                "size": {"shortest_edge": 256}, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
            }),
            "swin" | "swinv2" | "vit_mae" | "vit_msn" | "yolos" => {
                json!({"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD})
            }
            "deit" => json!({"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}),
            _ => json!({}),
        }
    }
}
