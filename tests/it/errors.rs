//! Each mistake a user can make, and the sentence that answers it.

use std::path::Path;

use serde_json::{Value, json};
use vedm::checkpoint::{Checkpoint, write_safetensors};

use crate::support::{Vedm, copy_of, golden, pictures};

const MODEL: &str = "vit-gpt2";

/// Runs `caption` on a good picture with this model and extra arguments.
fn caption(model: &Path, extra: &[&str]) -> crate::support::Ran {
    let model = model.display().to_string();
    let picture = pictures(MODEL)[0].display().to_string();
    let mut args = vec!["caption", "--model", &model, "--max-new-tokens", "2", &picture];
    args.extend(extra);
    Vedm::new(&args).run()
}

/// Status 1, one line on standard error, and these words in it.
#[track_caller]
fn refused(ran: crate::support::Ran, words: &[&str]) {
    let ran = ran.status(1);
    assert_eq!(ran.stderr.lines().count(), 1, "one sentence, not\n{}", ran.stderr);
    assert!(ran.stderr.starts_with("vedm: error: "), "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing in {}", ran.stderr);
    }
    assert_eq!(ran.stdout, "");
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

fn edit_weights(dir: &Path, edit: impl FnOnce(&mut Vec<(String, tch::Tensor)>)) {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let keys: Vec<String> = checkpoint.keys().map(str::to_string).collect();
    let mut tensors: Vec<_> =
        keys.into_iter().map(|key| (key.clone(), checkpoint.tensor(&key).unwrap())).collect();
    drop(checkpoint);
    edit(&mut tensors);
    write_safetensors(&dir.join("model.safetensors"), &tensors, &[]).unwrap();
}

#[test]
fn a_missing_tensor_is_named() {
    let copy = copy_of(MODEL);
    edit_weights(copy.path(), |tensors| tensors.retain(|(key, _)| key != "encoder.layernorm.bias"));
    refused(caption(copy.path(), &[]), &["1 tensor is missing", "\"encoder.layernorm.bias\""]);
}

#[test]
fn a_left_over_tensor_is_named() {
    let copy = copy_of(MODEL);
    edit_weights(copy.path(), |tensors| {
        tensors.push(("decoder.mystery.weight".to_string(), tch::Tensor::from_slice(&[1f32])));
    });
    refused(caption(copy.path(), &[]), &["\"decoder.mystery.weight\"", "--allow-unused-tensors"]);
    caption(copy.path(), &["--allow-unused-tensors"]).status(0);
}

#[test]
fn a_misshapen_tensor_is_named() {
    let copy = copy_of(MODEL);
    edit_weights(copy.path(), |tensors| {
        let place = tensors.iter().position(|(key, _)| key == "encoder.layernorm.bias").unwrap();
        tensors[place].1 = tch::Tensor::from_slice(&[1f32, 2.0, 3.0]);
    });
    refused(caption(copy.path(), &[]), &["\"encoder.layernorm.bias\" is [3], the config asks for"]);
}

#[test]
fn a_truncated_file_is_told() {
    let copy = copy_of(MODEL);
    let path = copy.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 4, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        refused(caption(copy.path(), &[]), &["model.safetensors"]);
    }
}

#[test]
fn an_unknown_activation_is_refused_by_name() {
    for (part, field) in [("encoder", "hidden_act"), ("decoder", "activation_function")] {
        let copy = copy_of(MODEL);
        edit_json(&copy.path().join("config.json"), |json| json[part][field] = json!("gelux"));
        refused(caption(copy.path(), &[]), &["activation \"gelux\" is not supported", part]);
    }
}

#[test]
fn unknown_families_are_refused_by_name() {
    let table = [
        ("encoder", "resnet", "encoder type \"resnet\" is not supported"),
        ("decoder", "llama", "\"llama\""),
        ("decoder", "distilbert", "\"distilbert\""),
    ];
    for (part, model_type, words) in table {
        let copy = copy_of(MODEL);
        edit_json(&copy.path().join("config.json"), |json| {
            json[part]["model_type"] = json!(model_type);
        });
        refused(caption(copy.path(), &[]), &[words]);
    }
}

#[test]
fn a_config_that_is_none_is_told() {
    let copy = copy_of(MODEL);
    let path = copy.path().join("config.json");
    std::fs::write(&path, "{ not json").unwrap();
    refused(caption(copy.path(), &[]), &["config.json", "not valid JSON"]);
    std::fs::write(&path, r#"{"model_type": "blip"}"#).unwrap();
    refused(caption(copy.path(), &[]), &["BLIP", "not a \"vision-encoder-decoder\""]);
    std::fs::remove_file(&path).unwrap();
    refused(caption(copy.path(), &[]), &["config.json"]);
}

#[test]
fn wrong_flags_are_refused() {
    let model = golden(MODEL);
    let table: &[(&[&str], &[&str])] = &[
        (&["--num-beams", "0"], &["num_beams"]),
        (&["--do-sample", "--top-p", "1.5"], &["top_p"]),
        (&["--num-return-sequences", "3", "--num-beams", "2"], &["num_return_sequences"]),
        (&["--device", "cuda:7"], &["--device cuda"]),
        (&["--threads", "0"], &["--threads 0"]),
        (&["--exponential-decay-length-penalty", "x"], &["expected START,FACTOR"]),
    ];
    for (extra, words) in table {
        refused(caption(&model, extra), words);
    }
    let unknown = Vedm::new(&["caption", "--no-such-flag", "a.png"]).run().status(1);
    assert!(unknown.stderr.contains("--no-such-flag"));
}

/// `clap` refuses the value of a flag: status 1, and these words.
#[track_caller]
fn value_refused(extra: &[&str], words: &str) {
    let ran = caption(&golden(MODEL), extra).status(1);
    assert!(ran.stderr.contains(words), "{extra:?}: {}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn numbers_that_are_none_are_refused() {
    let flags = "length-penalty repetition-penalty temperature top-p min-p typical-p epsilon-cutoff \
                 eta-cutoff diversity-penalty penalty-alpha max-time";
    for flag in flags.split(' ').filter(|flag| !flag.is_empty()) {
        for word in ["nan", "inf", "-inf", "x"] {
            let extra = format!("--{flag}={word}");
            value_refused(&[&extra], "expected a finite number");
        }
    }
    let decay = ["--exponential-decay-length-penalty", "2,nan"];
    refused(caption(&golden(MODEL), &decay), &["expected START,FACTOR"]);
}

#[test]
fn numbers_out_of_bounds_are_told_as_such() {
    for (flag, value) in [("--num-beams", "1001"), ("--num-return-sequences", "100000")] {
        value_refused(&[flag, value], "expected a number from 1 to 1000");
    }
    value_refused(&["--threads", "1025"], "expected a number from 1 to 1024");
    // A minus is no flag.
    value_refused(&["--threads", "-1"], "expected a number from 1 to 1024");
    for (flag, word) in [("--max-time", "max_time"), ("--top-k", "top_k")] {
        refused(caption(&golden(MODEL), &[flag, "-1", "--do-sample"]), &[word]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_standard_error_that_takes_nothing_changes_no_status() {
    let folder = tempfile::tempdir().unwrap();
    let (model, picture) = (golden(MODEL).display().to_string(), &pictures(MODEL)[0]);
    let picture = picture.display().to_string();
    let out = folder.path().join("out").display().to_string();
    // A warning about the length, failures, refusals; what commands tell at their end.
    let table: &[(&[&str], i32)] = &[
        (&["caption", &picture, "--model", &model, "--max-new-tokens", "100000", "--verbose"], 0),
        (&["caption", &picture, "missing.png", "--model", &model, "--max-new-tokens", "2"], 2),
        (&["convert", &model, &out, "--force"], 0),
        (&["caption", &picture, "--model", "no-such-model"], 1),
        (&["caption", &picture, "--model", &model, "--num-beams", "0"], 1),
        (&["caption", &picture, "--no-such-flag"], 1),
        (&["caption", "\u{1b}", "--no-such-flag"], 1),
        (&["init", &out, "--encoder", &model, "--decoder", &model, "--force"], 0),
    ];
    for (args, status) in table {
        for pipe in [false, true] {
            let (found, _) = Vedm::new(args).run_unheard(pipe);
            assert_eq!(found, *status, "{args:?}");
        }
    }
}

#[test]
fn wrong_inputs_fail_alone() {
    let folder = tempfile::tempdir().unwrap();
    let huge = folder.path().join("huge.png");
    std::fs::write(&huge, png_header(60_000, 60_000)).unwrap();
    let cut = folder.path().join("cut.png");
    let whole = std::fs::read(&pictures(MODEL)[0]).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let empty = folder.path().join("empty.jpg");
    std::fs::write(&empty, "").unwrap();
    let model = golden(MODEL).display().to_string();
    for (path, words) in
        [(&huge, "--max-image-mpixels"), (&cut, "cut.png: "), (&empty, "not an image")]
    {
        let path = path.display().to_string();
        let ran = Vedm::new(&["caption", "--model", &model, &path]).run().status(2);
        assert_eq!(ran.stdout, "");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words:?} is missing in {}", ran.stderr);
    }
}

#[test]
fn wrong_runs_do_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden(MODEL).display().to_string();
    let empty = folder.path().display().to_string();
    refused(
        Vedm::new(&["caption", "--model", &model, &empty]).run(),
        &["no images in the directory"],
    );
    let none = folder.path().join("none").display().to_string();
    refused(Vedm::new(&["caption", "--model", &none, "a.png"]).run(), &["model"]);
    refused(
        Vedm::new(&["ocr", "--model", "trocr-base-handwriten", "a.png"]).run(),
        &["did you mean \"trocr-base-handwritten\"?"],
    );
    refused(
        Vedm::new(&["caption", "a.png"]).env("HF_HOME", folder.path()).run(),
        &["nlpconnect/vit-gpt2-image-captioning"],
    );
}

/// A PNG that claims a size and holds no pixels to speak of.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = width.to_be_bytes().to_vec();
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(png_chunk(b"IHDR", &header));
    png.extend(png_chunk(b"IDAT", &[0x78, 0x9c, 0x63, 0x00, 0x00]));
    png
}

fn png_chunk(name: &[u8], data: &[u8]) -> Vec<u8> {
    let chunk = [name, data].concat();
    let mut crc = !0u32;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length[..], &chunk, &(!crc).to_be_bytes()].concat()
}
