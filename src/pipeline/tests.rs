//! Reading ahead, without a model; batches that have to fit the memory.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tch::Tensor;

use super::ahead::Ahead;
use super::gate::{Gate, Limits};
use super::input::Input;
use super::prepare::{Cut, Preparer};
use super::{DECODING, Reader, Record, Region, WAITING, Watch};
use crate::encoders::{Encoder, Grid};
use crate::image::{DecodeOptions, ImageProcessor, Pages, Rgb8};
use crate::ved::generation::GenerationConfig;
use crate::ved::{self, LoadOptions};

fn preparer() -> Preparer {
    let config = json!({
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
    });
    let processor = ImageProcessor::from_json(&config, None).unwrap();
    Preparer {
        processor,
        decode: DecodeOptions::default(),
        pages: None,
        cut: None,
        blank: None,
        one_line: false,
        explain: false,
    }
}

fn limits(workers: usize, inputs: usize) -> Limits {
    Limits { workers, inputs, decoding: DECODING, waiting: WAITING }
}

/// A grey PNM of one pixel, and files of any number of them.
fn picture(folder: &std::path::Path, name: &str, grey: u8) -> Input {
    let path = folder.join(name);
    std::fs::write(&path, [b"P5 1 1 255\n".as_slice(), &[grey]].concat()).unwrap();
    Input::file(path)
}

/// A TIFF of so many grey pages of one pixel.
fn tiff(folder: &std::path::Path, name: &str, pages: u8) -> Input {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    for page in 0..pages {
        let start = bytes.len() as u32;
        let entries: [(u16, u32); 8] = [
            (256, 1),
            (257, 1),
            (258, 8),
            (259, 1),
            (262, 1),
            (273, start + 2 + 8 * 12 + 4),
            (278, 1),
            (279, 1),
        ];
        bytes.extend(8u16.to_le_bytes());
        for (tag, value) in entries {
            bytes.extend([tag.to_le_bytes(), 4u16.to_le_bytes()].concat());
            bytes.extend([1u32.to_le_bytes(), value.to_le_bytes()].concat());
        }
        let next = if page + 1 == pages { 0 } else { bytes.len() as u32 + 4 + 2 };
        bytes.extend(next.to_le_bytes());
        bytes.extend([page * 10, 0]);
    }
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    Input::file(path)
}

#[allow(clippy::type_complexity)]
/// What comes out: name, page, line, and the first grey value in levels.
fn run(
    inputs: Vec<Input>,
    preparer: Preparer,
    limits: Limits,
) -> Vec<(String, Option<usize>, Option<usize>, Result<u8, String>)> {
    let ahead = Ahead::start(inputs.into_iter(), preparer, limits).unwrap();
    ahead
        .map(|unit| {
            let name = unit.image.rsplit('/').next().unwrap().to_string();
            let level = unit
                .outcome
                .map_err(|error| error.to_string())
                .map(|prepared| ((prepared.pixels.data[0] + 1.0) * 127.5).round() as u8);
            (name, unit.page, unit.region.map(|region| region.line), level)
        })
        .collect()
}

#[test]
fn pictures_come_in_the_order_of_the_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (workers, inputs) in [(1, 1), (1, 9), (4, 2), (4, 30)] {
        let mut named = vec![Input::failed("nowhere", "a reason")];
        for number in 0..20u8 {
            named.push(picture(folder, &format!("{number}.pgm"), number * 3));
            if number % 5 == 0 {
                named.push(tiff(folder, &format!("{number}.tif"), number % 4 + 2));
            }
        }
        let mut expected = vec![("nowhere".to_string(), None, None, Err("a reason".to_string()))];
        for number in 0..20u8 {
            expected.push((format!("{number}.pgm"), None, None, Ok(number * 3)));
            if number % 5 == 0 {
                expected.extend((0..number % 4 + 2).map(|page| {
                    let number_of_page = Some(usize::from(page) + 1);
                    (format!("{number}.tif"), number_of_page, None, Ok(page * 10))
                }));
            }
        }
        assert_eq!(run(named, preparer(), limits(workers, inputs)), expected);
    }
}

#[test]
fn a_page_may_be_asked_for_and_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pages: Pages = "2-3,5-".parse().unwrap();
    let preparer = Preparer { pages: Some(pages), ..preparer() };
    let mut inputs = vec![tiff(folder, "a.tif", 6), picture(folder, "b.pgm", 1)];
    inputs.push(Input { page: Some(4), ..tiff(folder, "a.tif", 6) });
    let found = run(inputs, preparer, limits(2, 8));
    let pages: Vec<Option<usize>> = found.iter().map(|unit| unit.1).collect();
    assert_eq!(pages, [Some(2), Some(3), Some(5), Some(6), None, Some(4)]);
    assert_eq!(found[4].3, Err("has no page among 2-3,5-: it has 1".to_string()));
}

#[test]
fn parts_that_are_cut_out_come_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let cut: Cut = Arc::new(|page: &Rgb8| {
        let part = |line: usize| (Region { line, bbox: [0, 0, 1, 1] }, page.clone());
        Ok((1..=usize::from(page.data[0])).map(part).collect())
    });
    let preparer = Preparer { cut: Some(cut), ..preparer() };
    let inputs = [2, 0, 1].map(|lines| picture(folder.path(), &format!("{lines}.pgm"), lines));
    let found = run(inputs.into(), preparer, limits(2, 8));
    let lines: Vec<(&str, Option<usize>)> =
        found.iter().map(|unit| (unit.0.as_str(), unit.2)).collect();
    assert_eq!(
        lines,
        [("2.pgm", Some(1)), ("2.pgm", Some(2)), ("0.pgm", None), ("1.pgm", Some(1))]
    );
    assert_eq!(found[2].3, Ok(0));
}

#[test]
fn a_panic_is_a_failure_of_its_input_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cut: Cut = Arc::new(|page: &Rgb8| {
        assert_ne!(page.data[0], 7, "unlucky");
        Ok(vec![(Region { line: 1, bbox: [0; 4] }, page.clone())])
    });
    let preparer = Preparer { cut: Some(cut), ..preparer() };
    let inputs = [6, 7, 8].map(|grey| picture(folder.path(), &format!("{grey}.pgm"), grey));
    let found = run(inputs.into(), preparer, limits(2, 2));
    let ok: Vec<bool> = found.iter().map(|unit| unit.3.is_ok()).collect();
    assert_eq!(ok, [true, false, true]);
}

#[test]
fn a_panic_of_the_list_does_not_look_like_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let good = picture(folder.path(), "good.pgm", 5);
    let inputs = std::iter::once(good).chain(std::iter::once_with(|| panic!("unlucky")));
    let ahead = Ahead::start(inputs, preparer(), limits(2, 2)).unwrap();
    let ok: Vec<bool> = ahead.map(|unit| unit.outcome.is_ok()).collect();
    assert_eq!(ok, [true, false]);
}

/// Nothing is begun that the limits do not allow, however slow the model is; and whoever drops the
/// pictures is not held up by a list that never ends.
#[test]
fn reading_ahead_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let one = picture(folder.path(), "one.pgm", 1);
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let inputs = std::iter::repeat_with(move || {
        count.fetch_add(1, Ordering::SeqCst);
        one.clone()
    });
    // A picture takes 16 * 16 * 3 * 4 bytes: four of them may wait.
    let limits = Limits { waiting: 4 * 3072, ..limits(2, 50) };
    let mut ahead = Ahead::start(inputs, preparer(), limits).unwrap();
    for taken in 1..=10 {
        assert!(ahead.next().unwrap().outcome.is_ok());
        std::thread::sleep(Duration::from_millis(20));
        // Those taken, those that wait, those in the two workers, one in the walker's hand.
        assert!(begun.load(Ordering::SeqCst) <= taken + 4 + 2 + 1);
    }
}

#[test]
fn large_pictures_are_decoded_alone_and_nobody_starves() {
    let limits = Limits { workers: 3, inputs: 9, decoding: 100, waiting: 100 };
    let gate = Arc::new(Gate::new(limits));
    let running = Arc::new(Mutex::new((0u64, BTreeSet::new())));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (gate, running) = (gate.clone(), running.clone());
            assert!(gate.admit());
            scope.spawn(move || {
                // The head may always go; beside it there is room for one of the others.
                let bytes = if number == 0 { 1000 } else { 60 };
                let room = gate.decode(number, bytes);
                running.lock().unwrap().0 += bytes;
                std::thread::sleep(Duration::from_millis(20));
                let sum = running.lock().unwrap().0;
                running.lock().unwrap().1.insert(sum);
                running.lock().unwrap().0 -= bytes;
                drop(room);
                gate.release();
            });
        }
    });
    let (left, sums) = running.lock().unwrap().clone();
    assert_eq!(left, 0);
    assert!(sums.iter().all(|sum| [60, 1000, 1060].contains(sum)), "{sums:?}");
}

/// An encoder for which batches of more than `most` pictures take more memory than there is.
struct Narrow {
    inner: Box<dyn Encoder>,
    most: i64,
}

impl Encoder for Narrow {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        assert!(pixel_values.size()[0] <= self.most, "CUDA out of memory. Tried to allocate 2 GiB");
        self.inner.forward(pixel_values, train)
    }

    fn hidden_size(&self) -> i64 {
        self.inner.hidden_size()
    }

    fn check_size(&self, height: i64, width: i64, interpolate: bool) -> anyhow::Result<()> {
        self.inner.check_size(height, width, interpolate)
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        self.inner.grid(height, width)
    }
}

/// Texts of seven pictures in batches of four, and the sizes that were told.
fn read_within(most: i64) -> (Vec<Result<String, String>>, Vec<usize>) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vit-gpt2");
    let (mut model, _) = ved::load(&dir, LoadOptions::default()).unwrap();
    let processor = ved::Processor::from_dir(&dir, &model.config).unwrap();
    model.encoder = Box::new(Narrow { inner: model.encoder, most });
    let generation = GenerationConfig {
        decoder_start_token_id: Some(1),
        max_new_tokens: Some(6),
        do_sample: true,
        ..GenerationConfig::default()
    };
    let reader = Reader { batch_size: 4, ..Reader::new(model, processor, generation, vec![1]) };
    let folder = tempfile::tempdir().unwrap();
    let inputs: Vec<Input> = (0..7u8)
        .map(|number| picture(folder.path(), &format!("{number}.pgm"), number * 30))
        .collect();
    let told = RefCell::new(Vec::new());
    let on_smaller = |size| told.borrow_mut().push(size);
    let watch = Watch { on_smaller: Some(&on_smaller), ..Watch::default() };
    let mut texts = Vec::new();
    let taken = |record: Record| {
        let text = record.outcome.map(|mut reading| reading.sequences.remove(0).text);
        texts.push(text.map_err(|error| format!("{error:#}")));
        Ok(())
    };
    reader.run_watched(inputs.into_iter(), watch, taken).unwrap();
    (texts, told.into_inner())
}

/// What is read does not depend on the memory, sampled texts included.
#[test]
fn batches_shrink_until_they_fit_the_memory() {
    let (expected, told) = read_within(4);
    assert_eq!((expected.len(), told), (7, vec![]));
    assert!(expected.iter().all(Result::is_ok), "{expected:?}");
    assert_eq!(read_within(3), (expected.clone(), vec![2]));
    assert_eq!(read_within(1), (expected, vec![2, 1]));
    let (texts, told) = read_within(0);
    let short = "the memory does not suffice for this picture alone; try a narrower --dtype";
    assert_eq!((texts.len(), told), (7, vec![2, 1]));
    assert!(texts.iter().flat_map(|text| text.as_ref().err()).all(|why| why.starts_with(short)));
    assert!(texts.iter().all(Result::is_err));
}
