//! Files that results are written on, or must not be written over.

use std::path::Path;

use serde_json::Value;

use crate::support::{Ran, Vedm, folder_of_pictures as folder, golden, tests_folder};

/// A run in the folder, on few tokens.
fn caption(folder: &Path, args: &[&str]) -> Ran {
    let model = golden("vit-bert").display().to_string();
    let start = ["caption", "--model", &model, "--threads", "1", "--max-new-tokens", "4"];
    Vedm::new(&[&start[..], args].concat()).dir(folder).run()
}

/// A folder with a picture and with `pages.tif`, three pages.
fn folder_with_pages() -> tempfile::TempDir {
    let folder = folder(1);
    let pages = tests_folder("../src/image/testdata/images/pages.tif");
    std::fs::copy(pages, folder.path().join("pages.tif")).unwrap();
    folder
}

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_table_of_other_columns_is_left_alone() {
    let folder = folder(2);
    let place = folder.path();
    caption(place, &["000.png", "--output", "c.csv"]).status(0);
    let before = text(place, "c.csv");
    for existing in ["append", "skip"] {
        for more in [["--details", "--quiet"], ["--num-beams=2", "--num-return-sequences=2"]] {
            let args = ["001.png", "--output", "c.csv", "--existing", existing];
            let ran = caption(place, &[&args[..], &more].concat()).status(1);
            assert!(ran.stderr.contains("\"c.csv\" has other columns"), "{}", ran.stderr);
            assert_eq!(text(place, "c.csv"), before);
        }
    }
    caption(place, &["001.png", "--output", "c.csv", "--existing", "append"]).status(0);
    let after = text(place, "c.csv");
    assert!(after.starts_with(&before) && after.lines().count() == 3, "{after}");
    std::fs::write(place.join("f.csv"), "name,x\n1,2").unwrap();
    caption(place, &["001.png", "--output", "f.csv", "--existing", "append"]).status(1);
    assert_eq!(text(place, "f.csv"), "name,x\n1,2");
}

#[test]
fn appending_completes_the_last_line() {
    let folder = folder(2);
    let place = folder.path();
    for name in ["n.txt", "n.jsonl"] {
        std::fs::write(place.join(name), "a note").unwrap();
        caption(place, &["000.png", "001.png", "--output", name, "--existing", "append"]).status(0);
        let text = text(place, name);
        assert!(text.starts_with("a note\n") && text.lines().count() == 3, "{text}");
    }
    // A torn record of our own is left out by skip, and that is told.
    std::fs::write(place.join("t.jsonl"), "{\"image\":\"000.p").unwrap();
    let ran = caption(place, &["000.png", "--output", "t.jsonl", "--existing", "skip"]).status(0);
    assert!(ran.stderr.contains("cut short; its 15 bytes are removed"), "{}", ran.stderr);
    assert_eq!(records(&text(place, "t.jsonl"))[0]["image"], "000.png");
}

#[test]
fn whole_records_of_other_images_stay() {
    let folder = folder_with_pages();
    let place = folder.path();
    for name in ["o.txt", "o.jsonl", "o.csv"] {
        let skip = ["--output", name, "--existing", "skip"];
        caption(place, &["pages.tif", "pages.tif", "--output", name]).status(0);
        let whole = text(place, name);
        // Another image: the pages, which may not be all, stay. Read again, they are not written twice.
        caption(place, &[&["000.png", "pages.tif"][..], &skip].concat()).status(0);
        let after = text(place, name);
        assert!(after.starts_with(&whole) && after.contains("000.png"), "{whole}\n{after}");
        assert_eq!(after.matches("pages.tif").count(), whole.matches("pages.tif").count());
    }
}

#[cfg(unix)]
#[test]
fn names_that_are_no_unicode_are_read_once() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder(1);
    let place = folder.path();
    let odd = std::ffi::OsStr::from_bytes(b"\xFF.png");
    std::fs::rename(place.join("000.png"), place.join(odd)).unwrap();
    for name in ["o.csv", "o.tsv", "o.jsonl"] {
        caption(place, &[".", "--output", name]).status(0);
        let before = text(place, name);
        assert!(before.contains("2e2fff2e706e67"), "{before}");
        caption(place, &[".", "--output", name, "--existing", "skip"]).status(0);
        assert_eq!(text(place, name), before);
    }
}

#[test]
fn a_sidecar_that_cannot_be_written_is_its_own_images_failure() {
    for blocked in ["000", "002"] {
        let folder = folder(3);
        let place = folder.path();
        std::fs::create_dir(place.join(format!("{blocked}.txt"))).unwrap();
        let args = [".", "--sidecar", "--existing", "overwrite", "--errors", "e.jsonl"];
        let ran = caption(place, &[&args[..], &["--format", "jsonl"]].concat()).status(2);
        let failed: Vec<bool> =
            records(&ran.stdout).iter().map(|record| record.get("error").is_some()).collect();
        assert_eq!(failed, ["000", "001", "002"].map(|name| name == blocked));
        let told = format!("vedm: ./{blocked}.png: ");
        assert_eq!(ran.stderr.matches(&told).count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("2 ok, 0 skipped, 1 failed"), "{}", ran.stderr);
        let ledger = records(&text(place, "e.jsonl"));
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger[0]["image"], format!("./{blocked}.png"));
    }
}

#[test]
fn pages_fail_to_be_kept_as_one_image_or_one_by_one() {
    let folder = folder_with_pages();
    let place = folder.path();
    std::fs::create_dir(place.join("pages.txt")).unwrap();
    let args = ["pages.tif", "000.png", "--errors", "e.jsonl", "--existing", "overwrite"];
    let ran = caption(place, &[&args[..], &["--sidecar"]].concat()).status(2);
    assert!(ran.stderr.contains("vedm: pages.tif: "), "{}", ran.stderr);
    let ledger = records(&text(place, "e.jsonl"));
    assert_eq!((ledger.len(), ledger[0].get("page")), (1, None));
    assert!(place.join("000.txt").is_file());

    std::fs::create_dir(place.join("pages.1.x")).unwrap();
    let ran = caption(place, &[&args[..], &["--out-template", "{stem}.{page}.x"]].concat());
    assert!(ran.stderr.contains("vedm: pages.tif page 1: "), "{}", ran.stderr);
    let ledger = records(&text(place, "e.jsonl"));
    assert_eq!((ledger.len(), &ledger[0]["page"]), (1, &Value::from(1)));
    assert!(place.join("pages.2.x").is_file());
}

#[test]
fn what_is_read_is_not_written_over() {
    let folder = folder(2);
    let place = folder.path();
    std::fs::write(place.join("list.txt"), "000.png\n").unwrap();
    let mut tar = tar::Builder::new(std::fs::File::create(place.join("a.tar")).unwrap());
    tar.append_path_with_name(place.join("000.png"), "000.png").unwrap();
    tar.into_inner().unwrap();
    let list = ["--files-from", "list.txt"];
    let overwrite = ["--sidecar", "--existing", "overwrite"];
    std::fs::copy(place.join("000.png"), place.join("list.png")).unwrap();
    for (args, words) in [
        ([&list[..], &["--output", "list.txt"]].concat(), "the list would be lost"),
        ([&list[..], &["--errors", "./list.txt"]].concat(), "the list would be lost"),
        (vec!["000.png", "--output", "o.x", "--errors", "./o.x"], "name the same file"),
        (vec!["a.tar", "--output", "./a.tar"], "is the input \"a.tar\""),
        ([&["list.png"][..], &list, &overwrite].concat(), "the file of --files-from"),
        (vec!["000.png", "--output", "page.hocr"], "the lines of pages"),
        (vec!["000.png", "--existing", "skip"], "--existing belongs to"),
        (vec!["000.png", "--placeholder", "?"], "pass --min-confidence as well"),
    ] {
        let before = std::fs::read(place.join("a.tar")).unwrap();
        let ran = caption(place, &args).status(1);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert_eq!(text(place, "list.txt"), "000.png\n");
        assert!(std::fs::read(place.join("a.tar")).unwrap() == before);
        assert!(!place.join("o.x").exists() && !place.join("page.hocr").exists());
    }
    // One file named twice is one file.
    caption(place, &["000.png", "./000.png", "--sidecar"]).status(0);
}

#[test]
fn a_ledger_of_nothing_is_empty() {
    let folder = folder(1);
    let place = folder.path();
    caption(place, &[".", "--sidecar"]).status(0);
    std::fs::write(place.join("e.jsonl"), "{\"image\":\"old.png\"}\n").unwrap();
    caption(place, &[".", "--sidecar", "--errors", "e.jsonl"]).status(0);
    assert_eq!(text(place, "e.jsonl"), "");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_files_name() {
    let folder = folder(1);
    let ran = caption(folder.path(), &["000.png", "--output", "/dev/full"]).status(1);
    assert!(ran.stderr.contains("can't write \"/dev/full\""), "{}", ran.stderr);
}

/// A sidecar holds all pages or none, so another try reads all of them.
#[test]
fn failed_pages_are_tried_again_as_a_file() {
    let folder = folder_with_pages();
    let place = folder.path();
    let whole = caption(place, &["pages.tif", "--sidecar=all"]).status(0);
    assert_eq!(whole.stdout, "");
    // The first and the third page are larger.
    let args = ["pages.tif", "--sidecar", "--errors", "e.jsonl", "--max-image-mpixels", "0.00005"];
    let ran = caption(place, &args).status(2);
    assert!(ran.stderr.contains("1 ok, 0 skipped, 2 failed"), "{}", ran.stderr);
    let ledger = records(&text(place, "e.jsonl"));
    assert_eq!((ledger.len(), ledger[0].get("page")), (1, None));
    assert!(!place.join("pages.txt").exists());
    caption(place, &["--files-from", "e.jsonl", "--sidecar"]).status(0);
    assert_eq!(text(place, "pages.txt"), text(place, "pages.all"));
    // One page of a list is no whole file.
    std::fs::write(place.join("list"), "{\"image\": \"pages.tif\", \"page\": 2}\n").unwrap();
    let one = ["--files-from", "list", "--existing", "overwrite"];
    let ran = caption(place, &[&one[..], &["--sidecar"]].concat()).status(2);
    assert!(ran.stderr.contains("page 2 alone is asked for"), "{}", ran.stderr);
    assert_eq!(text(place, "pages.txt"), text(place, "pages.all"));
    caption(place, &[&one[..], &["--out-template", "{stem}.{page}"]].concat()).status(0);
    let second = text(place, "pages.all").lines().nth(1).unwrap().to_string();
    assert_eq!(text(place, "pages.2").trim_end(), second);
}

/// Nobody writes to a pipe before it is opened to be written to.
#[cfg(unix)]
#[test]
fn results_go_into_pipes() {
    let folder = folder(2);
    let place = folder.path();
    for (flag, name) in [("--output", "out.jsonl"), ("--errors", "errors")] {
        let pipe = place.join(name);
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn(move || std::fs::read_to_string(pipe).unwrap());
        let ran = caption(place, &["000.png", "missing.png", flag, name]).status(2);
        let found = records(&reader.join().unwrap());
        let expected = if flag == "--output" { 2 } else { 1 };
        assert_eq!(found.len(), expected, "{flag}: {}", ran.stderr);
        assert_eq!(found[expected - 1]["image"], "missing.png");
    }
}
