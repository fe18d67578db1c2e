//! Tests over every row of the table, on small models with made-up weights.

use std::rc::Rc;

use serde_json::json;
use tch::{Device, Kind};

use super::*;
use crate::nn::{Store, segment};

/// The row's defaults, small.
fn small(arch: &EncoderArch) -> Value {
    let mut config = (arch.defaults)();
    let sizes = json!({
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "image_size": 32, "patch_size": 8, "embed_dim": 8,
        "depths": [2, 2], "num_heads": [2, 2], "window_size": 2, "num_detection_tokens": 3,
    });
    for (key, value) in sizes.as_object().unwrap() {
        if config.get(key).is_some() {
            config[key] = value.clone();
        }
    }
    config
}

fn build(arch: &EncoderArch, config: &Value) -> (Rc<Store>, Box<dyn Encoder>) {
    let store = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
    let encoder = (arch.build)(config, &Params::root(store.clone())).unwrap();
    (store, encoder)
}

/// (type, tokens of a 32x32 image, tensors that get no gradient), from the reference.
const ROWS: &[(&str, i64, &[&str])] = &[
    ("vit", 17, &["pooler.dense.bias", "pooler.dense.weight"]),
    ("deit", 18, &["pooler.dense.bias", "pooler.dense.weight"]),
    ("beit", 17, &["pooler.layernorm.bias", "pooler.layernorm.weight"]),
    ("data2vec-vision", 17, &[]),
    ("swin", 4, &[]),
    ("donut-swin", 4, &[]),
    ("swinv2", 4, &[]),
    ("dinov2", 17, &["embeddings.mask_token"]),
    ("dinov2_with_registers", 21, &["embeddings.mask_token"]),
    ("dinov3_vit", 17, &["embeddings.mask_token"]),
    ("vit_mae", 17, &["embeddings.position_embeddings"]),
    ("vit_msn", 17, &[]),
    ("ijepa", 16, &[]),
    (
        "clip_vision_model",
        17,
        &["vision_model.post_layernorm.bias", "vision_model.post_layernorm.weight"],
    ),
    (
        "chinese_clip_vision_model",
        17,
        &["vision_model.post_layernorm.bias", "vision_model.post_layernorm.weight"],
    ),
    (
        "siglip_vision_model",
        16,
        &[
            "vision_model.head.attention.in_proj_bias",
            "vision_model.head.attention.in_proj_weight",
            "vision_model.head.attention.out_proj.bias",
            "vision_model.head.attention.out_proj.weight",
            "vision_model.head.layernorm.bias",
            "vision_model.head.layernorm.weight",
            "vision_model.head.mlp.fc1.bias",
            "vision_model.head.mlp.fc1.weight",
            "vision_model.head.mlp.fc2.bias",
            "vision_model.head.mlp.fc2.weight",
            "vision_model.head.probe",
        ],
    ),
    (
        "aimv2_vision_model",
        16,
        &[
            "head.cls_token",
            "head.k_proj.weight",
            "head.output_proj.bias",
            "head.output_proj.weight",
            "head.v_proj.weight",
        ],
    ),
    ("yolos", 20, &["pooler.dense.bias", "pooler.dense.weight"]),
];

#[test]
fn every_row_is_tested() {
    let rows: Vec<&str> = ROWS.iter().map(|(model_type, ..)| *model_type).collect();
    assert_eq!(names(), rows.join(", "));
}

#[test]
fn every_variable_that_matters_learns() {
    for (model_type, tokens, unused) in ROWS {
        let arch = find(model_type).unwrap();
        let (store, encoder) = build(arch, &small(arch));
        for variable in store.variables().iter().filter(|variable| variable.trainable) {
            let _ = variable.tensor.set_requires_grad(true);
        }
        encoder.check_size(32, 32, false).unwrap();
        let states =
            encoder.forward(&Tensor::randn([2, 3, 32, 32], (Kind::Float, Device::Cpu)), true);
        assert_eq!(states.size(), [2, *tokens, encoder.hidden_size()], "{model_type}");
        let grid = encoder.grid(32, 32);
        let behind = if *model_type == "yolos" { 3 } else { 0 };
        assert_eq!(grid.leading + grid.rows * grid.columns + behind, *tokens, "{model_type}");
        let whole = (grid.rows * grid.cell.0, grid.columns * grid.cell.1);
        assert_eq!(whole, (32, 32), "{model_type}");
        states.sum(Kind::Float).backward();
        let idle = |variable: &&crate::nn::Variable| {
            variable.tensor.is_floating_point()
                && variable.tensor.numel() > 0
                && !variable.tensor.grad().defined()
        };
        let variables = store.variables();
        let mut idle: Vec<&str> = variables.iter().filter(idle).map(|v| v.name.as_str()).collect();
        idle.sort_unstable();
        assert_eq!(idle, *unused, "{model_type}");
    }
}

#[test]
fn layers_may_be_computed_twice_instead_of_kept() {
    let images = Tensor::randn([2, 3, 32, 32], (Kind::Double, Device::Cpu));
    let beit =
        json!({"use_relative_position_bias": true, "use_shared_relative_position_bias": true});
    let rows = ROWS.iter().map(|(model_type, ..)| (*model_type, json!({})));
    for (model_type, changes) in rows.chain([("beit", beit)]) {
        let arch = find(model_type).unwrap();
        let mut config = small(arch);
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        // In f64: the gradients of weights just drawn are small differences of large numbers.
        let store = Rc::new(Store::fresh(Device::Cpu, Kind::Double));
        let encoder = (arch.build)(&config, &Params::root(store.clone())).unwrap();
        let trainable = store.variables().into_iter().filter(|variable| variable.trainable);
        let parameters: Vec<(String, Tensor)> =
            trainable.map(|v| (v.name, v.tensor.set_requires_grad(true))).collect();
        let entries = segment::tests::check(&parameters, || {
            encoder.forward(&images, false).square().mean(Kind::Double)
        });
        assert!(entries >= 3, "{model_type}: {entries} entries");
    }
}

#[test]
fn sizes_are_told_apart_by_sentences() {
    let other = |expected: &str| {
        format!(
            "the image processor gives {expected}; correct `size` in preprocessor_config.json or \
             pass --interpolate-pos-encoding"
        )
    };
    let square = "48x24 pixels (height x width), the encoder's image_size is 32x32";
    let table = [
        ("vit", (48, 24), false, Some(other(square))),
        ("vit", (48, 24), true, None),
        ("clip_vision_model", (48, 24), false, Some(other(square))),
        ("clip_vision_model", (33, 32), false, Some(other(&square.replace("48x24", "33x32")))),
        ("siglip_vision_model", (33, 32), false, None),
        ("siglip_vision_model", (48, 24), true, None),
        (
            "aimv2_vision_model",
            (48, 24),
            true,
            Some(format!("the image processor gives {square}; correct `size` in preprocessor_config.json")),
        ),
        ("beit", (48, 24), false, None),
        ("dinov2", (48, 24), false, None),
        ("dinov3_vit", (48, 24), false, None),
        ("yolos", (48, 24), false, None),
        ("swinv2", (5, 5), false, None),
        ("swin", (17, 17), false, None),
        (
            "swin",
            (16, 40),
            false,
            Some(
                "the image processor gives 16x40 pixels (height x width), the encoder's windows of \
                 2x2 tokens ask for at least 17x17; correct `size` in preprocessor_config.json"
                    .to_string(),
            ),
        ),
    ];
    for (model_type, (height, width), interpolate, expected) in table {
        let arch = find(model_type).unwrap();
        let (_, encoder) = build(arch, &small(arch));
        let found = encoder.check_size(height, width, interpolate).err();
        assert_eq!(found.map(|error| error.to_string()), expected, "{model_type}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let table = [
        ("vit", "hidden_act", json!("gelu_newer"), "activation \"gelu_newer\" is not supported"),
        (
            "swin",
            "use_absolute_embeddings",
            json!(true),
            "use_absolute_embeddings = true is not supported (the reference can't run it either: \
             it has one position too many)",
        ),
        (
            "swin",
            "num_heads",
            json!([3, 3]),
            "the width 8 of stage 0 is no multiple of its 3 heads",
        ),
        ("swinv2", "depths", json!([2]), "depths has 1 stages, num_heads has 2"),
        (
            "dinov2",
            "num_attention_heads",
            json!(3),
            "hidden_size 16 is no multiple of num_attention_heads 3",
        ),
        ("clip_vision_model", "image_size", json!(4), "patch_size 8 does not fit image_size 4"),
        (
            "yolos",
            "patch_size",
            json!([8, 4]),
            "patch_size 8x4 is not supported (the reference can't run it either)",
        ),
    ];
    for (model_type, key, value, expected) in table {
        let arch = find(model_type).unwrap();
        let mut config = small(arch);
        config[key] = value;
        let store = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
        let error = (arch.build)(&config, &Params::root(store)).err().unwrap();
        assert_eq!(error.to_string(), expected, "{model_type}");
    }
    let error = find("resnet").err().unwrap().to_string();
    assert!(error.starts_with("encoder type \"resnet\" is not supported (supported: vit, deit,"));
}

#[test]
fn an_encoder_sees_whole_images() {
    let mut config = json!({"model_type": "vit_mae", "mask_ratio": 0.75});
    prepare(&mut config);
    assert_eq!(config["mask_ratio"], json!(0.0));
    let mut config = json!({"model_type": "hiera", "mask_ratio": 0.6});
    prepare(&mut config);
    assert_eq!(config["mask_ratio"], json!(0.6));
}

#[test]
fn patterns_match_beginnings_ends_and_whole_keys() {
    let patterns = &["pooler.", ".position_ids", "embeddings.mask_token"];
    let table = [
        ("pooler.dense.weight", true),
        ("embeddings.position_ids", true),
        ("embeddings.mask_token", true),
        ("embeddings.mask_token.more", false),
        ("encoder.pooler.weight", false),
    ];
    for (key, expected) in table {
        assert_eq!(ignored(patterns, key), expected, "{key}");
    }
}
