//! A run that is killed, interrupted or short of disk goes on as if nothing had happened.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::Vedm;
use crate::train::{eight_lines, fresh_model, metrics};

/// Accumulation that does not divide the epoch, decay, smoothing, evaluations; `more` beats them.
const OPTIONS: &[[&str; 2]] = &[
    ["--max-steps", "24"],
    ["--per-device-train-batch-size", "2"],
    ["--gradient-accumulation-steps", "3"],
    ["--learning-rate", "2e-3"],
    ["--weight-decay", "0.01"],
    ["--label-smoothing-factor", "0.1"],
    ["--save-steps", "1"],
    ["--eval-steps", "5"],
    ["--logging-steps", "4"],
    ["--save-total-limit", "2"],
    ["--device", "cpu"],
    ["--threads", "1"],
];

struct Place {
    folder: TempDir,
    model: String,
    data: String,
}

/// Eight lines, and a model with every kind of dropout.
fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let dropout = [
        "encoder.hidden_dropout_prob=0.1",
        "encoder.attention_probs_dropout_prob=0.1",
        "decoder.dropout=0.2",
        "decoder.attention_dropout=0.1",
        "decoder.activation_dropout=0.1",
        "decoder.decoder_layerdrop=0.2",
    ];
    let model = fresh_model(folder.path(), &dropout);
    let data = eight_lines(folder.path());
    Place { folder, model, data }
}

impl Place {
    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args<'a>(&'a self, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["train", "--model", &self.model, "--data", &self.data, "--output", out];
        args.extend(["--eval-data", &self.data]);
        args.extend(OPTIONS.iter().filter(|[flag, _]| !more.contains(flag)).flatten());
        args.extend(more);
        args
    }

    /// Starts a run and does not wait for it.
    fn start(&self, out: &Path, more: &[&str]) -> Child {
        let out = out.display().to_string();
        Command::new(env!("CARGO_BIN_EXE_vedm"))
            .args(self.args(&out, more))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs to the end.
    fn run(&self, out: &Path, more: &[&str]) -> crate::support::Ran {
        let out = out.display().to_string();
        Vedm::new(&self.args(&out, more)).run()
    }
}

fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("model.safetensors")).unwrap()
}

/// metrics.jsonl without what the clock decides.
fn learnt(out: &Path) -> Vec<Value> {
    let mut lines = metrics(out);
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.retain(|key, _| !key.contains("second"));
    }
    lines
}

/// The newest `checkpoint-N`; its step.
fn newest(out: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(out).ok()?;
    let step = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_prefix("checkpoint-")?.parse().ok()
    };
    entries.flatten().filter_map(step).max()
}

/// Waits until the run has saved a checkpoint of this step, or ended.
fn wait_for(child: &mut Child, out: &Path, step: u64) {
    let start = Instant::now();
    while newest(out).is_none_or(|newest| newest < step) && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint in two minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Moments drawn once: after which checkpoint a run is killed, and how many milliseconds later.
const MOMENTS: &[(u64, u64)] = &[(1, 0), (4, 31), (9, 7), (15, 50), (19, 13)];

#[test]
fn a_killed_run_ends_as_one_that_never_stopped() {
    kill_and_compare(&[], MOMENTS);
}

#[test]
fn so_does_one_that_augments_in_16_bits_and_computes_layers_twice() {
    let more = ["--augment", "ocr", "--dataloader-num-workers", "2", "--fp16"];
    kill_and_compare(&[&more[..], &["--gradient-checkpointing"]].concat(), &MOMENTS[1..4]);
}

fn kill_and_compare(options: &[&str], moments: &[(u64, u64)]) {
    let place = place();
    let straight = place.out("straight");
    place.run(&straight, options).status(0);

    let killed = place.out("killed");
    let mut more = options.to_vec();
    for (step, pause) in moments {
        let mut child = place.start(&killed, &more);
        wait_for(&mut child, &killed, *step);
        std::thread::sleep(Duration::from_millis(*pause));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "killed before the end");
        more = [options, &["--resume-from-checkpoint"]].concat();
    }
    place.run(&killed, &more).status(0);
    assert!(weights(&straight) == weights(&killed), "the weights differ");
    assert_eq!(learnt(&straight), learnt(&killed));
    let left: Vec<String> = std::fs::read_dir(&killed)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "left half written: {left:?}");
}

#[test]
fn an_interrupted_run_saves_and_says_how_to_go_on() {
    let place = place();
    let straight = place.out("straight");
    place.run(&straight, &["--save-steps", "never"]).status(0);
    for signal in ["INT", "TERM"] {
        let out = place.out(signal);
        let mut child = place.start(&out, &["--save-steps", "2"]);
        wait_for(&mut child, &out, 4);
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(130), "{said}");
        assert!(
            said.contains("is saved; the same command with --resume-from-checkpoint"),
            "{said}"
        );
        let step = newest(&out).unwrap();
        assert!(said.contains(&format!("interrupted after step {step} of 24")), "{said}");
        // A checkpoint is a model of its own.
        let model = out.join(format!("checkpoint-{step}")).display().to_string();
        let image = place.folder.path().join("heading.png").display().to_string();
        let read = ["ocr", "--model", &model, "--max-new-tokens", "2", &image];
        Vedm::new(&read).run().status(0);
        place.run(&out, &["--save-steps", "never", "--resume-from-checkpoint"]).status(0);
        assert!(weights(&straight) == weights(&out), "{signal}: the weights differ");
    }
}

#[test]
fn changed_options_are_told_by_name() {
    let place = place();
    let out = place.out("out");
    place.run(&out, &["--max-steps", "2"]).status(0);
    let more = ["--max-steps", "3", "--seed", "7", "--resume-from-checkpoint"];
    let said = place.run(&out, &more).status(0).stderr;
    assert!(said.contains("--max-steps 2 -> 3, --seed 42 -> 7"), "{said}");
    assert!(said.contains("going on after step 2 of 3"), "{said}");
    // A table with other rows is noticed.
    let table = std::fs::read_to_string(&place.data).unwrap();
    std::fs::write(&place.data, table.replace("upside down", "on its head")).unwrap();
    let said = place.run(&out, &["--max-steps", "4", "--resume-from-checkpoint"]).status(0).stderr;
    assert!(said.contains("the data is not the checkpoint's"), "{said}");
}

#[test]
fn damaged_checkpoints_are_passed_over() {
    let place = place();
    let out = place.out("out");
    place.run(&out, &["--max-steps", "3"]).status(0);
    let file = out.join("checkpoint-3/model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let said = place.run(&out, &["--max-steps", "3", "--resume-from-checkpoint"]).status(0).stderr;
    assert!(said.contains("a damaged checkpoint is passed over"), "{said}");
    assert!(said.contains("going on after step 2 of 3"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap().len(), bytes.len());
}

/// A limit on the size of files stands in for a full disk: writing beyond it fails in the same places.
#[test]
fn a_full_disk_spares_the_last_checkpoint() {
    let place = place();
    let out = place.out("out");
    place.run(&out, &["--max-steps", "2"]).status(0);
    let name = out.display().to_string();
    let args = place.args(&name, &["--max-steps", "4", "--resume-from-checkpoint"]);
    // The model's file fits, the optimizer's does not. The signal that comes with the limit is ignored.
    let size = std::fs::metadata(out.join("checkpoint-2/model.safetensors")).unwrap().len();
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", size.div_ceil(1024) + 8);
    let ran = Command::new("bash")
        .args(["-c", &script, "bash", env!("CARGO_BIN_EXE_vedm")])
        .args(&args)
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains("checkpoint-3\" could not be saved"), "{said}");
    assert_eq!(newest(&out), Some(2));
    place.run(&out, &["--max-steps", "4", "--resume-from-checkpoint"]).status(0);
    assert_eq!(newest(&out), Some(4));
}

/// The largest address space of a process so far, in KiB; 0 if it has ended.
fn address_space(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let words = line.unwrap_or_default().split_whitespace();
    words.filter_map(|word| word.parse().ok()).next().unwrap_or(0)
}

/// A limit on the address space stands in for a machine with little memory.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_does_not_suffice_is_told_with_what_to_lower() {
    let folder = tempfile::tempdir().unwrap();
    // Many tokens, few pixels: what is too large is a tensor of the model.
    let more = ["encoder.image_size=[16,128]", "encoder.patch_size=[2,2]"];
    let model = fresh_model(folder.path(), &more);
    let table = std::fs::read_to_string(eight_lines(folder.path())).unwrap();
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    let rows: Vec<&str> = lines.collect();
    let many = folder.path().join("many.csv");
    let table: String = rows.iter().cycle().take(128).map(|row| format!("\n{row}")).collect();
    std::fs::write(&many, format!("{head}{table}\n")).unwrap();
    let (many, out) = (many.display().to_string(), folder.path().join("out").display().to_string());
    let args = |batch: &'static str| {
        let mut args = vec!["train", "--model", &model, "--data", &many, "--output", &out];
        args.extend(["--overwrite-output-dir", "--device", "cpu", "--threads", "1"]);
        args.extend(["--dataloader-num-workers", "1", "--save-steps", "never", "--max-steps", "2"]);
        args.extend(["--per-device-train-batch-size", batch]);
        args.into_iter().map(str::to_string).collect::<Vec<String>>()
    };
    let mut small = Command::new(env!("CARGO_BIN_EXE_vedm"))
        .args(args("1"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    let ended = loop {
        peak = peak.max(address_space(&small));
        if let Some(ended) = small.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(ended.success() && peak > 0, "{ended:?} {peak}");
    let script = format!("ulimit -v {}; exec \"$@\"", peak + (128 << 10));
    let limited = |batch, more: &[&str]| {
        let ran = Command::new("bash")
            .args(["-c", &script, "bash", env!("CARGO_BIN_EXE_vedm")])
            .args(args(batch))
            .args(more)
            // Rust's own report of a failed allocation waits for itself if its backtrace finds no memory.
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let (status, said) = limited("128", &[]);
    assert_eq!(status, Some(1), "{said}");
    let told = "the memory does not suffice: lower --per-device-train-batch-size (now 128) and raise \
                --gradient-accumulation-steps by as much, what is learnt stays the same; try \
                --gradient-checkpointing, or --bf16, or a smaller --max-target-length";
    assert!(said.contains(told), "{said}");
    // What is done already is not recommended.
    let (status, said) = limited("128", &["--gradient-checkpointing", "--bf16"]);
    assert!(status == Some(0) || said.contains("; try a smaller --max-target-length"), "{said}");
}
