//! `vedm convert` as a user runs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use tch::{Kind, Tensor};
use vedm::checkpoint::Checkpoint;

use crate::support::{Ran, Vedm, copy_of, golden, pictures};

/// Checkpoints of one file and of shards, of both number types, with tied, shared and spare tensors.
const CASES: &[&str] = &["vit-gpt2", "deit-bert-sharded", "vit-roberta-fp16", "donut-swin-mbart"];

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn convert(input: &Path, out: &Path, flags: &[&str]) -> Ran {
    let (input, out) = (text(input), text(out));
    let args = [&["convert", &input, &out][..], flags].concat();
    // The tests' own type is for reading; files keep theirs.
    Vedm::new(&args).without("VEDM_DTYPE").run()
}

fn tensors(dir: &Path) -> BTreeMap<String, Tensor> {
    let file = Checkpoint::open(dir).unwrap();
    file.keys().map(|key| (key.to_string(), file.tensor(key).unwrap())).collect()
}

#[track_caller]
fn assert_same(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (key, tensor) in expected {
        assert!(found[key].kind() == tensor.kind() && found[key] == *tensor, "{what}: {key}");
    }
}

/// Every file's length and time of change.
fn look(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let data = entry.metadata().unwrap();
            (entry.path(), (data.len(), data.modified().unwrap()))
        })
        .collect()
}

#[test]
fn every_format_becomes_every_other_and_comes_back() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let before = look(&golden(case));
        let steps: &[(&str, &str, &[&str], &str)] = &[
            ("", "safe", &[], "model.safetensors"),
            ("safe", "bin", &["--to", "pytorch"], "pytorch_model.bin"),
            ("bin", "shards", &["--max-shard-size", "20KB"], "model.safetensors.index.json"),
            (
                "shards",
                "bins",
                &["--max-shard-size", "20KB", "--to", "pytorch"],
                "pytorch_model.bin.index.json",
            ),
            ("bins", "again", &[], "model.safetensors"),
        ];
        for (from, to, flags, file) in steps {
            let input = if from.is_empty() { golden(case) } else { at(from) };
            let ran = convert(&input, &at(to), &[flags, &["--verify"][..]].concat()).status(0);
            // Some CPUs round a product by where its matrices lie in memory.
            let told = "verified: every tensor is equal; logits of one image differ by ";
            let apart = ran.stderr.split_once(told).and_then(|(_, rest)| rest.lines().next());
            let apart: f64 = apart.and_then(|number| number.parse().ok()).unwrap_or(f64::NAN);
            assert!(apart < 1e-5, "{case} {to}: {}", ran.stderr);
            assert_eq!(ran.stdout, "");
            assert!(at(to).join(file).is_file(), "{case} {to}");
            let shard = at(to).join(file.replace(".index.json", ""));
            assert!(!file.contains("index") || !shard.exists(), "{case} {to}: one file too many");
        }
        assert_same(&tensors(&at("again")), &tensors(&at("safe")), case);
        assert_eq!(look(&golden(case)), before, "{case} was changed");
        let old = tensors(&golden(case));
        for (key, tensor) in tensors(&at("safe")) {
            assert!(old[&key] == tensor && old[&key].kind() == tensor.kind(), "{case} {key}");
        }
    }
}

#[test]
fn number_types_change_and_the_config_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let table = [("bf16", Kind::BFloat16, "bfloat16"), ("f16", Kind::Half, "float16")];
    for (flag, kind, name) in table {
        let out = folder.path().join(flag);
        convert(&golden("swin-gpt2"), &out, &["--dtype", flag, "--verify"]).status(0);
        let old = tensors(&golden("swin-gpt2"));
        for (key, tensor) in tensors(&out) {
            let wanted = if old[&key].is_floating_point() { kind } else { old[&key].kind() };
            assert_eq!(tensor.kind(), wanted, "{key}");
            assert!(tensor == old[&key].to_kind(wanted), "{key}");
        }
        let config = std::fs::read_to_string(out.join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        let said: Vec<&Value> =
            ["dtype", "torch_dtype"].iter().filter_map(|key| config.get(*key)).collect();
        assert!(!said.is_empty() && said.iter().all(|said| *said == name), "{said:?}");
    }
}

#[test]
fn shared_tensors_are_written_once_in_safetensors_and_under_both_names_in_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, safe) = (folder.path().join("bin"), folder.path().join("safe"));
    convert(&golden("vit-gpt2"), &bin, &["--to", "pytorch"]).status(0);
    let ran = convert(&bin, &safe, &[]).status(0);
    assert!(ran.stderr.contains("  decoder.lm_head.weight"), "{}", ran.stderr);
    let head = "decoder.lm_head.weight";
    let (bin, safe) = (tensors(&bin), tensors(&safe));
    assert!(bin[head] == bin["decoder.transformer.wte.weight"]);
    assert!(!safe.contains_key(head) && safe.contains_key("decoder.transformer.wte.weight"));
}

#[test]
fn split_and_merge_give_the_model_back() {
    for (case, format) in
        [("vit-gpt2", "safetensors"), ("swin-gpt2", "pytorch"), ("vit-roberta-fp16", "safetensors")]
    {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let ran = convert(&golden(case), &at("parts"), &["--split", "--to", format, "--verify"]);
        assert!(ran.status(0).stderr.contains("verified: every tensor is equal"));
        let halves = (text(&at("parts/encoder")), text(&at("parts/decoder")));
        let whole = text(&at("whole"));
        Vedm::new(&["convert", "--merge", &halves.0, &halves.1, &whole, "--verify"])
            .without("VEDM_DTYPE")
            .run()
            .status(0);
        convert(&golden(case), &at("safe"), &[]).status(0);
        assert_same(&tensors(&at("whole")), &tensors(&at("safe")), case);

        let picture = text(&pictures(case)[0]);
        let read = |model: &Path| {
            Vedm::new(&["caption", "--model", &text(model), &picture]).run().status(0).stdout
        };
        assert_eq!(read(&at("whole")), read(&golden(case)), "{case}");
        for (half, kind) in [("encoder", "preprocessor_config.json"), ("decoder", "tokenizer.json")]
        {
            assert!(at("parts").join(half).join(kind).exists(), "{case} {half}");
        }
    }
}

#[test]
fn strangers_are_joined_with_a_word_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    convert(&golden("vit-bert"), &at("a"), &["--split"]).status(0);
    convert(&golden("vit-gpt2"), &at("b"), &["--split"]).status(0);
    let (encoder, decoder) = (text(&at("a/encoder")), text(&at("b/decoder")));
    let out = text(&at("c"));
    let ran = Vedm::new(&["convert", "--merge", &encoder, &decoder, &out]).run().status(0);
    assert!(ran.stderr.contains("no special ids yet"), "{}", ran.stderr);
    let (joined, decoder) = (tensors(&at("c")), tensors(&at("b/decoder")));
    for (key, tensor) in decoder {
        assert!(joined[&format!("decoder.{key}")] == tensor, "{key}");
    }
}

#[test]
fn companions_travel_and_weights_do_not() {
    let input = copy_of("vit-gpt2-old-files");
    for name in ["README.md", "optimizer.pt", "rust_model.ot.bin"] {
        std::fs::write(input.path().join(name), "x").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    convert(input.path(), &out, &[]).status(0);
    for (name, there) in [
        ("README.md", true),
        ("preprocessor_config.json", true),
        ("tokenizer.json", true),
        ("optimizer.pt", false),
        ("rust_model.ot.bin", false),
        ("pytorch_model.bin", false),
    ] {
        assert_eq!(out.join(name).exists(), there, "{name}");
    }
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let nest = tempfile::tempdir().unwrap();
    let input = nest.path().join("input");
    std::fs::rename(copy_of("vit-bert").keep(), &input).unwrap();
    let before = look(&input);
    let (dir, above) = (text(&input), text(nest.path()));
    let (inside, missing) = (text(&input.join("out")), text(&input.join("missing")));
    let table: &[(&[&str], &str)] = &[
        (&[&dir, &dir, "--force"], "is the input itself"),
        (&[&dir, &inside], "lies inside the input"),
        (&[&dir, &above, "--force"], "which would be replaced"),
        (&[&missing, "out"], "no model"),
        (&[&dir], "takes two directories"),
        (&[&dir, "out", "--max-shard-size", "huge"], "is no size"),
        (&[&dir, "/proc/out"], "/proc"),
        (&["--merge", &dir, &missing, "out"], "missing"),
    ];
    for (flags, words) in table {
        let folder = tempfile::tempdir().unwrap();
        let ran = Vedm::new(&[&["convert"], *flags].concat()).dir(folder.path()).run().status(1);
        assert!(ran.stderr.contains(words), "{flags:?}: {}", ran.stderr);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{flags:?}");
    }
    assert_eq!(look(&input), before);
}

#[test]
fn incomplete_inputs_are_named() {
    for (file, words) in [("config.json", "config.json"), ("model.safetensors", "holds no weights")]
    {
        let input = copy_of("vit-bert");
        std::fs::remove_file(input.path().join(file)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ran = convert(input.path(), &folder.path().join("out"), &[]).status(1);
        assert!(ran.stderr.contains(words), "{file}: {}", ran.stderr);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// A file may grow to a few KiB: the disk is full (the signal is ignored), or the run is killed by it.
#[cfg(target_os = "linux")]
#[test]
fn full_disks_and_killed_runs_leave_nothing_that_looks_whole() {
    for (trap, killed) in [("trap '' XFSZ;", false), ("", true)] {
        for flags in ["", "--to pytorch", "--split", "--max-shard-size 20KB"] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let line = format!("{trap} ulimit -f 8; exec \"$0\" convert \"$1\" \"$2\" {flags}");
            let program = env!("CARGO_BIN_EXE_vedm");
            let ran = std::process::Command::new("sh")
                .args(["-c", &line, program, &text(&golden("vit-gpt2")), &text(&out)])
                .output()
                .unwrap();
            assert_eq!(ran.status.code(), if killed { None } else { Some(1) }, "{flags}");
            let names: Vec<String> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            let hidden = |name: &String| name.starts_with(".vedm-") && name.contains("unfinished");
            assert!(names.iter().all(hidden), "{flags}: {names:?}");
            assert_eq!(names.is_empty(), !killed, "{flags}: {names:?}");
            let error = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert!(killed || error.starts_with("vedm: error: "), "{flags}: {error}");
            // The next run takes away what is left.
            convert(&golden("vit-gpt2"), &out, &[]).status(0);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{flags}");
        }
    }
}

/// Whatever is written meanwhile, an interrupt leaves nothing.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing() {
    for command in ["convert", "init"] {
        let folder = tempfile::tempdir().unwrap();
        let (model, out) = (text(&golden("vit-gpt2")), text(&folder.path().join("out")));
        // Some hundred megabytes of small shards.
        let large = "decoder.n_layer=60";
        let args =
            ["init", "large", "--encoder", "vit", "--decoder", "gpt2", "--tokenizer", &model];
        let sizes = ["--set", large, "--set", "decoder.n_embd=192", "--set", "decoder.n_head=4"];
        let source = tempfile::tempdir().unwrap();
        let all = [&args[..], &sizes].concat();
        let mut line = Vec::new();
        if command == "convert" {
            Vedm::new(&all).dir(source.path()).run().status(0);
            let input = text(&source.path().join("large"));
            line.extend(["convert".to_string(), input, out.clone(), "--verify".to_string()]);
        } else {
            line.extend(all.iter().map(|arg| arg.replace("large", &out)));
        }
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_vedm"))
            .args(&line)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        while names() == 0 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let pid = child.id().to_string();
        std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let status = child.wait().unwrap().code();
        assert!(status == Some(130), "{command}: {status:?}");
        assert_eq!(names(), 0, "{command}");
    }
}

/// Both values stay, so the config that is written must not tie them: else its readers would drop one.
#[test]
fn halves_that_differ_are_saved_untied() {
    let input = copy_of("vit-gpt2");
    let mut all = tensors(input.path());
    let embedding = &all["decoder.transformer.wte.weight"];
    let head = embedding + embedding.ones_like();
    all.insert("decoder.lm_head.weight".to_string(), head.copy());
    let all: Vec<(String, Tensor)> = all.into_iter().collect();
    vedm::checkpoint::save_safetensors(input.path(), &all, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let ran = convert(input.path(), &out, &["--verify"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("differ although the config ties them"), "{}", ran.stderr);
    let found = tensors(&out);
    assert_eq!(found["decoder.lm_head.weight"], head);
    let config = std::fs::read_to_string(out.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["decoder"]["tie_word_embeddings"], Value::Bool(false));
}
