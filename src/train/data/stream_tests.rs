//! Streams are read with commands of the shell over tar files that were made before.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::text::Tokenizer;

/// The small tokenizer of the tests knows no more.
const DIGITS: usize = 6;

/// A tar file of `n` images of one colour, the number of each; every text is its number modulo `DIGITS`.
fn archive(folder: &Path, n: usize) -> String {
    let path = folder.join("a.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut append = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for index in 0..n {
        let image = ::image::RgbImage::from_pixel(3, 2, ::image::Rgb([index as u8; 3]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, ::image::ImageFormat::Png).unwrap();
        append(format!("{index:04}.png"), bytes.get_ref());
        append(format!("{index:04}.json"), b"{}");
        append(format!("{index:04}.txt"), format!("{}\n", index % DIGITS).as_bytes());
    }
    tar.into_inner().unwrap();
    path.display().to_string()
}

fn options() -> StreamOptions {
    StreamOptions {
        batch_size: 4,
        workers: Some(2),
        skip_bad_rows: false,
        decode: DecodeOptions::default(),
        augment: None,
        seed: 42,
        group_by_length: false,
        trim: false,
    }
}

/// Colours of the samples of all batches, and the error that ended them.
fn read(command: &str, options: &StreamOptions, skip: u64) -> (Vec<Vec<usize>>, String, u64) {
    let processor = ImageProcessor::from_json(
        &serde_json::json!({
            "image_processor_type": "ViTImageProcessor", "size": {"height": 2, "width": 3},
            "do_normalize": false, "rescale_factor": 1.0,
        }),
        None,
    )
    .unwrap();
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vit-gpt2");
    let tokenizer = Tokenizer::from_dir(&case, None).unwrap();
    let labeller = Labeller::new(&tokenizer, None, 16, 1000).unwrap();
    let stream = Stream::parse(&format!("pipe:{command}")).unwrap().unwrap();
    let start = Position { epoch: 0, index: skip };
    let mut batches = stream.batches(&processor, options, start).unwrap();
    let (mut found, mut index) = (Vec::new(), skip);
    loop {
        match batches.next(&labeller) {
            Ok(batch) => {
                let colours = batch.pixels.chunks(18).map(|pixels| pixels[0] as usize);
                let colours: Vec<usize> = colours.collect();
                for (colour, label) in colours.iter().zip(&batch.labels) {
                    let text = labeller.decode(label).unwrap();
                    assert_eq!(text, (colour % DIGITS).to_string(), "labels go with their images");
                }
                found.push(colours);
                index = batch.next.index;
            }
            Err(error) => return (found, format!("{error:#}"), index),
        }
    }
}

#[test]
fn samples_are_batched_as_they_come_and_the_end_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = archive(folder.path(), 10);
    let (found, error, index) = read(&format!("cat {path}"), &options(), 0);
    assert_eq!(found, [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
    assert!(error.contains("ended after 10 samples (exit status: 0)"), "{error}");
    assert_eq!(index, 8);
}

#[test]
fn a_resumed_stream_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = archive(folder.path(), 12);
    let (found, ..) = read(&format!("cat {path}"), &options(), 4);
    assert_eq!(found, [vec![4, 5, 6, 7], vec![8, 9, 10, 11]]);
    // The command skips by itself: it is told how many, and nothing is dropped.
    let note = folder.path().join("skipped");
    let command = format!("echo {{skip}} > {}; cat {path}", note.display());
    let (found, ..) = read(&command, &options(), 4);
    assert_eq!(found[0], [0, 1, 2, 3]);
    assert_eq!(std::fs::read_to_string(note).unwrap(), "4\n");
}

#[test]
fn failing_commands_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = archive(folder.path(), 4);
    let table = [
        ("exit 3".to_string(), "exit status: 3"),
        ("no-such-command-here 2>/dev/null".to_string(), "exit status: 127"),
        ("yes this is no archive".to_string(), "no tar archive"),
        (format!("head -c 1500 {path}"), "after 0 samples"),
        (format!("cat {path}; cat {path} | head -c 1"), "ended after 4 samples"),
    ];
    for (command, expected) in table {
        let (_, error, _) = read(&command, &options(), 0);
        assert!(error.contains(expected), "{command}: {error}");
    }
}

#[test]
fn bad_samples_are_refused_or_left_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.png"), "no image").unwrap();
    std::fs::write(folder.path().join("bad.txt"), "5").unwrap();
    let bad = format!("tar -C {} -c bad.png bad.txt", folder.path().display());
    let (found, error, _) = read(&bad, &StreamOptions { batch_size: 1, ..options() }, 0);
    assert!(found.is_empty() && error.contains("bad.png: "), "{error}");
    assert!(error.contains("--skip-bad-rows"), "{error}");
    let skipping = StreamOptions { batch_size: 1, skip_bad_rows: true, ..options() };
    let (found, error, _) = read(&bad, &skipping, 0);
    assert!(found == [[0; 0]] && error.contains("ended after 1 samples"), "{error}");
}

#[test]
fn a_stream_that_is_no_longer_wanted_ends_its_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = archive(folder.path(), 300);
    let processor = ImageProcessor::default_for("vit").unwrap();
    // The number of the second command, which the shell waits for.
    let note = folder.path().join("number");
    let command = format!("pipe:sleep 600 & echo $! > {}; cat {path}; wait", note.display());
    let stream = Stream::parse(&command).unwrap().unwrap();
    let mut batches = stream.batches(&processor, &options(), Position::default()).unwrap();
    assert!(batches.batches.next().unwrap().is_ok());
    let number = std::fs::read_to_string(note).unwrap();
    drop(batches);
    // The leader ends the command when it finds that nobody waits; a dead process may still have a name.
    let gone = || {
        let state = Command::new("ps").args(["-o", "stat=", "-p", number.trim()]).output().unwrap();
        state.stdout.is_empty() || state.stdout.starts_with(b"Z")
    };
    let start = std::time::Instant::now();
    while !gone() {
        assert!(start.elapsed().as_secs() < 30, "the command is still running");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn commands_are_known_by_their_prefix() {
    assert!(Stream::parse("train.csv").unwrap().is_none());
    assert!(Stream::parse("pipe: ").unwrap_err().to_string().contains("a command is missing"));
}

#[test]
fn similar_samples_share_a_batch_and_a_window_is_cut_the_same_way_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = archive(folder.path(), 64);
    let grouped = StreamOptions { group_by_length: true, trim: true, ..options() };
    let (all, ..) = read(&format!("cat {path}"), &grouped, 0);
    assert_eq!(all.len(), 16);
    // All are of one shape: a stable sort leaves them in their order, only the batches are shuffled.
    let mut sorted = all.clone();
    sorted.sort();
    assert_ne!(sorted, all);
    assert_eq!(sorted.concat(), (0..64).collect::<Vec<usize>>());
    // Resumed after five batches, in the middle of the window.
    let (rest, _, index) = read(&format!("cat {path}"), &grouped, 20);
    assert_eq!((rest.as_slice(), index), (&all[5..], 64));
}
