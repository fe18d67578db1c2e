//! `VEDM_...` in the place of flags: when a variable counts, and when it does not.

use std::path::Path;

use crate::support::{Ran, Vedm, folder_of_pictures, golden};

fn caption(folder: &Path, extra: &[&str], variables: &[(&str, &str)]) -> Ran {
    let model = golden("vit-bert").display().to_string();
    let mut args = vec!["caption", "000.png", "--model", &model, "--max-new-tokens", "3"];
    args.extend(extra);
    let run = Vedm::new(&args).dir(folder);
    variables.iter().fold(run, |run, (name, value)| run.env(name, value)).run()
}

#[test]
fn a_typed_flag_beats_the_variable_of_another() {
    let folder = folder_of_pictures(1);
    for word in ["0", "1"] {
        let ran = caption(folder.path(), &["--verbose"], &[("VEDM_QUIET", word)]).status(0);
        assert!(ran.stderr.contains("images a batch"), "{}", ran.stderr);
    }
    let ran = caption(folder.path(), &["--quiet"], &[("VEDM_VERBOSE", "1")]).status(0);
    assert_eq!(ran.stderr, "");
    let both = [("VEDM_QUIET", "no"), ("VEDM_VERBOSE", "yes")];
    assert!(caption(folder.path(), &[], &both).status(0).stderr.contains("images a batch"));
    let ran =
        caption(folder.path(), &["--stream", "--num-beams", "1"], &[("VEDM_FORMAT", "jsonl")])
            .status(0);
    assert!(!ran.stdout.starts_with('{'), "{}", ran.stdout);
    // Two flags are two wishes.
    let ran = caption(folder.path(), &["--quiet", "--verbose"], &[]).status(1);
    assert!(ran.stderr.contains("cannot be used with"), "{}", ran.stderr);
    // The data are missing, and that is all that is wrong.
    let args =
        ["train", "--model", "x", "--output", "y", "--data", "no.csv", "--eval-data", "z.csv"];
    let ran = Vedm::new(&args).dir(folder.path()).env("VEDM_EVAL_SPLIT", "0.1").run().status(1);
    assert!(!ran.stderr.contains("cannot be used with"), "{}", ran.stderr);
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let folder = folder_of_pictures(1);
    let expected = caption(folder.path(), &[], &[]).status(0).stdout;
    let names =
        "NUM_BEAMS FORMAT OUTPUT QUIET DO_SAMPLE DEVICE PROMPT THREADS SIDECAR REVISION BAD_WORDS";
    for name in names.split(' ') {
        let ran = caption(folder.path(), &[], &[(&format!("VEDM_{name}"), "")]).status(0);
        assert_eq!(ran.stdout, expected, "{name}");
    }
}

#[test]
fn yes_and_no_have_many_words_wherever_they_are_asked_for() {
    let folder = folder_of_pictures(1);
    for name in ["VEDM_DO_SAMPLE", "VEDM_RENORMALIZE_LOGITS"] {
        for word in ["1", "yes", "on", "true", "0", "no", "off", "false"] {
            caption(folder.path(), &[], &[(name, word)]).status(0);
        }
        caption(folder.path(), &[], &[(name, "perhaps")]).status(1);
    }
}

/// VEDM_DTYPE and VEDM_FORMAT have other values in other commands.
#[test]
fn a_value_for_another_command_is_passed_over() {
    let folder = folder_of_pictures(1);
    let expected = caption(folder.path(), &[], &[]).status(0).stdout;
    // The form of a report of `eval`.
    assert_eq!(caption(folder.path(), &[], &[("VEDM_FORMAT", "json")]).status(0).stdout, expected);
    let ran = caption(folder.path(), &[], &[("VEDM_FORMAT", "yaml")]).status(1);
    assert!(ran.stderr.contains("invalid value 'yaml' for '--format"), "{}", ran.stderr);
    let ran = caption(folder.path(), &["--format", "json"], &[]).status(1);
    assert!(ran.stderr.contains("invalid value 'json' for '--format"), "{}", ran.stderr);

    let model = golden("vit-bert").display().to_string();
    let out = folder.path().join("out").display().to_string();
    let convert = |dtype: &str| {
        let args = ["convert", &model, &out, "--force"];
        Vedm::new(&args).env("VEDM_DTYPE", dtype).env("VEDM_TO", "pytorch").run()
    };
    convert("int8").status(0);
    let bytes = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
    let whole = bytes("out/pytorch_model.bin");
    convert("bf16").status(0);
    assert!(bytes("out/pytorch_model.bin") < whole);
    convert("int7").status(1);
}

#[test]
fn the_halves_of_a_new_model_come_from_variables_too() {
    let folder = folder_of_pictures(1);
    let halves = golden("vit-bert").display().to_string();
    let ran = Vedm::new(&["init", "out"])
        .dir(folder.path())
        .env("VEDM_ENCODER", &halves)
        .env("VEDM_DECODER", &halves)
        .env("VEDM_TOKENIZER", &halves)
        .env("VEDM_IMAGE_PROCESSOR", &halves)
        .env("VEDM_SET", "encoder.hidden_dropout_prob=0.25")
        .env("VEDM_DTYPE", "int8")
        .run()
        .status(0);
    assert!(ran.stderr.contains("vit encoder, bert decoder"), "{}", ran.stderr);
    let config = std::fs::read_to_string(folder.path().join("out/config.json")).unwrap();
    assert!(config.contains("\"hidden_dropout_prob\": 0.25"), "{config}");
}
