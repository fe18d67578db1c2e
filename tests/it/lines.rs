//! `ocr --lines`: pages cut into lines and read.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Vedm, tests_folder};

/// The shipped samples of single lines, one below the other on one page.
fn page() -> (TempDir, usize) {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/samples");
    let mut names: Vec<_> =
        std::fs::read_dir(samples).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let lines: Vec<image::GrayImage> = names
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .map(|path| {
            let line = image::open(path).unwrap().to_luma8();
            let width = line.width() * 32 / line.height();
            image::imageops::resize(&line, width, 32, image::imageops::FilterType::Triangle)
        })
        // Dark print alone: a band of white on black is another page.
        .filter(|line| {
            line.pixels().map(|p| u64::from(p.0[0])).sum::<u64>() > 160 * line.len() as u64
        })
        .collect();
    let width = lines.iter().map(image::GrayImage::width).max().unwrap() + 80;
    let mut page =
        image::GrayImage::from_pixel(width, 60 * lines.len() as u32 + 60, image::Luma([250]));
    for (line, number) in lines.iter().zip(0..) {
        image::imageops::replace(&mut page, line, 40, 60 * number + 30);
    }
    let folder = tempfile::tempdir().unwrap();
    page.save(folder.path().join("page.png")).unwrap();
    (folder, lines.len())
}

fn ocr(folder: &Path, args: &[&str]) -> crate::support::Ran {
    Vedm::new(&[&["ocr", "page.png", "--lines"], args].concat()).dir(folder).run()
}

#[test]
fn a_page_is_read_line_by_line() {
    let (folder, count) = page();
    let ran = ocr(folder.path(), &["--format", "jsonl"]).status(0);
    let records: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), count, "{}", ran.stdout);
    for (record, number) in records.iter().zip(1u64..) {
        assert_eq!(record["line"], number);
        let top = record["bbox"][1].as_u64().unwrap();
        let expected = 60 * (number - 1) + 30;
        assert!(top.abs_diff(expected) <= 16, "line {number} begins at {top}, not {expected}");
    }
    // One image: its lines one below the other.
    let text = ocr(folder.path(), &[]).status(0).stdout;
    let texts: Vec<&str> = records.iter().map(|record| record["text"].as_str().unwrap()).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), texts);
}

#[test]
fn pages_become_hocr_and_alto() {
    let (folder, count) = page();
    let hocr = ocr(folder.path(), &["--format", "hocr"]).status(0).stdout;
    assert_eq!(hocr.matches("class=\"ocr_line\"").count(), count, "{hocr}");
    let alto = ocr(folder.path(), &["--format", "alto"]).status(0).stdout;
    assert_eq!(alto.matches("<TextLine").count(), count, "{alto}");
    let ran =
        Vedm::new(&["ocr", "page.png", "--format", "hocr"]).dir(folder.path()).run().status(1);
    assert!(ran.stderr.contains("they go with ocr --lines"), "{}", ran.stderr);
    // Two pages in one document.
    let args = ["ocr", "page.png", "page.png", "--lines", "--format", "alto"];
    let alto = Vedm::new(&args).dir(folder.path()).run().status(0).stdout;
    assert_eq!(alto.matches("<Page ").count(), 2, "{alto}");
    assert_eq!(alto.matches("<TextLine").count(), 2 * count, "{alto}");
}

/// Pages keep the numbers that they have in their file, whatever is read of it.
#[test]
fn documents_number_the_physical_pages() {
    let folder = tempfile::tempdir().unwrap();
    let pages = tests_folder("../src/image/testdata/images/pages.tif");
    std::fs::copy(pages, folder.path().join("book.tif")).unwrap();
    let numbers = |args: &[&str], format: &str, before: &str| -> Vec<String> {
        let args = [&["ocr", "--lines", "--format", format], args].concat();
        let document = Vedm::new(&args).dir(folder.path()).run().stdout;
        let parts = document.split(before).skip(1);
        parts.map(|part| part.chars().take_while(char::is_ascii_digit).collect()).collect()
    };
    let hocr = |args: &[&str]| numbers(args, "hocr", "ppageno ");
    assert_eq!(hocr(&["book.tif"]), ["0", "1", "2"]);
    assert_eq!(hocr(&["book.tif", "--pages", "1,3"]), ["0", "2"]);
    // What can't be read has a number too.
    assert_eq!(hocr(&["book.tif", "no.png", "book.tif", "--pages", "2-"]), ["1", "2", "5", "6"]);
    let alto = numbers(&["book.tif", "--pages", "1,3"], "alto", "PHYSICAL_IMG_NR=\"");
    assert_eq!(alto, ["1", "3"]);
}
