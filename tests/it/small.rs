//! Small promises: restarts of `--output`, words for yes and no, names that are no names, warnings.

use std::path::Path;

use serde_json::Value;

use crate::support::{Vedm, copy_of, folder_of_pictures as folder, golden, pictures};

fn caption(folder: &Path, args: &[&str]) -> Vedm {
    let model = golden("vit-bert");
    let mut all = vec!["caption", "--model", model.to_str().unwrap(), "--device", "cpu"];
    all.extend(["--threads", "1"]);
    all.extend(args);
    Vedm::new(&all).dir(folder)
}

/// Image, page and text of each record.
fn facts(jsonl: &str) -> Vec<(String, Option<u64>, String)> {
    let records = jsonl.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    records
        .map(|record| (text(&record["image"]), record["page"].as_u64(), text(&record["text"])))
        .collect()
}

#[test]
fn a_killed_run_goes_on_where_its_file_ends() {
    let folder = folder(5);
    let tif = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/testdata/images/pages.tif");
    std::fs::copy(tif, folder.path().join("100.tif")).unwrap();
    let path = folder.path().join("out.jsonl");
    let args = [".", "--output", "out.jsonl", "--existing", "skip", "--batch-size", "2"];
    caption(folder.path(), &args).run().status(0);
    let whole = std::fs::read_to_string(&path).unwrap();
    assert_eq!(whole.lines().count(), 8, "{whole}");
    // Cut in the middle of each line and behind each line.
    let ends = whole.match_indices('\n').map(|(at, _)| at + 1);
    for cut in ends.flat_map(|end| [end - 20, end]) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        caption(folder.path(), &args).run().status(0);
        let found = std::fs::read_to_string(&path).unwrap();
        assert_eq!(facts(&found), facts(&whole), "cut at {cut}");
    }
    // Append adds, and nothing said writes anew.
    caption(folder.path(), &["000.png", "--output", "out.jsonl", "--existing", "append"])
        .run()
        .status(0);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 9);
    caption(folder.path(), &["000.png", "--output", "out.jsonl"]).run().status(0);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    let ran = caption(folder.path(), &["000.png", "--output", "out.jsonl", "--existing", "newer"]);
    let ran = ran.run().status(1);
    assert!(ran.stderr.contains("--existing newer and prepend are for sidecars"), "{}", ran.stderr);
}

#[test]
fn sidecars_and_a_file_go_on_together() {
    let folder = folder(4);
    for format in ["out.csv", "out.txt"] {
        let args = [".", "--sidecar=cap", "--output", format];
        caption(folder.path(), &args).run().status(0);
        let path = folder.path().join(format);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(folder.path().join("002.cap")).unwrap();
        let shorter: String =
            whole.split_inclusive('\n').filter(|line| !line.contains("002.png")).collect();
        std::fs::write(&path, &shorter).unwrap();
        caption(folder.path(), &args).run().status(0);
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found.starts_with(&shorter), "{found}");
        assert_eq!(found.lines().count(), whole.lines().count(), "{found}");
        for number in 0..4 {
            std::fs::remove_file(folder.path().join(format!("{number:03}.cap"))).unwrap();
        }
    }
}

#[test]
fn an_extension_may_stand_behind_its_flag() {
    let folder = folder(2);
    caption(folder.path(), &["--sidecar", "cap", "000.png", "001.png"]).run().status(0);
    assert!(folder.path().join("000.cap").exists() && folder.path().join("001.cap").exists());
    // A word that is no usual extension is an image.
    let ran = caption(folder.path(), &["--sidecar", "scans", "000.png"]).run().status(2);
    assert!(ran.stderr.contains("vedm: scans: no such file"), "{}", ran.stderr);
}

#[test]
fn variables_say_yes_and_no_in_the_usual_words() {
    let folder = folder(1);
    for (word, details) in [
        ("yes", true),
        ("1", true),
        ("On", true),
        ("TRUE", true),
        ("no", false),
        ("0", false),
        ("off", false),
        ("false", false),
        ("", false),
    ] {
        let run = caption(folder.path(), &["000.png", "--format", "jsonl"]);
        let ran = run.env("VEDM_DETAILS", word).run().status(0);
        assert_eq!(ran.stdout.contains("token_ids"), details, "{word:?}");
    }
    let run = caption(folder.path(), &["000.png"]).env("VEDM_RECURSIVE", "perhaps");
    let ran = run.run().status(1);
    let sentence = "invalid value 'perhaps' for '--recursive': expected true, false,";
    assert!(ran.stderr.contains(sentence), "{}", ran.stderr);
}

#[test]
fn a_name_without_an_end_is_told_and_the_list_goes_on() {
    let folder = folder(2);
    let list = [b"000.png\n".as_slice(), &vec![b'x'; 3 << 20], b"\n001.png\n"].concat();
    std::fs::write(folder.path().join("list"), list).unwrap();
    let ran = caption(folder.path(), &["--files-from", "list"]).run().status(2);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    assert_eq!(ran.stderr.matches("is longer than 1 MiB").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.len() < 1000);
}

#[test]
#[cfg(unix)]
fn names_that_are_no_unicode_come_back_from_the_ledger() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder(1);
    let name = |bytes: &[u8]| folder.path().join(std::ffi::OsStr::from_bytes(bytes));
    let odd = [name(b"b\xFF.png"), name(b"b\xFE.png")];
    odd.iter().for_each(|path| std::fs::write(path, "no picture").unwrap());
    caption(folder.path(), &[".", "--errors", "failed.jsonl"]).run().status(2);
    let ledger = std::fs::read_to_string(folder.path().join("failed.jsonl")).unwrap();
    assert_eq!(ledger.lines().count(), 2, "{ledger}");
    assert!(ledger.contains("\"image_bytes\":\"2e2f62ff2e706e67\""), "{ledger}");
    odd.iter().for_each(|path| {
        std::fs::copy(folder.path().join("000.png"), path).unwrap();
    });
    let args = ["--files-from", "failed.jsonl", "--format", "jsonl"];
    let ran = caption(folder.path(), &args).run().status(0);
    assert_eq!(facts(&ran.stdout).len(), 2, "{}", ran.stdout);
}

#[test]
fn what_killed_runs_left_is_swept() {
    let folder = folder(2);
    let left = folder.path().join(".vedm-elsewhere-1-abcdef");
    let file = std::fs::File::create(&left).unwrap();
    let days = std::time::Duration::from_secs(3 * 24 * 60 * 60);
    file.set_modified(std::time::SystemTime::now() - days).unwrap();
    let fresh = folder.path().join(".vedm-elsewhere-1-abcdeg");
    std::fs::write(&fresh, "").unwrap();
    caption(folder.path(), &[".", "--sidecar"]).run().status(0);
    assert!(!left.exists() && fresh.exists());
}

/// Three lines of the samples below each other.
fn page(folder: &Path, rows: u32) {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/samples");
    let names = std::fs::read_dir(samples).unwrap().map(|entry| entry.unwrap().path());
    let mut lines: Vec<image::GrayImage> = names
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .map(|path| image::open(path).unwrap().to_luma8())
        // Dark print alone.
        .filter(|line| {
            line.pixels().map(|p| u64::from(p.0[0])).sum::<u64>() > 160 * line.len() as u64
        })
        .map(|line| {
            let width = line.width() * 32 / line.height();
            image::imageops::resize(&line, width, 32, image::imageops::FilterType::Triangle)
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.width()));
    let mut page =
        image::GrayImage::from_pixel(lines[0].width() + 80, 60 * rows + 60, image::Luma([250]));
    for (line, number) in lines.iter().zip(0..rows) {
        image::imageops::replace(&mut page, line, 40, i64::from(60 * number + 30));
    }
    page.save(folder.join(format!("rows{rows}.png"))).unwrap();
}

#[test]
fn a_page_given_as_a_line_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    for rows in [1, 3, 4] {
        page(folder.path(), rows);
    }
    let ocr = |args: &[&str]| Vedm::new(&[&["ocr"], args].concat()).dir(folder.path()).run();
    let ran = ocr(&["rows1.png", "rows3.png", "rows4.png", "--format", "jsonl"]).status(0);
    let warned = "warning: rows3.png has about 3 lines of text, and this model reads one; --lines";
    assert_eq!(ran.stderr.matches("warning:").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(warned), "{}", ran.stderr);
    let told: Vec<bool> = ran.stdout.lines().map(|line| line.contains("\"warning\"")).collect();
    assert_eq!(told, [false, true, true], "{}", ran.stdout);
    let ran = ocr(&["rows3.png", "--lines"]).status(0);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    let ran = ocr(&["rows3.png", "--quiet"]).status(0);
    assert_eq!(ran.stderr, "");
}

/// One token alone is allowed, again and again.
#[test]
fn the_repetition_check_can_be_switched_off() {
    let copy = copy_of("vit-trocr-sinusoidal");
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    // Its positions are computed, so there may be more of them.
    config["decoder"]["max_position_embeddings"] = 200.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let picture = pictures("vit-trocr-sinusoidal")[0].clone();
    let args = ["ocr", picture.to_str().unwrap(), "--model", copy.path().to_str().unwrap()];
    let limits = ["--min-new-tokens", "90", "--max-new-tokens", "90", "--allowed-chars", "1"];
    let args = [&args[..], &limits[..], &["--format", "jsonl"]].concat();
    for (more, reason, tokens) in
        [(&[][..], "repetition", 64), (&["--no-repetition-check"], "length", 90)]
    {
        let ran = Vedm::new(&[&args, more].concat()).run().status(0);
        let record: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(record["finish_reason"], reason, "{}", ran.stdout);
        assert_eq!(record["new_tokens"], tokens, "{}", ran.stdout);
    }
}

#[test]
fn a_command_with_letters_in_the_wrong_order_is_recognised() {
    for (typed, meant) in [("orc", "ocr"), ("captoin", "caption"), ("evla", "eval")] {
        let ran = Vedm::new(&[typed]).run().status(1);
        assert!(ran.stderr.contains(&format!("'{meant}'")), "{}", ran.stderr);
    }
    // Colours are clap's; what was typed does not act on a terminal.
    for (typed, colours) in [("--plain", true), ("--od\u{1b}[31md\u{7}", false)] {
        let ran = Vedm::new(&[typed]).env("CLICOLOR_FORCE", "1").run().status(1);
        assert_eq!(ran.stderr.contains('\u{1b}'), colours, "{}", ran.stderr);
        assert!(!ran.stderr.contains('\u{7}'), "{}", ran.stderr);
    }
}

#[test]
fn a_member_behind_damage_is_told_so() {
    let folder = folder(1);
    let whole = folder.path().join("whole.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&whole).unwrap());
    for name in ["a.png", "b.png"] {
        tar.append_path_with_name(folder.path().join("000.png"), name).unwrap();
    }
    tar.finish().unwrap();
    let mut bytes = std::fs::read(&whole).unwrap();
    // The header of the second member.
    let second = bytes.windows(5).rposition(|name| name == b"b.png").unwrap();
    bytes[second..second + 512].fill(0xAA);
    std::fs::write(folder.path().join("cut.tar"), bytes).unwrap();
    let ran = caption(folder.path(), &["whole.tar/b.png", "cut.tar/b.png", "whole.tar/c.png"]);
    let ran = ran.run().status(2);
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    let told = |image: &str, what: &str| ran.stderr.contains(&format!("vedm: {image}: {what}"));
    assert!(told("cut.tar/b.png", "not found before the archive's damage:"), "{}", ran.stderr);
    assert!(told("whole.tar/c.png", "no such image in the archive"), "{}", ran.stderr);
}

/// `eval` scores what `ocr` would write.
#[test]
fn an_empty_picture_is_empty_for_eval_too() {
    let folder = folder(1);
    let paper = image::GrayImage::from_pixel(60, 40, image::Luma([250]));
    paper.save(folder.path().join("paper.png")).unwrap();
    std::fs::write(folder.path().join("data.csv"), "image,text\npaper.png,x\n000.png,y\n").unwrap();
    let model = golden("vit-bert");
    let args = ["eval", "--model", model.to_str().unwrap(), "--data", "data.csv"];
    let args = [&args[..], &["--predictions", "out.jsonl"]].concat();
    Vedm::new(&args).dir(folder.path()).run().status(0);
    let told = std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].clone();
    let texts: Vec<Value> = told.lines().map(text).collect();
    let read = caption(folder.path(), &["000.png"]).run().status(0).stdout;
    assert_eq!(texts, ["", read.trim_end()], "{told}");
}
