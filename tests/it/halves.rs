//! Halves taken out of larger models and put together, and what is no half.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tch::{Kind, Tensor};
use vedm::checkpoint::{Checkpoint, save_safetensors};

use crate::support::{Ran, Vedm, copy_of, golden, pictures};

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(dir: &Path, args: &[&str]) -> Ran {
    Vedm::new(args).dir(dir).without("VEDM_DTYPE").run()
}

fn tensors(dir: &Path) -> BTreeMap<String, Tensor> {
    let file = Checkpoint::open(dir).unwrap();
    file.keys().map(|key| (key.to_string(), file.tensor(key).unwrap())).collect()
}

fn save(dir: &Path, tensors: BTreeMap<String, Tensor>) {
    save_safetensors(dir, &tensors.into_iter().collect::<Vec<_>>(), None).unwrap();
}

fn change(dir: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = dir.join(file);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

/// A model of images and text gives its tower under the names of the tower's own class, which alone
/// transformers finds.
#[test]
fn towers_keep_the_names_of_their_class() {
    for (case, whole) in [("clip-gpt2", "clip"), ("siglip-gpt2", "siglip")] {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("whole");
        std::fs::create_dir(&source).unwrap();
        let own = golden(case);
        for file in ["config.json", "preprocessor_config.json"] {
            std::fs::copy(own.join(file), source.join(file)).unwrap();
        }
        change(&source, "config.json", |json| {
            *json =
                json!({"model_type": whole, "vision_config": json["encoder"], "text_config": {}});
        });
        let tower = |(key, tensor): (&String, &Tensor)| {
            Some((key.strip_prefix("encoder.")?.to_string(), tensor.shallow_clone()))
        };
        let expected: BTreeMap<String, Tensor> = tensors(&own).iter().filter_map(tower).collect();
        let mut all: BTreeMap<String, Tensor> =
            expected.iter().map(|(key, tensor)| (key.clone(), tensor.copy())).collect();
        all.insert("logit_scale".to_string(), Tensor::from(1f32));
        all.insert("text_model.final_layer_norm.bias".to_string(), Tensor::from_slice(&[1f32]));
        save(&source, all);
        let (decoder, out) = (text(&own), folder.path().join("out"));
        let args = ["init", "out", "--encoder", "whole", "--decoder", &decoder];
        run(folder.path(), &args).status(0);
        let out = tensors(&out);
        let found: BTreeMap<String, Tensor> = out.iter().filter_map(tower).collect();
        assert!(found.keys().all(|key| key.starts_with("vision_model.")), "{:?}", found.keys());
        // A checkpoint of the tower may lack what its class has beside it.
        for (key, tensor) in &expected {
            assert_eq!(found[key], *tensor, "{case}: {key}");
        }
    }
}

/// However their folders are spelled, two halves that `--split` wrote are one model.
#[test]
fn halves_find_each_other_and_account_for_their_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    run(place, &["convert", &text(&golden("donut-swin-mbart")), "parts", "--split"]).status(0);
    let absolute = text(&place.join("parts/encoder"));
    for (at, encoder) in ["parts/encoder", "./parts/encoder", &absolute].into_iter().enumerate() {
        let out = format!("out{at}");
        let args = ["convert", &out, "--verify", "--merge", encoder, "parts/decoder"];
        let ran = run(place, &args).status(0);
        assert!(!ran.stderr.contains("newly drawn"), "{}", ran.stderr);
        let found = tensors(&place.join(&out));
        assert_eq!(found.len(), tensors(&place.join("out0")).len());
        let config: Value =
            serde_json::from_slice(&std::fs::read(place.join(&out).join("config.json")).unwrap())
                .unwrap();
        assert!(config["decoder_start_token_id"].is_number(), "{config}");
    }
    let decoder = place.join("parts/decoder");
    let mut more = tensors(&decoder);
    more.insert("model.decoder.layers.7.fc1.weight".to_string(), Tensor::from_slice(&[1f32]));
    save(&decoder, more);
    let args = ["convert", "last", "--merge", "parts/encoder", "parts/decoder"];
    let ran = run(place, &args).status(1);
    assert!(ran.stderr.contains("layers.7.fc1.weight"), "{}", ran.stderr);
    let ran = run(place, &[&args[..], &["--allow-unused-tensors"]].concat()).status(0);
    assert!(ran.stderr.contains("layers.7.fc1.weight"), "{}", ran.stderr);
    let ran = run(place, &[&args[..], &["--revision", "v1"]].concat()).status(1);
    assert!(ran.stderr.contains("--revision"), "{}", ran.stderr);
}

#[test]
fn quantized_models_are_refused_by_name() {
    let model = copy_of("vit-gpt2");
    let place = model.path();
    let name = "encoder.encoder.layer.0.attention.output.dense.weight";
    let mut all = tensors(place);
    all.insert(name.to_string(), all[name].to_kind(Kind::Int8));
    save(place, all);
    let dir = text(place);
    let picture = text(&pictures("vit-gpt2")[0]);
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["doctor", "--model", &dir][..],
        &["caption", "--model", &dir, &picture],
        &["caption", "--model", &dir, &picture, "--dtype", "f16"],
        &["convert", &dir, "out"],
        &["init", "out", "--encoder", &dir, "--decoder", &dir],
    ] {
        let ran = run(folder.path(), args).status(1);
        assert!(ran.stderr.contains("whole numbers"), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(name), "{args:?}: {}", ran.stderr);
    }
    let how = json!({"quant_method": "bitsandbytes", "load_in_8bit": true});
    change(place, "config.json", |json| json["quantization_config"] = how);
    let ran = run(place, &["doctor", "--model", &dir]).status(1);
    assert!(ran.stderr.contains("quantization_config (bitsandbytes)"), "{}", ran.stderr);
}

#[test]
fn numbers_that_a_type_cannot_hold_are_refused_by_name() {
    let model = copy_of("vit-gpt2");
    let place = model.path();
    let name = "encoder.layernorm.bias";
    let mut all = tensors(place);
    all.insert(name.to_string(), &all[name] + 70_000.0);
    save(place, all);
    let out = tempfile::tempdir().unwrap();
    let target = text(&out.path().join("out"));
    for flags in [&["--dtype", "f16"][..], &["--dtype", "f16", "--split"]] {
        let ran = run(place, &[&["convert", ".", &target][..], flags].concat()).status(1);
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
        assert!(ran.stderr.contains("float16 does not hold"), "{}", ran.stderr);
    }
    run(place, &["convert", ".", &target, "--dtype", "bf16", "--verify"]).status(0);
}

/// What the doctor calls sound, `caption` takes; and `init` writes nothing else.
#[test]
fn settings_are_looked_at_where_they_are_written_and_where_they_are_read() {
    let faults: &[(&str, &str, Value, &str)] = &[
        ("generation_config.json", "num_beams", json!(0), "num_beams"),
        ("generation_config.json", "max_length", json!("x"), "max_length"),
        ("generation_config.json", "forced_bos_token_id", json!(7777), "7777"),
        ("generation_config.json", "decoder_start_token_id", json!(5000), "5000"),
        ("preprocessor_config.json", "size", json!({"height": 64, "width": 64}), "64"),
    ];
    let picture = text(&pictures("vit-gpt2")[0]);
    for (file, field, value, words) in faults {
        let model = copy_of("vit-gpt2");
        change(model.path(), file, |json| json[*field] = value.clone());
        let dir = text(model.path());
        for args in [&["doctor", "--model", &dir][..], &["caption", "--model", &dir, &picture]] {
            let ran = run(model.path(), args);
            assert_ne!(ran.status, 0, "{file} {field} {args:?}");
            assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
        }
    }
    let model = text(&golden("vit-gpt2"));
    let folder = tempfile::tempdir().unwrap();
    for (set, words) in [
        ("decoder_start_token_id=5000", "decoder_start_token_id is 5000"),
        ("eos_token_id=-1", "eos_token_id is -1"),
        ("pad_token_id=9000", "pad_token_id is 9000"),
        ("forced_bos_token_id=7777", "7777"),
        ("decoder.add_cross_attention=false", "add_cross_attention = true"),
        ("decoder.is_decoder=false", "is_decoder = true"),
    ] {
        let args = ["init", "out", "--encoder", &model, "--decoder", &model, "--set", set];
        let ran = run(folder.path(), &args).status(1);
        assert!(ran.stderr.contains(words), "{set}: {}", ran.stderr);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
