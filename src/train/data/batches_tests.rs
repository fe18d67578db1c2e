//! Batches are a function of options and place.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use super::*;
use crate::image::{DecodeOptions, ImageProcessor, Rgb8};
use crate::train::data::table::ImageSource;

/// `n` images of one colour each, its number; row `i` has `1 + i % 5` label tokens.
fn dataset(folder: &Path, n: usize, cache_bytes: u64, arranged: bool) -> Dataset {
    let sources: Vec<ImageSource> = (0..n)
        .map(|index| {
            let path: PathBuf = folder.join(format!("{index}.png"));
            ::image::RgbImage::from_pixel(6, 4, ::image::Rgb([index as u8; 3]))
                .save(&path)
                .unwrap();
            ImageSource::File(path)
        })
        .collect();
    let processor = ImageProcessor::from_json(
        &serde_json::json!({
            "image_processor_type": "ViTImageProcessor", "size": {"height": 2, "width": 3},
            "do_normalize": false, "rescale_factor": 1.0,
        }),
        None,
    )
    .unwrap();
    let images = Images::new(sources, processor, DecodeOptions::default(), cache_bytes, arranged);
    let rows = (0..n).map(|image| Sample { image, label: vec![image as i64; 1 + image % 5] });
    Dataset::new(Arc::new(images), rows.collect())
}

fn options() -> BatchOptions {
    BatchOptions {
        batch_size: 4,
        seed: 42,
        shuffle: true,
        group_by_length: false,
        workers: Some(2),
        ..BatchOptions::default()
    }
}

/// Row numbers of some batches; each is checked to have the pixels that go with its label.
fn rows(batches: Batches, count: usize) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    for batch in batches.take(count) {
        let batch = batch.unwrap();
        assert_eq!(batch.shape, [batch.labels.len(), 3, 2, 3]);
        let rows: Vec<usize> = batch.labels.iter().map(|label| label[0] as usize).collect();
        for (row, pixels) in rows.iter().zip(batch.pixels.chunks(18)) {
            assert!(pixels.iter().all(|value| *value == *row as f32), "{row}: {pixels:?}");
        }
        found.push(rows);
    }
    found
}

#[test]
fn epochs_hold_every_row_once_in_the_order_of_torch() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path(), 10, 0, false);
    let found = rows(data.batches(&options(), Position::default()).unwrap(), 6);
    // torch.randperm(10) with the seeds 42 and 43.
    let first = [vec![2, 6, 1, 8], vec![4, 5, 0, 9], vec![3, 7]];
    let second = [vec![8, 4, 9, 0], vec![5, 1, 6, 7], vec![2, 3]];
    assert_eq!(found[..3], first);
    assert_eq!(found[3..], second);
}

#[test]
fn threads_cache_and_resuming_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plain = dataset(folder.path(), 23, 0, false);
    let grouped = BatchOptions { group_by_length: true, workers: Some(1), ..options() };
    let expected = rows(plain.batches(&grouped, Position::default()).unwrap(), 14);
    for (cache, arranged, workers) in
        [(0, false, 3), (200, true, 2), (1 << 20, true, 3), (1 << 20, false, 1)]
    {
        let data = dataset(folder.path(), 23, cache, arranged);
        let options = BatchOptions { workers: Some(workers), ..grouped.clone() };
        let mut start = Position::default();
        for (number, batch) in data.batches(&options, start).unwrap().take(14).enumerate() {
            let rest = rows(data.batches(&options, start).unwrap(), 14 - number);
            assert_eq!(rest, expected[number..]);
            start = batch.unwrap().next;
        }
    }
}

#[test]
fn augmented_batches_depend_on_seed_epoch_and_row_alone() {
    let folder = tempfile::tempdir().unwrap();
    let read = |workers, seed, cache| {
        let data = dataset(folder.path(), 12, cache, false);
        let augment = Some("contrast,noise".parse().unwrap());
        let options = BatchOptions { workers: Some(workers), seed, augment, ..options() };
        let batches = data.batches(&options, Position::default()).unwrap();
        batches.take(6).map(|batch| batch.unwrap().pixels).collect::<Vec<_>>()
    };
    let expected = read(1, 42, 0);
    assert_eq!(read(3, 42, 1 << 20), expected);
    assert_ne!(read(3, 43, 1 << 20), expected);
    // The second epoch sees other changes of the same pictures.
    let sum = |batches: &[Vec<f32>]| batches.iter().flatten().map(|v| f64::from(*v)).sum::<f64>();
    assert_ne!(sum(&expected[..3]), sum(&expected[3..]));
}

#[test]
fn one_pass_ends() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path(), 9, 0, false);
    let options = BatchOptions { shuffle: false, epochs: Some(1), ..options() };
    let all = data.batches(&options, Position::default()).unwrap();
    assert_eq!(rows(all, 100), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8]]);
    let error = data.batches(&options, Position { epoch: 0, index: 10 }).err().unwrap();
    assert!(error.to_string().contains("it has changed"), "{error}");
}

#[test]
fn a_lost_image_ends_the_batches_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path(), 4, 0, false);
    std::fs::remove_file(folder.path().join("2.png")).unwrap();
    let mut batches = data.batches(&options(), Position::default()).unwrap();
    let error = batches.next().unwrap().unwrap_err().to_string();
    let told = "2.png: no such file; --skip-bad-rows leaves such rows out";
    assert!(error.ends_with(told), "{error}");
    assert!(batches.next().is_none());
}

#[test]
fn a_lost_image_is_left_out_if_that_is_wished() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path(), 10, 0, false);
    // The first batch loses two rows, the last one of the epoch all it has.
    for lost in [2, 8, 3, 7] {
        std::fs::remove_file(folder.path().join(format!("{lost}.png"))).unwrap();
    }
    let options = BatchOptions { skip_bad_rows: true, ..options() };
    // Every image is told once.
    let batches: Vec<Batch> =
        data.batches(&options, Position::default()).unwrap().take(6).map(Result::unwrap).collect();
    let told: Vec<usize> = batches.iter().map(|batch| batch.left_out.len()).collect();
    assert_eq!(told, [2, 0, 2, 0, 0, 0]);
    assert!(batches[0].left_out[0].ends_with("2.png: no such file"));
    let labels: Vec<Vec<i64>> =
        batches.iter().map(|batch| batch.labels.iter().map(|label| label[0]).collect()).collect();
    assert_eq!(labels[..3], [vec![6, 1], vec![4, 5, 0, 9], vec![]]);
    assert_eq!(batches[2].next, Position { epoch: 1, index: 0 });
    let without = BatchOptions { pixels: false, ..options.clone() };
    let known = data.batches(&without, Position::default()).unwrap().next().unwrap().unwrap();
    assert_eq!((known.images, known.shape[0]), (vec![6, 1], 2));
    (0..10)
        .for_each(|image| drop(std::fs::remove_file(folder.path().join(format!("{image}.png")))));
    let end = read_all(&data, &options);
    assert_eq!(end, "not one of the 10 rows can be used");
}

/// The error that ends the batches.
fn read_all(data: &Dataset, options: &BatchOptions) -> String {
    let mut batches = data.batches(options, Position::default()).unwrap();
    batches.find_map(Result::err).unwrap().to_string()
}

#[test]
fn labels_are_filled_with_the_ignored_id() {
    let batch = Batch {
        pixels: vec![0.0; 2],
        shape: [2, 1, 1, 1],
        labels: vec![vec![5, 6, 7], vec![8]],
        images: vec![],
        next: Position::default(),
        content: None,
        left_out: vec![],
    };
    let rows: Vec<Vec<i64>> = Vec::try_from(batch.label_ids()).unwrap();
    assert_eq!(rows, [[5, 6, 7], [8, -100, -100]]);
    assert_eq!(batch.pixel_values().size(), [2, 1, 1, 1]);
}

#[test]
fn padding_is_what_every_image_has_of_it() {
    let processor = ImageProcessor::from_json(
        &serde_json::json!({
            "image_processor_type": "DonutImageProcessor", "size": {"height": 2, "width": 12},
            "do_align_long_axis": false,
        }),
        None,
    )
    .unwrap();
    // White bars of so many columns, padded on both sides.
    let bar = |width: usize| {
        let image = Rgb8 { width, height: 2, data: vec![255; width * 6] };
        processor.process(&image).unwrap()
    };
    let content = |images: Vec<Pixels>| {
        let mut batch = Batch::stack(images, Vec::<Vec<i64>>::new(), Position::default()).unwrap();
        batch.find_content(&processor);
        batch.content.unwrap()
    };
    assert_eq!(content(vec![bar(4)]), 4..8);
    assert_eq!(content(vec![bar(4), bar(8), bar(2)]), 2..10);
    assert_eq!(content(vec![bar(12)]), 0..12);
    // Nothing but padding is kept whole.
    let black = Rgb8 { width: 12, height: 2, data: vec![0; 72] };
    assert_eq!(content(vec![processor.process(&black).unwrap()]), 0..12);
}
