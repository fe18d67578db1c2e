//! What the models that are shipped say of the samples that are shipped.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::support::Vedm;

/// The names of a folder's images, each with the texts that labels.csv allows.
fn labels(folder: &Path) -> HashMap<String, Vec<String>> {
    let table = std::fs::read_to_string(folder.join("labels.csv")).unwrap();
    let mut labels: HashMap<String, Vec<String>> = HashMap::new();
    for row in table.lines().skip(1) {
        let (image, text) = row.split_once(',').unwrap();
        labels.entry(image.to_string()).or_default().push(text.trim_matches('"').to_string());
    }
    labels
}

/// How many of the folder's images are told right, and how many there are.
fn right(folder: &str, args: &[&str]) -> (usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let labels = labels(&folder);
    let folder_name = folder.to_str().unwrap();
    let ran = Vedm::new(&[args, &[folder_name, "--format", "jsonl"]].concat()).run().status(0);
    let records: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), labels.len(), "{}", ran.stdout);
    let told = |record: &&Value| {
        let name = Path::new(record["image"].as_str().unwrap());
        let name = name.file_name().unwrap().to_str().unwrap();
        labels[name].iter().any(|label| record["text"] == label.as_str())
    };
    (records.iter().filter(told).count(), records.len())
}

#[test]
fn lines_are_read() {
    assert_eq!(right("assets/samples", &["ocr"]), (6, 6));
}

#[test]
fn drawings_are_named() {
    let args = ["caption", "--model", "vedm-caption-icons"];
    assert_eq!(right("assets/samples/icons", &args), (8, 8));
}
