//! `caption`, `ocr` and `doctor` as a user runs them.

use serde_json::Value;

use crate::support::{Vedm, copy_of, golden, pictures};

const MODEL: &str = "vit-gpt2";

fn model() -> String {
    golden(MODEL).display().to_string()
}

fn names() -> Vec<String> {
    pictures(MODEL).iter().map(|path| path.display().to_string()).collect()
}

/// The reference's texts for greedy search of so many new tokens.
fn expected_texts() -> (i64, Vec<String>) {
    let text = std::fs::read_to_string(golden(MODEL).join("expected.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    for one in json["generations"].as_array().unwrap() {
        let flags = one["flags"].as_object().unwrap();
        if let (1, Some(tokens)) = (flags.len(), flags.get("max_new_tokens")) {
            let texts = serde_json::from_value(one["texts"].clone()).unwrap();
            return (tokens.as_i64().unwrap(), texts);
        }
    }
    panic!("{MODEL} has no plain greedy case")
}

#[test]
fn one_image_gives_its_text_alone() {
    let (tokens, texts) = expected_texts();
    let (tokens, names) = (tokens.to_string(), names());
    let ran = Vedm::new(&["caption", "--model", &model(), "--max-new-tokens", &tokens, &names[0]])
        .run()
        .status(0);
    assert_eq!(ran.stdout, format!("{}\n", texts[0]));
    assert_eq!(ran.stderr, "");
}

#[test]
fn without_a_start_token_the_text_begins_with_bos() {
    let (tokens, texts) = expected_texts();
    let copy = copy_of(MODEL);
    for file in ["config.json", "generation_config.json"] {
        let path = copy.path().join(file);
        let mut json: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        json.as_object_mut().unwrap().remove("decoder_start_token_id");
        if let Some(decoder) = json.get_mut("decoder").and_then(Value::as_object_mut) {
            decoder.remove("decoder_start_token_id");
        }
        std::fs::write(&path, json.to_string()).unwrap();
    }
    let model = copy.path().display().to_string();
    let names = names();
    let args = ["caption", "--model", &model, "--max-new-tokens", &tokens.to_string(), &names[0]];
    assert_eq!(Vedm::new(&args).run().status(0).stdout, format!("{}\n", texts[0]));
}

#[test]
fn several_images_give_lines_in_their_order() {
    let (tokens, texts) = expected_texts();
    let (tokens, names, model) = (tokens.to_string(), names(), model());
    let mut args =
        vec!["caption", "--model", &model, "--max-new-tokens", &tokens, "--batch-size", "2"];
    args.extend(names.iter().map(String::as_str));
    let ran = Vedm::new(&args).run().status(0);
    let escape = |text: &String| text.replace('\\', "\\\\").replace('\n', "\\n");
    let expected: Vec<String> = names
        .iter()
        .zip(&texts)
        .map(|(name, text)| format!("{name}\t{}\n", escape(text)))
        .collect();
    assert_eq!(ran.stdout, expected.concat());
}

#[test]
fn a_bad_file_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.png");
    std::fs::write(&text, "this is no picture").unwrap();
    let missing = folder.path().join("missing.png").display().to_string();
    let (names, text) = (names(), text.display().to_string());
    let args = [
        "caption",
        "--model",
        &model(),
        "--format",
        "jsonl",
        "--max-new-tokens",
        "4",
        &text,
        &names[0],
        &missing,
        &names[1],
    ];
    let ran = Vedm::new(&args).run().status(2);
    let records: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let images: Vec<&str> =
        records.iter().map(|record| record["image"].as_str().unwrap()).collect();
    assert_eq!(images, [&text, &names[0], &missing, &names[1]]);
    assert!(records[0]["error"].as_str().unwrap().starts_with("not an image"));
    assert_eq!(records[2]["error"], "no such file");
    assert!(records[1]["text"].is_string() && records[3]["text"].is_string());
    assert!(ran.stderr.contains(&format!("vedm: {missing}: no such file\n")), "{}", ran.stderr);
}

#[test]
fn records_hold_what_was_asked_for() {
    let names = names();
    let args = [
        "caption",
        "--model",
        &model(),
        "--format",
        "jsonl",
        "--details",
        "--num-beams",
        "2",
        "--num-return-sequences",
        "2",
        "--max-new-tokens",
        "5",
        &names[0],
    ];
    let ran = Vedm::new(&args).run().status(0);
    let record: Value = serde_json::from_str(&ran.stdout).unwrap();
    let sequences = record["sequences"].as_array().unwrap();
    assert_eq!(sequences.len(), 2);
    assert_eq!(sequences[0]["text"], record["text"]);
    let ids = record["token_ids"].as_array().unwrap().len();
    assert_eq!(record["new_tokens"], ids);
    assert_eq!(record["tokens"].as_array().unwrap().len(), ids);
    let logprobs: Vec<f64> = serde_json::from_value(record["token_logprobs"].clone()).unwrap();
    let mean = logprobs.iter().sum::<f64>() / logprobs.len() as f64;
    assert!((record["confidence"].as_f64().unwrap() - mean.exp()).abs() < 1e-4);
    assert!(record["sequences_score"].as_f64().unwrap() <= 0.0);
    assert!(["eos", "length"].contains(&record["finish_reason"].as_str().unwrap()));
    assert!(record["width"].as_u64().unwrap() > 0 && record["ms"].as_f64().unwrap() >= 0.0);
}

#[test]
fn an_image_comes_by_standard_input() {
    let (tokens, texts) = expected_texts();
    let bytes = std::fs::read(&pictures(MODEL)[0]).unwrap();
    let args = ["caption", "--model", &model(), "--max-new-tokens", &tokens.to_string(), "-"];
    let ran = Vedm::new(&args).stdin(&bytes).run().status(0);
    assert_eq!(ran.stdout, format!("{}\n", texts[0]));
}

#[test]
fn a_directory_is_its_images_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let picture = std::fs::read(&pictures(MODEL)[0]).unwrap();
    for name in ["b.png", "a", ".hidden.png", "inner/c.png"] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &picture).unwrap();
    }
    std::fs::write(folder.path().join("notes.txt"), "no picture").unwrap();
    let model = model();
    let args = |extra: &[&str]| {
        let mut args = vec!["caption", "--model", &model, "--max-new-tokens", "2", "."];
        args.extend(extra);
        Vedm::new(&args).dir(folder.path()).run().status(0).stdout
    };
    let listed = |stdout: String| -> Vec<String> {
        stdout.lines().map(|line| line.split('\t').next().unwrap().to_string()).collect()
    };
    assert_eq!(listed(args(&[])), ["./a", "./b.png"]);
    assert_eq!(listed(args(&["--recursive"])), ["./a", "./b.png", "./inner/c.png"]);
}

#[test]
fn flags_come_from_the_environment_too() {
    let names = names();
    let by_flag =
        Vedm::new(&["caption", "--model", &model(), "--max-new-tokens", "3", &names[0]]).run();
    let by_variable = Vedm::new(&["caption", &names[0]])
        .env("VEDM_MODEL", model())
        .env("VEDM_MAX_NEW_TOKENS", "3")
        .run()
        .status(0);
    assert_eq!(by_flag.status(0).stdout, by_variable.stdout);
}

#[test]
fn sampling_is_reproducible_and_the_batch_does_not_matter() {
    let (model, names) = (model(), names());
    let run = |seed: &str, batch: &str| {
        let mut args = vec!["caption", "--model", &model, "--do-sample", "--max-new-tokens", "12"];
        args.extend(["--seed", seed, "--batch-size", batch]);
        args.extend(names.iter().map(String::as_str));
        Vedm::new(&args).run().status(0).stdout
    };
    let first = run("1", "8");
    assert_eq!(first, run("1", "8"));
    assert_eq!(first, run("1", "1"));
    assert_ne!(first, run("2", "8"));
}

#[test]
fn results_go_to_a_file_in_the_form_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl").display().to_string();
    let names = names();
    let args = ["caption", "--model", &model(), "--max-new-tokens", "2", "-o", &path, &names[0]];
    let ran = Vedm::new(&args).run().status(0);
    assert_eq!(ran.stdout, "");
    let record: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(record["image"].as_str().unwrap(), names[0]);
}

#[test]
fn the_doctor_looks_at_a_model() {
    let ran = Vedm::new(&["doctor", "--model", &model()]).run().status(0);
    for expected in ["libtorch    2.11.0", "cuda ", "vit encoder, gpt2 decoder", "sound:"] {
        assert!(ran.stdout.contains(expected), "{expected} is missing in\n{}", ran.stdout);
    }
    let damaged = copy_of(MODEL);
    std::fs::remove_file(damaged.path().join("model.safetensors")).unwrap();
    Vedm::new(&["doctor", "--model", &damaged.path().display().to_string()]).run().status(1);
}

#[test]
fn a_closed_pipe_is_quiet() {
    use std::io::Read;
    let (model, names) = (model(), names());
    let caption = ["caption", "--model", &model, "--max-new-tokens", "2", &names[0], &names[1]];
    let doctor = ["doctor", "--model", &model];
    for args in [&caption[..], &doctor[..]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vedm"));
        let (out, err) = (std::process::Stdio::piped(), std::process::Stdio::piped());
        let mut child = command.args(args).stdout(out).stderr(err).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn help_fits_a_screen_and_version_is_told() {
    for command in ["caption", "ocr"] {
        let short = Vedm::new(&[command, "-h"]).run().status(0).stdout;
        assert!(short.lines().count() <= 45, "{command} -h has {} lines", short.lines().count());
        let long = Vedm::new(&[command, "--help"]).run().status(0).stdout;
        assert!(long.contains("--eta-cutoff") && long.contains("VEDM_NUM_BEAMS"));
    }
    let version = Vedm::new(&["--version"]).run().status(0).stdout;
    assert_eq!(version, format!("vedm {}\n", env!("CARGO_PKG_VERSION")));
}

/// Whoever looks at the arguments first, one of the two tells what is wrong with them.
#[test]
fn mistakes_are_told_once() {
    for _ in 0..8 {
        let ran = Vedm::new(&["caption", "--dtype", "f8"]).run().status(1);
        assert_eq!(ran.stderr.matches("invalid value 'f8'").count(), 1, "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    // Variables are part of the command line.
    let ran = Vedm::new(&["caption", "x.png"]).env("VEDM_DTYPE", "f8").run().status(1);
    assert_eq!(ran.stderr.matches("invalid value 'f8'").count(), 1, "{}", ran.stderr);
}

/// A file that the program opens never takes the place of a stream that was closed.
#[test]
#[cfg(unix)]
fn streams_may_be_closed() {
    let (program, model, picture) = (env!("CARGO_BIN_EXE_vedm"), model(), &names()[0]);
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let line =
            format!("exec {program:?} caption --quiet --model {model:?} {picture:?} {closed}");
        let ran = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{line}: {ran:?}");
        assert_eq!(
            ran.stdout.is_empty(),
            closed.contains(">&-") && !closed.starts_with('2'),
            "{line}"
        );
    }
}
