//! Tables in all their forms.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

fn read(name: &str, content: &[u8]) -> Result<Vec<(usize, String, String)>> {
    read_with(name, content, &TableOptions::default())
}

/// Line, image (without the folder) and text of every row.
fn read_with(
    name: &str,
    content: &[u8],
    options: &TableOptions,
) -> Result<Vec<(usize, String, String)>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    plain(folder.path(), Table::read(&path, options)?)
}

fn plain(folder: &Path, table: Table) -> Result<Vec<(usize, String, String)>> {
    let prefix = format!("{}/", folder.display());
    let rows = table.rows.into_iter();
    let text = |row: &Row| row.text.clone().unwrap_or_else(|| "(none)".to_string());
    Ok(rows.map(|row| (row.line, row.image.name().replace(&prefix, ""), text(&row))).collect())
}

fn row(line: usize, image: &str, text: &str) -> (usize, String, String) {
    (line, image.to_string(), text.to_string())
}

#[allow(clippy::type_complexity)]
#[test]
fn tables_of_every_form() {
    let table: &[(&str, &str, &[(usize, &str, &str)])] = &[
        (
            "a.csv",
            "image,text\na.png,Ä b\nsub/b.png,c\n",
            &[(2, "a.png", "Ä b"), (3, "sub/b.png", "c")],
        ),
        ("bom.csv", "\u{feff}image,text\r\na.png,b\r\n", &[(2, "a.png", "b")]),
        ("extra.csv", "id,caption,file_name\n7,\"one, two\",a.png\n", &[(2, "a.png", "one, two")]),
        (
            "lines.csv",
            "image,text\na.png,\"x\ny\"\nb.png,z\n",
            &[(2, "a.png", "x\ny"), (4, "b.png", "z")],
        ),
        ("excel.csv", "image;text\na.png;1,5\n", &[(2, "a.png", "1,5")]),
        ("a.tsv", "image_path\ttext\na.png\tb, c\n", &[(2, "a.png", "b, c")]),
        (
            "a.JSONL",
            "{\"image\":\"a.png\",\"text\":\"b\"}\n\n{\"text\":[\"c\",\"d\"],\"image\":\"e.png\"}",
            &[(1, "a.png", "b"), (3, "e.png", "c"), (3, "e.png", "d")],
        ),
        (
            "quotes.csv",
            "image,text\na.png,5\"\nb.png,\"say \"\"x\"\"\"",
            &[(2, "a.png", "5\""), (3, "b.png", "say \"x\"")],
        ),
        ("keep.csv", "image,text\na.png,  blanks stay \n", &[(2, "a.png", "  blanks stay ")]),
    ];
    for (name, content, expected) in table {
        let expected: Vec<_> = expected.iter().map(|(l, i, t)| row(*l, i, t)).collect();
        assert_eq!(read(name, content.as_bytes()).unwrap(), expected, "{name}");
    }
}

#[test]
fn columns_by_name() {
    let options = TableOptions {
        image_column: Some("scan".to_string()),
        text_column: Some("truth".to_string()),
    };
    let rows = read_with("a.csv", b"image,scan,truth,text\nx,a.png,b,y\n", &options).unwrap();
    assert_eq!(rows, [row(2, "a.png", "b")]);
}

#[test]
fn mistakes_are_sentences() {
    let table: &[(&str, &[u8], &str)] = &[
        ("a.csv", b"path,text\na,b\n", "has no column image or file_name or image_path"),
        ("a.csv", b"image,label\na,b\n", "--text-column names the column"),
        ("a.csv", b"image,text\n", "has no rows"),
        ("a.csv", b"image,text\na,b\nc,\"d\ne,f\n", "line 3: a quote is opened and never closed"),
        ("a.csv", b"image,text\na,\"b\"\"\nc,d", "line 2: a quote is opened and never closed"),
        ("a.csv", b"", "has no column"),
        ("a.csv", b"image,text\na,b\nc,\xe4\n", "line 3: not UTF-8"),
        ("a.jsonl", b"{\"image\":\"a\",\"text\":\"b\"}\n{\"image\"", "line 2"),
        ("a.jsonl", b"{\"image\":\"a\"}", "no key text or caption; there are [\"image\"]"),
        ("a.jsonl", b"[1]", "no key image"),
        ("a.txt", b"image,text\n", "its form is not known"),
        ("a.tar.gz", b"", "is compressed"),
        ("a.tar", b"", "has no pairs"),
    ];
    for (name, content, expected) in table {
        let error = format!("{:#}", read(name, content).unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
    }
    let error = Table::read(Path::new("/nowhere/a.csv"), &TableOptions::default()).unwrap_err();
    assert!(error.to_string().contains("no such file or directory"), "{error}");
}

#[test]
fn bad_rows_cost_no_more_than_themselves() {
    let table: &[(&str, &str, usize, &str)] = &[
        ("a.csv", "image,text\na.png,b,c\nb.png,x\n", 2, "3 fields where the header has 2"),
        ("b.csv", "image,text\na.png\nb.png,x\n", 2, "1 fields where the header has 2"),
        ("c.csv", "image,text\nb.png,x\n ,c\n", 3, "the column \"image\" is empty"),
        (
            "d.jsonl",
            "{\"image\":7,\"text\":\"a\"}\n{\"image\":\"b.png\",\"text\":\"x\"}",
            1,
            "the image is not a path",
        ),
        ("e.jsonl", "{\"image\":\"b.png\",\"text\":[\"x\", 7]}", 1, "the text is not a string"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, content, line, reason) in table {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let table = Table::read(&path, &TableOptions::default()).unwrap();
        let (lost, good): (Vec<Row>, Vec<Row>) =
            table.rows.into_iter().partition(|row| matches!(row.image, ImageSource::Lost { .. }));
        assert_eq!((good.len(), good[0].text.as_deref()), (1, Some("x")), "{name}");
        let error = lost[0].image.bytes().unwrap_err().to_string();
        assert!(error.starts_with(reason), "{name}: {error}");
        assert_eq!(lost[0].image.name(), format!("{}, line {line}", path.display()));
    }
    // No text is none, whether it is null or an empty list.
    let content = b"{\"image\":\"a.png\",\"text\":[]}\n{\"image\":\"b.png\",\"text\":null}";
    let expected = [row(1, "a.png", "(none)"), row(2, "b.png", "(none)")];
    assert_eq!(read("a.jsonl", content).unwrap(), expected);
}

#[test]
fn folders_of_pairs_and_of_metadata() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    for (name, content) in [
        ("b.png", "image"),
        ("b.txt", "second\n"),
        ("a.jpg", "image"),
        ("a.gt.txt", "first"),
        ("alone.png", "image"),
        ("LICENSE.txt", "no image"),
        ("sub/c.png", "image"),
        ("sub/c.txt", "two\nlines\r\n"),
        (".hidden.png", "image"),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let read = || plain(folder.path(), Table::read(folder.path(), &TableOptions::default())?);
    let expected = [
        row(1, "a.jpg", "first"),
        row(2, "alone.png", "(none)"),
        row(3, "b.png", "second"),
        row(4, "sub/c.png", "two\nlines"),
    ];
    assert_eq!(read().unwrap(), expected);
    fs::write(folder.path().join("metadata.csv"), "file_name,text\nb.png,from the table\n")
        .unwrap();
    assert_eq!(read().unwrap(), [row(2, "b.png", "from the table")]);
}

#[test]
fn a_folder_without_labels_names_the_table_in_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("labels.csv"), "image,text\n").unwrap();
    fs::write(folder.path().join("a.png"), "").unwrap();
    let error = Table::read(folder.path(), &TableOptions::default()).unwrap_err().to_string();
    assert!(error.contains("did you mean") && error.contains("labels.csv"), "{error}");
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn tar_files_are_read_in_place() {
    let bytes = tar_of(&[
        ("x/0.png", b"pixels of 0"),
        ("x/0.json", b"{}"),
        ("x/0.txt", b"zero\n"),
        ("x/1.txt", b"one"),
        ("x/1.png", b"pixels of 1"),
        ("x/2.png", b"alone"),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    fs::write(&path, bytes).unwrap();
    for place in [path.as_path(), folder.path()] {
        let table = Table::read(place, &TableOptions::default()).unwrap();
        let rows = table.rows.iter();
        let found: Vec<_> =
            rows.map(|row| (row.image.bytes().unwrap(), row.text.as_deref())).collect();
        let expected = [
            (b"pixels of 0".to_vec(), Some("zero")),
            (b"pixels of 1".to_vec(), Some("one")),
            (b"alone".to_vec(), None),
        ];
        assert_eq!(found, expected);
    }
}

#[test]
fn a_split_parts_images_not_rows() {
    let rows: Vec<Row> = (0..100)
        .map(|line| Row {
            line,
            image: ImageSource::File(format!("{}.png", line / 5).into()),
            text: None,
        })
        .collect();
    let table = Table { path: "t.csv".into(), rows };
    let (train, eval) = table.clone().split(0.1, 42).unwrap();
    assert_eq!((train.rows.len(), eval.rows.len()), (90, 10));
    let of_eval: Vec<_> = eval.images().into_iter().map(|(image, _)| image.clone()).collect();
    assert!(train.rows.iter().all(|row| !of_eval.contains(&row.image)));
    assert_eq!(table.clone().split(0.1, 42).unwrap().1.rows, eval.rows);
    for (part, expected) in [(0.0, "between 0 and 1"), (0.99, "leaves no image")] {
        let error = table.clone().split(part, 42).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
