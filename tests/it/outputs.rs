//! Where results go: forms, sidecars, ledgers, placeholders, streams, interrupts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Vedm, folder_of_pictures as folder, golden};

fn model() -> String {
    golden("vit-bert").to_str().unwrap().to_string()
}

fn caption(folder: &Path, args: &[&str]) -> Vedm {
    let model = model();
    let mut all = vec!["caption", ".", "--model", &model, "--threads", "1", "--device", "cpu"];
    all.extend(args);
    Vedm::new(&all).dir(folder)
}

/// Every file of a folder that is no picture, with its content.
fn texts(folder: &Path) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_file() && !name.ends_with(".png") && !name.ends_with(".jpg") {
            texts.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    texts
}

#[test]
fn tables_carry_the_fields_of_the_records() {
    let folder = folder(3);
    std::fs::write(folder.path().join("bad.png"), "no picture").unwrap();
    let json = caption(folder.path(), &["--format", "jsonl"]).run().status(2);
    let records: Vec<Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (name, delimiter) in [("out.csv", b','), ("out.tsv", b'\t')] {
        caption(folder.path(), &["--output", name]).run().status(2);
        let mut table = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .from_path(folder.path().join(name))
            .unwrap();
        let columns = table.headers().unwrap().clone();
        let place = |name: &str| columns.iter().position(|column| column == name).unwrap();
        let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), records.len());
        for (row, record) in rows.iter().zip(&records) {
            for field in ["image", "text", "finish_reason", "error"] {
                let expected = record.get(field).and_then(Value::as_str).unwrap_or_default();
                assert_eq!(&row[place(field)], expected, "{field}");
            }
            let confidence = record.get("confidence").filter(|value| !value.is_null());
            let confidence = confidence.map_or(String::new(), Value::to_string);
            assert_eq!(&row[place("confidence")], confidence);
        }
    }
}

#[test]
fn sidecars_lie_beside_their_images() {
    let folder = folder(3);
    let told = caption(folder.path(), &[]).run().status(0).stdout;
    let ran =
        caption(folder.path(), &["--sidecar", "--prefix", "<", "--suffix", ">"]).run().status(0);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("3 ok, 0 skipped, 0 failed, "), "{}", ran.stderr);
    let texts = texts(folder.path());
    assert_eq!(texts.len(), 3);
    for line in told.lines() {
        let (image, text) = line.split_once('\t').unwrap();
        let name = Path::new(image).with_extension("txt");
        let name = name.file_name().unwrap().to_str().unwrap();
        assert_eq!(texts[name], format!("<{text}>\n"));
    }
}

#[test]
fn what_exists_is_skipped_replaced_or_extended() {
    let folder = folder(2);
    let path = folder.path().join("000.txt");
    caption(folder.path(), &["--sidecar"]).run().status(0);
    let fresh = std::fs::read_to_string(&path).unwrap();
    let run = |existing: &str| {
        std::fs::write(&path, "old\n").unwrap();
        let ran = caption(folder.path(), &["--sidecar", "--existing", existing]).run().status(0);
        (std::fs::read_to_string(&path).unwrap(), ran.stderr)
    };
    let (text, told) = run("skip");
    assert_eq!(text, "old\n");
    assert!(told.contains("0 ok, 2 skipped, 0 failed"), "{told}");
    assert_eq!(run("overwrite").0, fresh);
    assert_eq!(run("append").0, format!("old\n{fresh}"));
    assert_eq!(run("prepend").0, format!("{fresh}old\n"));
    // The sidecar was written a moment ago, after its image.
    assert_eq!(run("newer").0, "old\n");
    let hour = Duration::from_secs(3600);
    let image = std::fs::File::options().append(true).open(folder.path().join("000.png")).unwrap();
    image.set_modified(std::time::SystemTime::now() + hour).unwrap();
    assert_eq!(run("newer").0, fresh);
}

#[test]
fn two_images_never_share_a_sidecar() {
    let folder = folder(1);
    std::fs::copy(folder.path().join("000.png"), folder.path().join("000.jpg")).unwrap();
    let ran = caption(folder.path(), &["--sidecar"]).run().status(1);
    assert!(ran.stderr.contains("would both be written to \"000.txt\""), "{}", ran.stderr);
    assert!(texts(folder.path()).keys().all(|name| !name.ends_with(".txt")));
    caption(folder.path(), &["--out-template", "{dir}/texts/{name}.txt"]).run().status(0);
    assert_eq!(texts(&folder.path().join("texts")).len(), 2);
    // A template that names the pictures themselves.
    let ran =
        caption(folder.path(), &["--out-template", "{dir}/{name}", "--existing", "overwrite"])
            .run();
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("written over the input"), "{}", ran.stderr);
}

/// Killed again and again at any moment, the run completes the set all the same.
#[test]
fn a_killed_run_is_completed_by_the_next() {
    let (undisturbed, disturbed) = (folder(60), folder(60));
    let args = ["--sidecar", "--batch-size", "1"];
    caption(undisturbed.path(), &args).run().status(0);
    let mut seed = 7u64;
    for _ in 0..6 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = caption(disturbed.path(), &args).spawn();
        std::thread::sleep(Duration::from_millis(150 + (seed >> 33) % 500));
        child.kill().unwrap();
        child.wait().unwrap();
        // What is there is whole.
        let whole = texts(undisturbed.path());
        for (name, text) in texts(disturbed.path()) {
            if !name.starts_with('.') {
                assert_eq!(text, whole[&name], "{name}");
            }
        }
    }
    caption(disturbed.path(), &args).run().status(0);
    let mut left = texts(disturbed.path());
    left.retain(|name, _| !name.starts_with('.'));
    assert_eq!(left, texts(undisturbed.path()));
}

#[test]
fn two_processes_may_share_a_folder() {
    let (alone, shared) = (folder(40), folder(40));
    let args = ["--sidecar", "--batch-size", "2"];
    caption(alone.path(), &args).run().status(0);
    let mut children: Vec<_> = (0..2).map(|_| caption(shared.path(), &args).spawn()).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(texts(shared.path()), texts(alone.path()));
}

#[test]
fn failures_are_kept_in_a_ledger() {
    let folder = folder(2);
    std::fs::write(folder.path().join("bad.png"), "no picture").unwrap();
    let ran = caption(folder.path(), &["--errors", "errors.jsonl"]).run().status(2);
    assert!(ran.stderr.contains("2 ok, 0 skipped, 1 failed"), "{}", ran.stderr);
    let text = std::fs::read_to_string(folder.path().join("errors.jsonl")).unwrap();
    let line: Value = serde_json::from_str(text.trim()).unwrap();
    assert!(line["image"].as_str().unwrap().ends_with("bad.png"));
    assert!(!line["error"].as_str().unwrap().is_empty());

    // Sorted, the bad one comes last; named first, it ends the run before the others.
    let model = model();
    let ran = Vedm::new(&["caption", "bad.png", "000.png", "--fail-fast", "--model", &model])
        .dir(folder.path())
        .run()
        .status(2);
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.stderr.matches("bad.png").count(), 1, "{}", ran.stderr);
}

#[test]
fn doubtful_texts_are_replaced() {
    let folder = folder(2);
    let args = ["--format", "jsonl", "--min-confidence", "1", "--placeholder", "?"];
    let ran = caption(folder.path(), &args).run().status(0);
    let plain = caption(folder.path(), &["--format", "jsonl"]).run().status(0);
    for (line, plain) in ran.stdout.lines().zip(plain.stdout.lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let plain: Value = serde_json::from_str(plain).unwrap();
        // An empty picture is certain.
        if plain["finish_reason"] == "blank" {
            assert_eq!(line["text"], "");
            continue;
        }
        assert_eq!(line["text"], "?");
        assert_eq!(line["rejected_text"], plain["text"]);
        assert_eq!(line["confidence"], plain["confidence"]);
    }
    let ran = caption(folder.path(), &["--min-confidence", "2"]).run().status(1);
    assert!(ran.stderr.contains("--min-confidence 2: expected 0 to 1"), "{}", ran.stderr);
}

#[test]
fn an_empty_picture_has_an_empty_text() {
    let folder = tempfile::tempdir().unwrap();
    let white = format!("P5 40 30 255\n{}", "~".repeat(1200));
    std::fs::write(folder.path().join("white.png"), white).unwrap();
    let ran = caption(folder.path(), &["--format", "jsonl"]).run().status(0);
    let record: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!(record["text"], "");
    assert_eq!(record["finish_reason"], "blank");
    assert_eq!(record["confidence"], Value::Null);
    assert_eq!(record["new_tokens"], 0);
}

#[test]
fn a_stream_says_the_same_as_the_text() {
    let folder = folder(1);
    let model = model();
    let args = ["caption", "000.png", "--model", &model, "--num-beams", "1"];
    let plain = Vedm::new(&args).dir(folder.path()).run().status(0).stdout;
    let stream = [&args[..], &["--stream"]].concat();
    assert_eq!(Vedm::new(&stream).dir(folder.path()).run().status(0).stdout, plain);
    let beams = [&args[..4], &["--stream", "--num-beams", "3"]].concat();
    let ran = Vedm::new(&beams).dir(folder.path()).run().status(1);
    assert!(ran.stderr.contains("--num-beams 1"), "{}", ran.stderr);
    let ran = caption(folder.path(), &["--stream", "--num-beams", "1"]).run().status(1);
    assert!(ran.stderr.contains("--stream shows one text of one image"), "{}", ran.stderr);
}

#[test]
fn a_stream_refuses_what_it_can_t_do_and_is_silent_about_what_fails() {
    let folder = folder(1);
    let model = model();
    let ocr = |extra: &[&str]| {
        let args = ["ocr", "--stream", "--model", &model, "--num-beams", "1"];
        Vedm::new(&[&args[..], extra].concat()).dir(folder.path()).run()
    };
    for flags in [
        &["--format", "jsonl"][..],
        &["--output", "s.jsonl"],
        &["--details"],
        &["--min-confidence", "1"],
        &["--normalize", "nfc"],
        &["--lines"],
    ] {
        let ran = ocr(&[&["000.png"], flags].concat()).status(1);
        assert!(ran.stderr.contains("cannot be used with"), "{flags:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    assert!(!folder.path().join("s.jsonl").exists());
    let missing = ocr(&["missing.png", "--prompt", "a"]).status(2);
    assert_eq!(missing.stdout, "");
    let white = format!("P5 40 30 255\n{}", "~".repeat(1200));
    std::fs::write(folder.path().join("white.png"), white).unwrap();
    assert_eq!(ocr(&["white.png"]).status(0).stdout, "\n");
}

#[test]
fn only_allowed_characters_are_written() {
    let folder = folder(2);
    let model = model();
    let args = ["ocr", "000.png", "001.png", "--format", "jsonl", "--model", &model];
    let ran =
        Vedm::new(&[&args[..], &["--allowed-chars", "aeiou"]].concat()).dir(folder.path()).run();
    for line in ran.status(0).stdout.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let text = record["text"].as_str().unwrap();
        assert!(text.chars().all(|c| " aeiou".contains(c)), "{text:?}");
    }
    let ran =
        Vedm::new(&[&args[..], &["--allowed-chars", "\u{4f60}"]].concat()).dir(folder.path()).run();
    assert!(ran.status(1).stderr.contains("no token of this model"));
    // The shipped model has a token that is a blank; blanks alone are no text.
    for chars in ["", " ", "\u{4e2d}"] {
        let args = ["ocr", "000.png", "--allowed-chars", chars];
        let ran = Vedm::new(&args).dir(folder.path()).run().status(1);
        assert!(ran.stderr.contains("no token of this model"), "{chars:?}: {}", ran.stderr);
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_what_is_done() {
    let folder = folder(400);
    let args = ["--sidecar", "--batch-size", "1", "--progress", "never"];
    let child = caption(folder.path(), &args).spawn();
    // As soon as the first text is there, the run is under way.
    while !folder.path().join("000.txt").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut child = child;
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let done = texts(folder.path());
    assert!(!done.is_empty() && done.len() < 400, "{}", done.len());
    assert!(done.values().all(|text| text.ends_with('\n')));
}
