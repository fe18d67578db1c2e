//! The side on a checkpoint that takes a moment.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::{trocr, vit};
use serde_json::{Value, json};

use crate::picture::Processor;
use crate::protocol::{self, Answer, Ready, Request};
use crate::reader::{Reader, greatest};

const WORDS: u32 = 40;

fn config(encoder: &str) -> Value {
    json!({
        "encoder": {
            "model_type": encoder, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "image_size": 16,
            "patch_size": 8, "num_channels": 3, "qkv_bias": false,
        },
        "decoder": {
            "model_type": "trocr", "vocab_size": WORDS, "d_model": 16, "decoder_layers": 2,
            "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "activation_function": "gelu",
            "max_position_embeddings": 20, "dropout": 0.1, "attention_dropout": 0.0,
            "activation_dropout": 0.0, "decoder_layerdrop": 0.0, "init_std": 0.02,
            "scale_embedding": false, "use_cache": true, "bos_token_id": 0, "pad_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 2, "cross_attention_hidden_size": 16,
        },
    })
}

/// The same numbers whenever it is made.
fn weights(config: &Value, path: &Path) -> Result<()> {
    let made = VarMap::new();
    let encoder: vit::Config = serde_json::from_value(config["encoder"].clone())?;
    let decoder: trocr::TrOCRConfig = serde_json::from_value(config["decoder"].clone())?;
    let names = VarBuilder::from_varmap(&made, DType::F32, &Device::Cpu);
    trocr::TrOCRModel::new(&encoder, &decoder, names)?;
    for (name, tensor) in made.data().lock().unwrap().iter() {
        let seed: u64 = name.bytes().map(u64::from).sum();
        let number = |at: u64| ((seed + at) * 7919 % 1009) as f32 / 1009.0 - 0.5;
        let numbers: Vec<f32> = (0..tensor.elem_count() as u64).map(number).collect();
        tensor.set(&Tensor::from_vec(numbers, tensor.shape(), &Device::Cpu)?)?;
    }
    Ok(made.save(path)?)
}

fn checkpoint(folder: &Path) -> Result<()> {
    let write = |name: &str, json: Value| std::fs::write(folder.join(name), json.to_string());
    let config = config("vit");
    weights(&config, &folder.join("model.safetensors"))?;
    write("config.json", config)?;
    write("preprocessor_config.json", processor(16))?;
    let words: serde_json::Map<String, Value> =
        (0..WORDS).map(|word| (format!("w{word}"), word.into())).collect();
    write(
        "tokenizer.json",
        json!({
            "version": "1.0", "added_tokens": [],
            "model": { "type": "WordLevel", "vocab": words, "unk_token": "w3" },
        }),
    )?;
    Ok(())
}

fn processor(size: u32) -> Value {
    json!({
        "size": { "height": size, "width": size }, "resample": 2, "rescale_factor": 1.0 / 255.0,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.25],
    })
}

fn picture(path: PathBuf, shade: u8) -> PathBuf {
    let draw = |x: u32, y: u32| image::Rgb([shade, (x * 9) as u8, (y * 9) as u8]);
    image::RgbImage::from_fn(24, 12, draw).save(&path).unwrap();
    path
}

#[test]
fn answers_hold_as_many_tokens_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path()).unwrap();
    let one = picture(folder.path().join("one.png"), 0);
    let two = picture(folder.path().join("two.png"), 255);
    let missing = folder.path().join("missing.png");
    let request = |images: &[&PathBuf], beams, parts| {
        let images = images.iter().copied().cloned().collect();
        serde_json::to_string(&Request { images, beams, tokens: 9, parts }).unwrap()
    };
    let requests = [
        request(&[&one, &two], 1, true),
        request(&[&two], 4, false),
        request(&[&missing], 1, false),
        request(&[&two], 1, false),
    ];
    let mut reader = Reader::open(folder.path()).unwrap();
    let mut said = Vec::new();
    let requests = Cursor::new(requests.join("\n"));
    let answer = |request: &Request| crate::answer(&mut reader, request);
    protocol::serve("candle".to_string(), requests, &mut said, answer).unwrap();

    let said = String::from_utf8(said).unwrap();
    let mut lines = said.lines();
    let ready: Ready = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(ready.version, "candle");
    let answers: Vec<Answer> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers[0].error, None);
    assert!(answers[0].whole_ms > 0.0 && answers[0].encoder_ms > 0.0);
    let lengths: Vec<usize> = answers[0].ids.iter().map(Vec::len).collect();
    assert_eq!(lengths, [9, 9]);
    // The end of a text is never chosen.
    assert!(
        answers[0].ids.iter().flatten().all(|id| (0..i64::from(WORDS)).contains(id) && *id != 2)
    );
    assert_eq!(answers[1].error.as_deref(), Some("candle has no beam search"));
    assert!(answers[2].error.as_deref().unwrap().contains("missing.png"));
    // Neither the batch nor a request before changes a text.
    assert_eq!(answers[0].ids[1], answers[3].ids[0]);
}

#[test]
fn other_encoders_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config("deit").to_string()).unwrap();
    let error = Reader::open(folder.path()).err().unwrap();
    assert_eq!(error.to_string(), "candle's TrOCR has no deit encoder, only vit");
}

#[test]
fn pictures_are_rescaled_and_normalized() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.png");
    image::RgbImage::from_pixel(5, 3, image::Rgb([0, 255, 51])).save(&path).unwrap();
    let processor: Processor = serde_json::from_value(processor(2)).unwrap();
    let mut pixels = Vec::new();
    processor.read(&path, &mut pixels).unwrap();
    let expected = [[-1.0; 4], [1.0; 4], [(0.2 - 0.5) / 0.25; 4]].concat();
    assert_eq!(pixels.len(), expected.len());
    let near =
        pixels.iter().zip(&expected).all(|(own, right): (&f32, _)| (own - right).abs() < 1e-6);
    assert!(near, "{pixels:?}");
}

#[test]
fn the_first_greatest_is_chosen_but_for_the_end() {
    assert_eq!(greatest(&[0.0, 3.0, 5.0, 3.0], 2), 1);
    assert_eq!(greatest(&[-2.0, -3.0], 7), 0);
}
