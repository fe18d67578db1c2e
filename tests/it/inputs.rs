//! Where pictures come from, and that their texts do not depend on it: directories, archives, lists, odd
//! names, damage.

use std::io::Write;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ran, Vedm, append, golden, pictures, tests_folder};

fn ocr(folder: &Path, args: &[&str]) -> Vedm {
    let model = golden("vit-bert");
    let mut all = vec!["ocr", "--model", model.to_str().unwrap(), "--device", "cpu"];
    all.extend(["--format", "jsonl", "--progress", "never", "--max-new-tokens", "8"]);
    all.extend(args);
    Vedm::new(&all).dir(folder)
}

/// Name of the file without its folders, text or error, of each record.
fn told(ran: &Ran) -> Vec<(String, String)> {
    let name = |image: &str| image.rsplit('/').next().unwrap().to_string();
    ran.stdout
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            let text = record.get("text").or(record.get("error")).unwrap();
            (name(record["image"].as_str().unwrap()), text.as_str().unwrap().to_string())
        })
        .collect()
}

/// Readable pictures of several kinds and sizes, and some that are not.
fn fill(folder: &Path) {
    for (number, picture) in pictures("vit-bert").iter().enumerate() {
        std::fs::copy(picture, folder.join(format!("{number}-golden.png"))).unwrap();
    }
    for entry in std::fs::read_dir(tests_folder("fixtures/odd/pictures")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !name.ends_with(".tga") {
            std::fs::copy(&path, folder.join(name)).unwrap();
        }
    }
    std::fs::write(folder.join("empty.png"), "").unwrap();
    std::fs::write(folder.join("text.jpg"), "no picture").unwrap();
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        append(&mut builder, name, bytes);
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in files {
        writer.start_file(name.as_str(), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn place() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Three hundred files, a third of them the same as another third: nothing depends on how many are read at
/// once, nor on what comes before.
#[test]
fn texts_depend_on_the_picture_alone() {
    let folder = place();
    for copy in ["a", "b/b", "c"] {
        std::fs::create_dir_all(folder.path().join(copy)).unwrap();
        fill(&folder.path().join(copy));
    }
    let mut outcomes = Vec::new();
    for (batch, threads) in [("1", "1"), ("3", "2"), ("16", "2"), ("16", "1")] {
        let args = [".", "--recursive", "--batch-size", batch, "--threads", threads];
        let ran = ocr(folder.path(), &args).run().status(2);
        let told = told(&ran);
        let failed = ran.stderr.lines().filter(|line| line.starts_with("vedm: ")).count();
        assert!(told.len() >= 290, "{}", told.len());
        let third = told.len() / 3;
        assert_eq!(told[..third], told[third..2 * third], "batches of {batch}");
        assert_eq!(told[..third], told[2 * third..], "batches of {batch}");
        assert!(failed > 60, "{}", ran.stderr);
        outcomes.push(told);
    }
    for other in &outcomes[1..] {
        assert_eq!(&outcomes[0], other);
    }
}

/// Beams share what is remembered of their image and change places; lines alike in aspect share batches.
/// Neither is seen in the records, whose order is that of the inputs.
#[test]
fn beams_are_the_same_in_every_batch() {
    let folder = place();
    fill(folder.path());
    let mut names: Vec<String> = files(folder.path()).into_iter().map(|(name, _)| name).collect();
    // Not in the order of their shapes.
    names.sort_by_key(|name| {
        name.bytes().map(u64::from).fold(7, |hash, byte| hash * 31 % 1009 + byte)
    });
    let mut outcomes = Vec::new();
    for (batch, threads) in
        [("1", "1"), ("1", "2"), ("3", "1"), ("3", "2"), ("16", "1"), ("16", "2")]
    {
        let mut args: Vec<&str> = names.iter().map(String::as_str).collect();
        args.extend(["--num-beams", "4", "--batch-size", batch, "--threads", threads]);
        let told = told(&ocr(folder.path(), &args).run().status(2));
        let order: Vec<&str> = told.iter().map(|(image, _)| image.as_str()).collect();
        // Files of several pages have several records.
        let mut inputs = order.clone();
        inputs.dedup();
        assert_eq!(inputs, names, "batches of {batch}");
        outcomes.push(told);
    }
    let readable = outcomes[0].iter().filter(|(_, text)| !text.is_empty()).count();
    assert!(readable > 30, "{readable}");
    for other in &outcomes[1..] {
        assert_eq!(&outcomes[0], other);
    }
}

#[test]
fn archives_and_lists_say_what_directories_say() {
    let folder = place();
    let inside = folder.path().join("pictures");
    std::fs::create_dir(&inside).unwrap();
    fill(&inside);
    let expected = told(&ocr(folder.path(), &["pictures"]).run().status(2));
    let files = files(&inside);
    let tar = tar_of(&files);
    std::fs::write(folder.path().join("all.tar"), &tar).unwrap();
    std::fs::write(folder.path().join("all.tgz"), gzip(&tar)).unwrap();
    std::fs::write(folder.path().join("all.cbz"), zip_of(&files)).unwrap();
    for archive in ["all.tar", "all.tgz", "all.cbz"] {
        assert_eq!(told(&ocr(folder.path(), &[archive]).run().status(2)), expected, "{archive}");
    }
    let lines: String = files.iter().map(|(name, _)| format!("pictures/{name}\n")).collect();
    std::fs::write(folder.path().join("list"), &lines).unwrap();
    let listed = ocr(folder.path(), &["--files-from", "list"]).run().status(2);
    assert_eq!(told(&listed), expected);
    let piped = ocr(folder.path(), &["--files-from", "-", "--null"]);
    let piped = piped.stdin(lines.replace('\n', "\0").as_bytes()).run().status(2);
    assert_eq!(told(&piped), expected);
    let members = lines.replace("pictures/", "all.tgz/");
    let members = ocr(folder.path(), &["--files-from", "-"]).stdin(members.as_bytes());
    assert_eq!(told(&members.run().status(2)), expected);
}

/// What is no picture, or nothing at all, is told and stops nothing.
#[test]
fn empty_and_nested_archives_are_told() {
    let folder = place();
    let picture = std::fs::read(&pictures("vit-bert")[0]).unwrap();
    let one = [("a.png".to_string(), picture.clone())];
    for name in ["empty.tar", "empty.zip", "empty.tgz", "empty.cbz"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    // An archive within an archive is not looked into.
    let nested = [("inner.zip".to_string(), zip_of(&one)), ("inner.tar".to_string(), tar_of(&one))];
    std::fs::write(folder.path().join("nested.tar"), tar_of(&nested)).unwrap();
    std::fs::write(folder.path().join("nested.zip"), zip_of(&nested)).unwrap();
    // A member of a tar may come twice: both are read.
    let twice = [one[0].clone(), ("b.png".to_string(), picture), one[0].clone()];
    std::fs::write(folder.path().join("twice.tar"), tar_of(&twice)).unwrap();
    let names = ["empty.tar", "empty.zip", "empty.tgz", "empty.cbz", "nested.tar", "nested.zip"];
    let ran = ocr(folder.path(), &[&names[..], &["twice.tar"]].concat()).run().status(2);
    let told = told(&ran);
    let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    for (name, (image, error)) in names.iter().zip(&told) {
        assert_eq!(name, image);
        assert!(error.contains("archive") || error.contains("empty"), "{name}: {error}");
    }
    let text = told[6].1;
    assert_eq!(told[6..], [("a.png", text), ("b.png", text), ("a.png", text)]);
}

/// Unpacked, the last member of a name would be left; so it is with the sidecar, in each run anew.
#[test]
fn a_sidecar_keeps_the_last_member_of_a_name() {
    let folder = place();
    let read = |name: &str| std::fs::read(&pictures("vit-bert")[usize::from(name == "b")]).unwrap();
    let files = |names: [&str; 2]| names.map(|name| ("a.png".to_string(), read(name)));
    std::fs::write(folder.path().join("ab.tar"), tar_of(&files(["a", "b"]))).unwrap();
    let texts = told(&ocr(folder.path(), &["ab.tar"]).run().status(0));
    assert_ne!(texts[0].1, texts[1].1);
    let sidecar = || std::fs::read_to_string(folder.path().join("ab/a.txt")).unwrap();
    // A member has no time of its own by which the sidecar could be newer.
    for (existing, stays) in [("skip", true), ("newer", false), ("overwrite", false)] {
        let args = ["ab.tar", "--sidecar", "--batch-size", "1", "--existing", existing];
        let ran = ocr(folder.path(), &args).run().status(0);
        assert!(ran.stderr.contains("2 ok, 0 skipped"), "{}", ran.stderr);
        assert_eq!(sidecar(), format!("{}\n", texts[1].1), "{existing}");
        // What an earlier run wrote stays.
        std::fs::write(folder.path().join("ab/a.txt"), "mine\n").unwrap();
        ocr(folder.path(), &args).run().status(0);
        assert_eq!(sidecar() == "mine\n", stays, "{existing}");
        std::fs::remove_file(folder.path().join("ab/a.txt")).unwrap();
    }
}

/// A list of one name that leads nowhere is a run whose one input failed.
#[test]
fn a_list_of_nothing_readable_is_told_in_its_record() {
    let folder = place();
    std::fs::write(folder.path().join("broken.zip"), "PK\x03\x04 and no more").unwrap();
    std::fs::write(folder.path().join("list"), "broken.zip\n").unwrap();
    std::fs::write(folder.path().join("e.jsonl"), "{\"image\":\"old.png\"}\n").unwrap();
    let args = ["--files-from", "list", "--errors", "e.jsonl"];
    let told = told(&ocr(folder.path(), &args).run().status(2));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "broken.zip");
    assert!(told[0].1.starts_with("damaged zip archive"), "{}", told[0].1);
    let ledger = std::fs::read_to_string(folder.path().join("e.jsonl")).unwrap();
    assert!(ledger.contains("broken.zip") && !ledger.contains("old.png"), "{ledger}");
}

/// A directory deeper than most, with links that lead back into it and to nowhere.
#[cfg(unix)]
#[test]
fn deep_directories_and_loops_of_links_end() {
    use std::os::unix::fs::symlink;

    let folder = place();
    let mut deep = folder.path().to_path_buf();
    for _ in 0..120 {
        deep.push("deep");
        std::fs::create_dir(&deep).unwrap();
        symlink("..", deep.join("up")).unwrap();
    }
    std::fs::copy(&pictures("vit-bert")[0], deep.join("a.png")).unwrap();
    symlink(&deep, folder.path().join("down")).unwrap();
    symlink("itself.png", folder.path().join("itself.png")).unwrap();
    symlink("nowhere", folder.path().join("lost.jpg")).unwrap();
    symlink(deep.join("a.png"), folder.path().join("linked.png")).unwrap();
    let told = told(&ocr(folder.path(), &[".", "--recursive"]).run().status(2));
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.png", "itself.png", "linked.png", "lost.jpg"]);
    assert_eq!(told[0].1, told[2].1);
    assert_eq!(told[3].1, "no such file");
    assert!(told[1].1.starts_with("can't be read"), "{}", told[1].1);
    // A link to a directory is followed where it is named.
    assert_eq!(ocr(folder.path(), &["down"]).run().status(0).stdout.lines().count(), 1);
}

/// Names are bytes: each file is found again under its own name, in lists and for its sidecar.
#[cfg(target_os = "linux")]
#[test]
fn names_need_not_be_utf_8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = place();
    let names: [&[u8]; 3] = [b"\xFF\xE9.png", b"line\nend.png", b" {stem}\t.png"];
    for name in names {
        let path = folder.path().join(OsStr::from_bytes(name));
        std::fs::copy(&pictures("vit-bert")[0], path).unwrap();
    }
    let list = names.join(&b'\0');
    let args = ["--files-from", "-", "--null"];
    let ran = ocr(folder.path(), &args).stdin(&list).run().status(0);
    let texts = told(&ran);
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[0].0, "\u{FFFD}\u{FFFD}.png");
    assert!(texts.iter().all(|(_, text)| *text == texts[0].1));
    let args = [".", "--sidecar"];
    ocr(folder.path(), &args).run().status(0);
    for name in names {
        let sidecar = Path::new(OsStr::from_bytes(name)).with_extension("txt");
        let text = std::fs::read_to_string(folder.path().join(&sidecar)).unwrap();
        assert_eq!(text, format!("{}\n", texts[0].1), "{sidecar:?}");
    }
}
