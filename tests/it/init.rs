//! `vedm init` as a user runs it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Kind, Tensor};
use tempfile::TempDir;
use vedm::checkpoint::Checkpoint;

use crate::support::{Ran, Vedm, golden, pictures};

/// Sizes of a small encoder of ViT's kind.
const SMALL: &[&str] = &[
    "encoder.hidden_size=48",
    "encoder.num_hidden_layers=2",
    "encoder.num_attention_heads=4",
    "encoder.intermediate_size=96",
    "encoder.image_size=32",
    "encoder.patch_size=8",
];

/// A folder, and the checkpoint in it that the run wrote.
struct Made {
    folder: TempDir,
    ran: Ran,
}

impl Made {
    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn json(&self, file: &str) -> Value {
        read_json(&self.out().join(file))
    }

    fn weights(&self) -> Checkpoint {
        Checkpoint::open(&self.out()).unwrap()
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs `vedm init OUT` with these halves, the tokenizer of a golden case, and settings.
#[track_caller]
fn init(encoder: &str, decoder: &str, tokenizer: &str, set: &[&str], more: &[&str]) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    let tokenizer = golden(tokenizer).display().to_string();
    let mut args = vec!["init", &out, "--encoder", encoder, "--decoder", decoder];
    args.extend(["--tokenizer", &tokenizer]);
    set.iter().for_each(|set| args.extend(["--set", set]));
    args.extend(more);
    let ran = Vedm::new(&args).run();
    Made { folder, ran }
}

fn path_of(case: &str) -> String {
    golden(case).display().to_string()
}

#[test]
fn two_types_make_a_complete_checkpoint() {
    let decoder = ["decoder.hidden_size=32", "decoder.num_hidden_layers=1"];
    let heads = ["decoder.num_attention_heads=2", "decoder.intermediate_size=24"];
    let top = ["max_length=12"];
    let set = [SMALL, &decoder, &heads, &top].concat();
    let made = init("vit", "bert", "vit-bert", &set, &[]);
    assert_eq!(made.ran.status, 0, "{}", made.ran.stderr);
    for file in ["config.json", "generation_config.json", "preprocessor_config.json"] {
        made.json(file);
    }
    let config = made.json("config.json");
    assert_eq!(config["encoder"]["hidden_size"], 48);
    assert_eq!(config["decoder"]["add_cross_attention"], true);
    assert_eq!(config["decoder"]["is_decoder"], true);
    assert_eq!(config["decoder"]["vocab_size"], 150, "the tokenizer's");
    assert_eq!(made.json("generation_config.json")["max_length"], 12);
    let size = &made.json("preprocessor_config.json")["size"];
    assert_eq!((&size["height"], &size["width"]), (&Value::from(32), &Value::from(32)));
    for line in ["encoder: all 40 tensors newly drawn", "  enc_to_dec_proj.weight"] {
        assert!(made.ran.stderr.lines().any(|found| found == line), "{}", made.ran.stderr);
    }
    assert_eq!(made.ran.stdout, "");

    let picture = pictures("vit-bert")[0].display().to_string();
    let out = made.out().display().to_string();
    let ran = Vedm::new(&["caption", "--model", &out, &picture]).run().status(0);
    assert_eq!(ran.stderr, "");
}

#[cfg(unix)]
#[test]
fn the_vocabulary_is_the_tokenizer_s_where_a_config_file_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gpt.json");
    let file = config.display().to_string();
    let sizes = r#""model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2"#;
    std::fs::write(&config, format!("{{{sizes}}}")).unwrap();
    let drawn = |set: &[&str]| {
        let made = init("vit", &file, "vit-bert", set, &[]);
        assert_eq!(made.ran.status, 0, "{}", made.ran.stderr);
        made.json("config.json")["decoder"]["vocab_size"].as_u64().unwrap()
    };
    let tokens = drawn(SMALL);
    assert!(tokens < 10_000, "{tokens} is no size of the tokenizer");
    // What the file says is kept, be it the family's default.
    std::fs::write(&config, format!("{{{sizes}, \"vocab_size\": 50257}}")).unwrap();
    assert_eq!(drawn(SMALL), 50_257);
    std::fs::write(&config, format!("{{{sizes}, \"vocab_size\": {}}}", tokens + 1)).unwrap();
    assert_eq!(drawn(SMALL), tokens + 1);
}

#[test]
fn files_are_as_readable_as_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let made = init("vit", "bert", "vit-bert", &[SMALL, TINY_BERT].concat(), &[]);
    let plain = made.folder.path().join("plain");
    std::fs::write(&plain, "x").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    for entry in std::fs::read_dir(made.out()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), mode(&plain), "{path:?}");
    }
}

const TINY_BERT: &[&str] = &[
    "decoder.hidden_size=32",
    "decoder.num_hidden_layers=1",
    "decoder.num_attention_heads=2",
    "decoder.intermediate_size=24",
];

#[test]
fn the_seed_decides() {
    let weights = |seed: &str| {
        let made = init("vit", "bert", "vit-bert", &[SMALL, TINY_BERT].concat(), &["--seed", seed]);
        std::fs::read(made.out().join("model.safetensors")).unwrap()
    };
    let one = weights("1");
    assert!(one == weights("1"), "the same seed gave other weights");
    assert!(one != weights("2"), "another seed gave the same weights");
}

#[test]
fn a_warm_start_takes_every_tensor_of_its_half() {
    for case in ["vit-gpt2", "vit-bart", "vit-roberta-oblong", "deit-bert-old-files", "beit-bert"] {
        let made = init(&path_of(case), &path_of(case), case, &[], &[]);
        assert_eq!(made.ran.status, 0, "{case}: {}", made.ran.stderr);
        let (old, new) = (Checkpoint::open(&golden(case)).unwrap(), made.weights());
        let mut taken = 0;
        for key in new.keys().filter(|key| old.info(key).is_some()) {
            let same = old.tensor(key).unwrap().to_kind(Kind::Float) == new.tensor(key).unwrap();
            assert!(same || key.starts_with("enc_to_dec_proj"), "{case}: {key}");
            taken += 1;
        }
        assert!(taken > 30, "{case}: only {taken} tensors");
        let drawn: Vec<&str> =
            made.ran.stderr.lines().filter(|line| line.contains("newly drawn")).collect();
        let spare = |line: &&str| !line.contains("encoder: newly drawn 2 tensors");
        let drawn: Vec<&str> = drawn.into_iter().filter(spare).collect();
        assert!(drawn.iter().all(|line| line.starts_with("between")), "{case}: {drawn:?}");
    }
}

#[test]
fn depths_are_cut_and_names_are_checked() {
    let set =
        ["encoder.num_hidden_layers=1", "decoder.n_layer=1", "encoder.hiden=3", "hidden_size=4"];
    let made = init(&path_of("vit-gpt2"), &path_of("vit-gpt2"), "vit-gpt2", &set, &[]);
    assert_eq!(made.ran.status, 0, "{}", made.ran.stderr);
    let weights = made.weights();
    assert!(weights.keys().all(|key| !key.contains(".h.1.")), "a layer too many");
    for words in [
        "encoder configs of type \"vit\" have no \"hiden\"",
        "the top level of a config has no \"hidden_size\"",
        "decoder: left in its checkpoint",
    ] {
        assert!(made.ran.stderr.contains(words), "{words}: {}", made.ran.stderr);
    }
}

#[test]
fn a_bart_with_a_deep_decoder_gets_room_in_the_reference_s_cache() {
    let sizes = [
        "decoder.d_model=32",
        "decoder.decoder_attention_heads=2",
        "decoder.decoder_ffn_dim=24",
        "decoder.encoder_layers=1",
        "decoder.decoder_layers=3",
    ];
    let made = init("vit", "bart", "vit-bart", &[SMALL, &sizes].concat(), &[]);
    assert_eq!(made.ran.status, 0, "{}", made.ran.stderr);
    assert_eq!(made.json("config.json")["decoder"]["encoder_layers"], 3);
    assert!(made.ran.stderr.contains("raised from 1 to 3"), "{}", made.ran.stderr);
}

/// The id of a token that special_tokens_map.json of a golden case names.
fn id_of(case: &str, name: &str) -> Value {
    let special = read_json(&golden(case).join("special_tokens_map.json"));
    let token = special[name].get("content").unwrap_or(&special[name]);
    let tokenizer = read_json(&golden(case).join("tokenizer.json"));
    let added = tokenizer["added_tokens"].as_array().unwrap();
    added.iter().find(|one| one["content"] == *token).unwrap()["id"].clone()
}

#[test]
fn special_ids_come_from_the_tokenizer() {
    let bart: &[&str] = &["decoder.d_model=32", "decoder.decoder_layers=1"];
    let gpt2: &[&str] = &["decoder.n_embd=32", "decoder.n_head=2", "decoder.n_layer=1"];
    let table = [
        ("bert", "vit-bert", TINY_BERT, ["cls_token", "sep_token", "pad_token"]),
        ("roberta", "vit-roberta-fp16", TINY_BERT, ["cls_token", "eos_token", "pad_token"]),
        ("gpt2", "vit-gpt2", gpt2, ["bos_token", "eos_token", "eos_token"]),
        ("bart", "vit-bart", bart, ["eos_token", "eos_token", "pad_token"]),
        ("marian", "vit-marian", bart, ["pad_token", "eos_token", "pad_token"]),
    ];
    for (decoder, case, sizes, [start, end, pad]) in table {
        let made = init("vit", decoder, case, &[SMALL, sizes].concat(), &[]);
        assert_eq!(made.ran.status, 0, "{decoder}: {}", made.ran.stderr);
        let config = made.json("config.json");
        let names = ["decoder_start_token_id", "eos_token_id", "pad_token_id"];
        for (name, token) in names.into_iter().zip([start, end, pad]) {
            assert_eq!(config[name], id_of(case, token), "{decoder} {name}");
            assert_eq!(made.json("generation_config.json")[name], config[name], "{decoder} {name}");
        }
        assert_eq!(config["decoder"]["pad_token_id"], config["pad_token_id"], "{decoder}");
    }
}

/// Mean and deviation of the drawn values: (encoder, decoder, key, deviation). 0 is exactly zero.
const RULES: &[(&str, &str, &str, f64)] = &[
    ("vit", "gpt2", "encoder.encoder.layer.0.intermediate.dense.weight", 0.02),
    ("vit", "gpt2", "encoder.encoder.layer.0.intermediate.dense.bias", 0.0),
    ("vit", "gpt2", "encoder.embeddings.position_embeddings", 0.02),
    ("vit", "gpt2", "decoder.transformer.wte.weight", 0.02),
    // 0.02 / sqrt(2 · n_layer), n_layer = 2
    ("vit", "gpt2", "decoder.transformer.h.0.attn.c_proj.weight", 0.01),
    ("vit", "gpt2", "decoder.transformer.h.1.crossattention.c_proj.weight", 0.01),
    ("vit", "gpt2", "decoder.transformer.h.0.mlp.c_fc.weight", 0.02),
    ("vit", "gpt2", "enc_to_dec_proj.weight", 0.02),
    ("vit", "gpt2", "enc_to_dec_proj.bias", 0.0),
    ("beit", "bert", "encoder.embeddings.cls_token", 0.0),
    ("beit", "bert", "encoder.encoder.layer.1.output.dense.weight", 0.02),
    ("beit", "bert", "decoder.bert.encoder.layer.0.crossattention.self.key.weight", 0.02),
    ("deit", "bert", "encoder.embeddings.position_embeddings", 0.0),
    // in-projections H^-1/2 · (2L)^-1/2 with H = 48, L = 2; fc1 (2H)^-1/2
    (
        "clip_vision_model",
        "bert",
        "encoder.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        0.07217,
    ),
    ("clip_vision_model", "bert", "encoder.vision_model.encoder.layers.0.mlp.fc1.weight", 0.10206),
    // Xavier: sqrt(2 / (48 + 48)), sqrt(2 / (48 + 96)); 1 / sqrt(H) for positions
    (
        "siglip_vision_model",
        "bert",
        "encoder.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        0.14434,
    ),
    (
        "siglip_vision_model",
        "bert",
        "encoder.vision_model.encoder.layers.0.mlp.fc1.weight",
        0.11785,
    ),
    (
        "siglip_vision_model",
        "bert",
        "encoder.vision_model.embeddings.position_embedding.weight",
        0.14434,
    ),
];

#[test]
fn weights_are_drawn_by_their_family_s_rule() {
    let gpt2 = ["decoder.n_embd=64", "decoder.n_head=2", "decoder.n_layer=2"];
    for (encoder, decoder) in [
        ("vit", "gpt2"),
        ("beit", "bert"),
        ("deit", "bert"),
        ("clip_vision_model", "bert"),
        ("siglip_vision_model", "bert"),
    ] {
        let sizes = if decoder == "gpt2" { &gpt2[..] } else { TINY_BERT };
        let made = init(encoder, decoder, "vit-bert", &[SMALL, sizes].concat(), &[]);
        assert_eq!(made.ran.status, 0, "{encoder}: {}", made.ran.stderr);
        let weights = made.weights();
        let rules = RULES.iter().filter(|rule| (rule.0, rule.1) == (encoder, decoder));
        for (_, _, key, expected) in rules {
            let tensor = weights.tensor(key).unwrap();
            let (count, deviation) = (tensor.numel() as f64, number(&tensor.std(false)));
            let mean = number(&tensor.mean(Kind::Float));
            // Five standard errors, and half as much again where the tails are uniform or cut.
            let error = 5.0 * expected / count.sqrt();
            assert!(mean.abs() <= error, "{encoder} {key}: mean {mean}, allowed {error}");
            assert!(
                (deviation - expected).abs() <= error,
                "{encoder} {key}: deviation {deviation}, expected {expected} within {error}"
            );
        }
        if decoder == "bert" {
            let pad = made.json("config.json")["pad_token_id"].as_i64().unwrap();
            let words = weights.tensor("decoder.bert.embeddings.word_embeddings.weight").unwrap();
            assert_eq!(number(&words.get(pad).abs().sum(Kind::Float)), 0.0, "the padding row");
        }
    }
}

fn number(tensor: &Tensor) -> f64 {
    f64::try_from(tensor).unwrap()
}

#[test]
fn an_existing_out_is_kept_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("precious"), "x").unwrap();
    let (name, model) = (out.display().to_string(), path_of("vit-bert"));
    let args = ["init", &name, "--encoder", &model, "--decoder", &model];
    let ran = Vedm::new(&args).run().status(1);
    assert!(ran.stderr.contains("exists already"), "{}", ran.stderr);
    assert!(out.join("precious").exists());
    Vedm::new(&[&args[..], &["--force"]].concat()).run().status(0);
    assert!(!out.join("precious").exists() && out.join("model.safetensors").exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something else is left");
}

#[test]
fn mistakes_are_told_and_leave_nothing() {
    let model = path_of("vit-bert");
    let table: &[(&[&str], &str)] = &[
        (&["--encoder", "vit", "--decoder", "distilbert"], "has no cross-attention"),
        (&["--encoder", "resnet", "--decoder", "bert"], "encoder type \"resnet\" is not supported"),
        (&["--encoder", "tests", "--decoder", "bert"], "\"tests\": \"tests\" has no config.json"),
        (&["--encoder", "vit", "--decoder", "bert"], "name one by --tokenizer"),
        (&["--encoder", "vit", "--decoder", &model, "--set", "x"], "expected NAME=VALUE"),
        (&["--encoder", "vit", "--decoder", &model, "--set", "e.x=1"], "neither encoder nor"),
        (&["--encoder", "vit", "--decoder", &model, "--set", "encoder.hidden_size=50"], "50"),
        (&["--encoder", "vit", "--decoder", &model, "--set", "decoder.vocab_size=9"], "shape"),
        (&["--encoder", "vit", "--decoder", &model, "--set", "model_type=x"], "the type comes"),
    ];
    for (flags, words) in table {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out").display().to_string();
        let ran = Vedm::new(&[&["init", &out][..], flags].concat()).run().status(1);
        assert!(ran.stderr.starts_with("vedm: error: "), "{flags:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{flags:?}: {}", ran.stderr);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{flags:?}");
    }
}

/// Where a decoder's file says null, its class's default must not come back.
#[test]
fn a_null_of_the_decoder_s_file_forces_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bart.json");
    let small = r#""model_type": "bart", "d_model": 32, "decoder_layers": 1, "decoder_ffn_dim": 64,
        "decoder_attention_heads": 2, "encoder_layers": 1"#;
    for (more, expected) in [("", Value::from(2)), (", \"forced_eos_token_id\": null", Value::Null)]
    {
        std::fs::write(&config, format!("{{{small}{more}}}")).unwrap();
        let made = init("vit", &config.display().to_string(), "vit-bert", SMALL, &[]);
        assert_eq!(made.ran.status, 0, "{}", made.ran.stderr);
        let found = |file: &str| made.json(file)["forced_eos_token_id"].clone();
        assert_eq!(made.json("config.json")["decoder"]["forced_eos_token_id"], expected);
        assert_eq!(found("generation_config.json"), expected);
    }
}
