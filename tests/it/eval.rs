//! `vedm eval` on the golden checkpoints: figures, faults, forms.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ran, Vedm, append, golden, pictures};

const CASE: &str = "vit-bert";
/// Short texts: the random models write on to the limit.
const SHORT: [&str; 2] = ["--max-new-tokens", "6"];

/// What the model of the case writes under its pictures.
fn texts() -> Vec<(String, String)> {
    let mut args = vec!["caption".to_string(), "--format".to_string(), "jsonl".to_string()];
    args.extend(["--model".to_string(), golden(CASE).display().to_string()]);
    args.extend(SHORT.map(str::to_string));
    args.extend(pictures(CASE).iter().map(|path| path.display().to_string()));
    let ran = Vedm::new(&args).run().status(0);
    let records = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_string();
    records.map(|record| (text(&record, "image"), text(&record, "text"))).collect()
}

fn table(folder: &Path, rows: &[(&str, &str)]) -> String {
    let path = folder.join("test.csv");
    let mut csv = csv::Writer::from_path(&path).unwrap();
    csv.write_record(["image", "text"]).unwrap();
    rows.iter().for_each(|(image, text)| csv.write_record([image, text]).unwrap());
    csv.flush().unwrap();
    path.display().to_string()
}

fn eval(folder: &TempDir, rows: &[(&str, &str)], more: &[&str]) -> Ran {
    let (data, model) = (table(folder.path(), rows), golden(CASE).display().to_string());
    let mut args = vec!["eval", "--task", "caption", "--model", &model, "--data", &data];
    args.extend(SHORT);
    args.extend(more);
    Vedm::new(&args).run()
}

fn json(ran: Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn the_models_own_texts_score_full_marks() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts();
    let rows: Vec<(&str, &str)> = texts.iter().map(|(i, t)| (i.as_str(), t.as_str())).collect();
    let found = json(eval(&folder, &rows, &["--format", "json"]).status(0));
    assert_eq!(found["images"], rows.len());
    assert_eq!((found["cer"].as_f64(), found["exact_match"].as_f64()), (Some(0.0), Some(1.0)));
    assert_eq!(found["worst"], serde_json::json!([]));
    // The same in other case: exact only if case is ignored.
    let upper: Vec<(&str, String)> = rows.iter().map(|(i, t)| (*i, t.to_uppercase())).collect();
    let upper: Vec<(&str, &str)> = upper.iter().map(|(i, t)| (*i, t.as_str())).collect();
    let found = json(eval(&folder, &upper, &["--format", "json"]).status(0));
    assert_eq!(found["exact_match"].as_f64(), Some(0.0));
    let found = json(eval(&folder, &upper, &["--format", "json", "--ignore-case"]).status(0));
    assert_eq!(found["exact_match"].as_f64(), Some(1.0));
}

#[test]
fn edits_are_counted_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (image, text) = texts().swap_remove(0);
    // One character replaced by one that the vocabulary lacks, one added.
    let label = format!("{}\u{2603}\u{2603}", &text[..text.len() - 1]);
    let predictions = folder.path().join("predictions.jsonl").display().to_string();
    let more = ["--format", "json", "--predictions", predictions.as_str()];
    let found = json(eval(&folder, &[(&image, &label)], &more).status(0));
    assert_eq!(found["counts"]["character_edits"], 2);
    assert_eq!(found["counts"]["characters"], label.chars().count());
    let last = text.chars().last().unwrap().to_string();
    let confusions = &found["confusions"];
    assert_eq!(confusions["substitutions"].as_array().unwrap().len(), 1);
    assert_eq!(confusions["substitutions"][0][1], last.as_str());
    assert_eq!(confusions["deletions"], serde_json::json!([["\u{2603}", 1]]));
    let line = std::fs::read_to_string(&predictions).unwrap();
    let prediction: Value = serde_json::from_str(line.trim_end()).unwrap();
    assert_eq!(prediction["text"], text.as_str());
    assert_eq!(prediction["labels"], serde_json::json!([label]));
    let shown = eval(&folder, &[(&image, &label)], &[]).status(0).stdout;
    for words in ["2 edits on", "worst", &format!("\u{2603}>{last} 1"), "images/s"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn several_labels_of_an_image_are_one_item() {
    let folder = tempfile::tempdir().unwrap();
    let (image, text) = texts().swap_remove(0);
    let found = json(
        eval(&folder, &[(&image, "another"), (&image, &text)], &["--format", "json"]).status(0),
    );
    assert_eq!((&found["images"], found["exact_match"].as_f64()), (&Value::from(1), Some(1.0)));
}

#[test]
fn bad_images_are_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let (image, text) = texts().swap_remove(0);
    let rows = [("missing.png", "x"), (image.as_str(), text.as_str())];
    let ran = eval(&folder, &rows, &["--format", "json"]).status(2);
    assert!(ran.stderr.contains("missing.png: no such file"), "{}", ran.stderr);
    let found = json(ran);
    assert_eq!((&found["images"], found["cer"].as_f64()), (&Value::from(1), Some(0.0)));
    assert_eq!(found["failed"].as_array().unwrap().len(), 1);
    // As of `ocr` when all inputs fail.
    let ran = eval(&folder, &rows[..1], &[]).status(2);
    assert!(ran.stderr.contains("none of the 1 images could be read"), "{}", ran.stderr);
}

#[test]
fn predictions_are_refused_where_they_cannot_or_must_not_lie() {
    let folder = tempfile::tempdir().unwrap();
    let (image, text) = texts().swap_remove(0);
    let picture = folder.path().join("a.png");
    std::fs::copy(&image, &picture).unwrap();
    let picture = picture.display().to_string();
    let rows = [(picture.as_str(), text.as_str())];
    let table = folder.path().join(".").join("test.csv").display().to_string();
    let missing = folder.path().join("none/p.csv").display().to_string();
    for (file, words) in [
        (&picture, "is a picture"),
        (&table, "is a part of --data"),
        (&missing, "--predictions: can't write"),
    ] {
        let ran = eval(&folder, &rows, &["--predictions", file]).status(1);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "nothing was computed");
    }
    assert_eq!(std::fs::read(&picture).unwrap(), std::fs::read(&image).unwrap());
    assert!(std::fs::read_to_string(&table).unwrap().starts_with("image,text"));
    let new = folder.path().join("p.csv").display().to_string();
    eval(&folder, &rows, &["--predictions", &new]).status(0);
    assert!(std::fs::read_to_string(&new).unwrap().starts_with("image,text,label"));
}

#[test]
fn a_hopeless_score_names_its_usual_causes() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts();
    let rows: Vec<(&str, &str)> = texts.iter().map(|(image, _)| (image.as_str(), "~")).collect();
    let told = eval(&folder, &rows, &[]).status(0).stderr;
    for words in
        ["more edits than characters", "the start token", "the tokenizer", "limit of length"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn members_of_a_tar_file_are_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let (image, text) = texts().swap_remove(0);
    let path = folder.path().join("test.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    tar.append_path_with_name(&image, "a.png").unwrap();
    append(&mut tar, "a.txt", text.as_bytes());
    tar.into_inner().unwrap();
    let (data, model) = (path.display().to_string(), golden(CASE).display().to_string());
    let mut args = vec!["eval", "--model", &model, "--data", &data, "--format", "json"];
    args.extend(SHORT);
    let found = json(Vedm::new(&args).run().status(0));
    assert_eq!(found["exact_match"].as_f64(), Some(1.0));
}

/// `vedm eval` of a folder or a tar file of the golden model.
fn eval_of(data: &Path) -> Ran {
    let (data, model) = (data.display().to_string(), golden(CASE).display().to_string());
    let mut args = vec!["eval", "--model", &model, "--data", &data, "--format", "json"];
    args.extend(SHORT);
    Vedm::new(&args).run()
}

#[test]
fn images_without_a_text_are_told_and_not_scored() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (image, text) = texts().swap_remove(0);
    for name in ["a.png", "b.png"] {
        std::fs::copy(&image, folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("a.txt"), &text).unwrap();
    let archive = elsewhere.path().join("test.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    tar.append_path_with_name(&image, "a.png").unwrap();
    append(&mut tar, "a.txt", text.as_bytes());
    tar.append_path_with_name(&image, "b.png").unwrap();
    tar.into_inner().unwrap();
    for data in [folder.path(), &archive] {
        let ran = eval_of(data).status(2);
        assert!(ran.stderr.contains("b.png: no text lies beside it"), "{}", ran.stderr);
        let found = json(ran);
        assert_eq!((&found["images"], found["cer"].as_f64()), (&Value::from(1), Some(0.0)));
    }
    // An empty text is one: the page is meant to be blank.
    std::fs::write(folder.path().join("b.txt"), "").unwrap();
    assert_eq!(json(eval_of(folder.path()).status(0))["images"], 2);
}

#[test]
fn bad_rows_of_a_table_are_told_as_missing_files_are() {
    let folder = tempfile::tempdir().unwrap();
    let (image, text) = texts().swap_remove(0);
    let name = |name: &str| {
        let path = folder.path().join(name);
        std::fs::copy(&image, &path).unwrap();
        path.display().to_string()
    };
    let lines = [
        serde_json::json!({"image": name("a.png"), "text": text}),
        serde_json::json!({"image": name("b.png"), "text": []}),
        serde_json::json!({"image": name("c.png"), "text": null}),
        serde_json::json!({"image": "", "text": "x"}),
    ];
    let data = folder.path().join("test.jsonl");
    std::fs::write(&data, lines.map(|line| line.to_string()).join("\n")).unwrap();
    let ran = eval_of(&data).status(2);
    for words in [
        "b.png: no text lies beside it",
        "c.png: no text lies beside it",
        "test.jsonl, line 4: the image is not a path",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let found = json(ran);
    assert_eq!((&found["images"], found["exact_match"].as_f64()), (&Value::from(1), Some(1.0)));
    assert_eq!(found["failed"].as_array().unwrap().len(), 3);
}

#[test]
fn unreadable_tables_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    std::fs::write(&path, "path,words\na.png,b\n").unwrap();
    let (data, model) = (path.display().to_string(), golden(CASE).display().to_string());
    let ran = Vedm::new(&["eval", "--model", &model, "--data", &data]).run().status(1);
    assert!(ran.stderr.contains("--image-column names the column"), "{}", ran.stderr);
}
