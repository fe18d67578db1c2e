//! Batches, decoded ahead: one thread leads, rayon's workers decode, at most two batches wait.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, anyhow, ensure};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::augment::Augment;
use super::images::Images;
use super::order::epoch_order;
use crate::image::{ImageProcessor, Pixels};

/// How a data set is cut into batches.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    pub batch_size: usize,
    /// Orders are a function of this and of the epoch.
    pub seed: u64,
    pub shuffle: bool,
    /// Rows of similar label length share a batch.
    pub group_by_length: bool,
    /// Threads that decode; none is one a core.
    pub workers: Option<usize>,
    /// Ends with this epoch (not counted in); none never ends.
    pub epochs: Option<u64>,
    /// What is done to images before they are resized; a function of seed, epoch and row.
    pub augment: Option<Augment>,
    /// Batches know which columns of their pictures are more than padding.
    pub trim: bool,
    /// False: batches come without pixels, for a model that knows its images by their numbers.
    pub pixels: bool,
    /// Leave rows out whose image turns out bad, which the check before the first step need not have seen.
    pub skip_bad_rows: bool,
}

impl Default for BatchOptions {
    /// The reference's Trainer: batches of 8, shuffled with the seed 42, no end.
    fn default() -> Self {
        BatchOptions {
            batch_size: 8,
            seed: 42,
            shuffle: true,
            group_by_length: false,
            workers: None,
            epochs: None,
            augment: None,
            trim: false,
            pixels: true,
            skip_bad_rows: false,
        }
    }
}

/// A place in the data: what a resumed run goes on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub epoch: u64,
    /// Rows of this epoch that were taken; of a stream, all samples that were taken.
    pub index: u64,
}

/// Pixels and labels of a few rows: plain memory.
#[derive(Clone, Debug)]
pub struct Batch<L = Vec<Vec<i64>>> {
    /// `[B, C, H, W]`
    pub pixels: Vec<f32>,
    /// B, C, H and W.
    pub shape: [usize; 4],
    /// B rows: token ids without padding, or texts that are yet to be encoded.
    pub labels: L,
    /// Numbers of the images in [`Images`]; none in a stream.
    pub images: Vec<usize>,
    /// The place behind this batch; the start of the next epoch behind an epoch's last batch.
    pub next: Position,
    /// Columns of pixels outside of which all images are padding, if that was asked for.
    pub content: Option<Range<usize>>,
    /// What was left out on the way here, as `path: reason`, each image once. A batch may have lost all of
    /// its rows.
    pub left_out: Vec<String>,
}

/// Rows ready to be batched: every label encoded, every image known.
#[derive(Clone)]
pub struct Dataset {
    images: Arc<Images>,
    rows: Arc<[Sample]>,
}

/// One row of a [`Dataset`].
#[derive(Clone, Debug)]
pub struct Sample {
    /// Number of the image in [`Images`].
    pub image: usize,
    pub label: Vec<i64>,
}

/// An iterator of batches. Ends the work ahead when it is dropped.
pub struct Batches<L = Vec<Vec<i64>>> {
    receiver: Receiver<Result<Batch<L>>>,
    leader: Option<std::thread::JoinHandle<()>>,
}

impl Batch {
    /// [B, C, H, W], on the CPU.
    pub fn pixel_values(&self) -> Tensor {
        Tensor::from_slice(&self.pixels).reshape(self.shape.map(|size| size as i64))
    }

    /// Labels, filled to the longest with -100. [B, T]
    pub fn label_ids(&self) -> Tensor {
        let longest = self.labels.iter().map(Vec::len).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(longest * self.labels.len());
        for label in &self.labels {
            ids.extend_from_slice(label);
            ids.resize(ids.len() + longest - label.len(), -100);
        }
        let shape = [self.labels.len() as i64, longest as i64];
        Tensor::from_slice(&ids).to_kind(Kind::Int64).reshape(shape)
    }
}

impl<L> Batch<L> {
    /// Puts processed images into one block of memory.
    pub(super) fn stack(images: Vec<Pixels>, labels: L, next: Position) -> Result<Batch<L>> {
        let mut pixels = Vec::new();
        let mut size: Option<[usize; 3]> = None;
        let count = images.len();
        for image in images {
            let own = [image.channels, image.height, image.width];
            let first = *size.get_or_insert_with(|| {
                pixels.reserve_exact(image.data.len() * count);
                own
            });
            ensure!(
                own == first,
                "images of different sizes in a batch ({}x{} and {}x{} pixels): this image processor \
                 does not bring them to one size; set size in preprocessor_config.json, or use \
                 --per-device-train-batch-size 1",
                first[2],
                first[1],
                own[2],
                own[1]
            );
            pixels.extend_from_slice(&image.data);
        }
        let [c, h, w] = size.unwrap_or_default();
        let shape = [count, c, h, w];
        let (images, left_out) = (Vec::new(), Vec::new());
        Ok(Batch { pixels, shape, labels, images, next, content: None, left_out })
    }

    /// The same pixels with other labels.
    pub(super) fn with_labels<M>(self, labels: M) -> Batch<M> {
        let Batch { pixels, shape, images, next, content, left_out, .. } = self;
        Batch { pixels, shape, labels, images, next, content, left_out }
    }

    /// Finds `content`: the columns outside of which every image is what the processor pads with, as numbers
    /// of the model.
    pub(super) fn find_content(&mut self, processor: &ImageProcessor) {
        let empty = processor.padding();
        let [_, channels, height, width] = self.shape;
        let area = (height * width).max(1);
        let (mut start, mut stop) = (usize::MAX, 0);
        for image in self.pixels.chunks(area * channels.max(1)) {
            let padding = |column: usize| {
                image.chunks(area).zip(&empty).all(|(plane, empty)| {
                    plane.iter().skip(column).step_by(width).all(|value| value == empty)
                })
            };
            let first = (0..width).find(|column| !padding(*column)).unwrap_or(0);
            let end = (first..width).rev().find(|column| !padding(*column));
            (start, stop) = (start.min(first), stop.max(end.map_or(width, |last| last + 1)));
        }
        self.content = Some(start.min(stop)..stop);
    }
}

impl Dataset {
    pub fn new(images: Arc<Images>, rows: Vec<Sample>) -> Self {
        Dataset { images, rows: rows.into() }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn images(&self) -> &Images {
        &self.images
    }

    pub fn rows(&self) -> &[Sample] {
        &self.rows
    }

    /// Every image that a row has, once, without a label.
    pub fn each_image(&self) -> Dataset {
        let mut seen = vec![false; self.images.len()];
        let mut rows = Vec::new();
        for row in self.rows.iter() {
            if !std::mem::replace(&mut seen[row.image], true) {
                rows.push(Sample { image: row.image, label: Vec::new() });
            }
        }
        Dataset { images: self.images.clone(), rows: rows.into() }
    }

    /// Batches from a place on. The last batch of an epoch holds what is left.
    ///
    /// The same options and place give the same batches, whatever the number of workers. An image that
    /// fails ends the iterator with its error, unless its rows are to be left out; so does an epoch without
    /// a row.
    pub fn batches(&self, options: &BatchOptions, start: Position) -> Result<Batches> {
        ensure!(!self.is_empty(), "there are no rows to take batches from");
        ensure!(
            start.index <= self.len() as u64,
            "the run to resume had taken {} rows of its epoch, but the data has {}: it has changed",
            start.index,
            self.len()
        );
        let (data, options) = (self.clone(), options.clone());
        Batches::produce(options.workers, move |emit| {
            let mut position = start;
            while options.epochs.is_none_or(|epochs| position.epoch < epochs) {
                let order = data.order(&options, position.epoch);
                let left = order.get(position.index as usize..).unwrap_or_default();
                let mut used = position.index > 0;
                for rows in left.chunks(options.batch_size) {
                    let epoch = position.epoch;
                    position.index += rows.len() as u64;
                    if position.index == order.len() as u64 {
                        position = Position { epoch: position.epoch + 1, index: 0 };
                    }
                    let batch = data.batch(rows, &options, epoch, position);
                    used |= batch.as_ref().is_ok_and(|batch| !batch.labels.is_empty());
                    if !emit(batch) {
                        return;
                    }
                }
                if !used {
                    emit(Err(anyhow!("not one of the {} rows can be used", order.len())));
                    return;
                }
                if left.is_empty() {
                    position = Position { epoch: position.epoch + 1, index: 0 };
                }
            }
        })
    }

    fn order(&self, options: &BatchOptions, epoch: u64) -> Vec<usize> {
        let lengths: Option<Vec<usize>> = options
            .group_by_length
            .then(|| self.rows.iter().map(|sample| sample.label.len()).collect());
        let (n, size) = (self.len(), options.batch_size);
        epoch_order(n, size, options.shuffle, lengths.as_deref(), options.seed, epoch)
    }

    fn batch(
        &self,
        rows: &[usize],
        options: &BatchOptions,
        epoch: u64,
        next: Position,
    ) -> Result<Batch> {
        let image = |row: &usize| self.rows[*row].image;
        let mut rows: Vec<usize> = rows.to_vec();
        rows.retain(|row| !self.images.is_left_out(image(row)));
        let (mut pixels, mut left_out) = (Vec::new(), Vec::new());
        if options.pixels {
            let read: Vec<Result<Pixels>> =
                rows.par_iter().map(|row| self.pixels(*row, options, epoch)).collect();
            let mut kept = Vec::with_capacity(rows.len());
            for (row, read) in rows.into_iter().zip(read) {
                match read {
                    Ok(read) => {
                        pixels.push(read);
                        kept.push(row);
                    }
                    Err(error) if options.skip_bad_rows => {
                        let is_new = self.images.leave_out(image(&row));
                        left_out.extend(is_new.then(|| format!("{error:#}")));
                    }
                    Err(error) => {
                        return Err(anyhow!("{error:#}; --skip-bad-rows leaves such rows out"));
                    }
                }
            }
            rows = kept;
        }
        let labels: Vec<_> = rows.iter().map(|row| self.rows[*row].label.clone()).collect();
        let images = rows.iter().map(image).collect();
        let mut batch = Batch { images, left_out, ..Batch::stack(pixels, labels, next)? };
        batch.shape[0] = rows.len();
        if options.pixels && options.trim && !rows.is_empty() {
            batch.find_content(self.images.processor());
        }
        Ok(batch)
    }

    /// What the model sees of a row in an epoch.
    fn pixels(&self, row: usize, options: &BatchOptions, epoch: u64) -> Result<Pixels> {
        let image = self.rows[row].image;
        let Some(augment) = &options.augment else { return self.images.pixels(image, None) };
        let alter = |image| augment.apply(image, options.seed, epoch, row as u64);
        self.images.pixels(image, Some(&alter))
    }
}

impl<L: Send + 'static> Batches<L> {
    /// Runs `lead` on a thread of its own, inside a pool of workers. `lead` hands batches on and
    /// stops when it is told that nobody waits for more.
    pub(super) fn produce(
        workers: Option<usize>,
        lead: impl FnOnce(&dyn Fn(Result<Batch<L>>) -> bool) + Send + 'static,
    ) -> Result<Batches<L>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(workers.unwrap_or(0))
            .thread_name(|index| format!("decode-{index}"))
            .build()
            .context("the threads that decode could not be started")?;
        let (sender, receiver) = sync_channel::<Result<Batch<L>>>(2);
        let leader = std::thread::Builder::new()
            .name("batches".to_string())
            .spawn(move || {
                pool.install(move || {
                    lead(&|batch| {
                        let failed = batch.is_err();
                        sender.send(batch).is_ok() && !failed
                    });
                });
            })
            .context("the thread that makes batches could not be started")?;
        Ok(Batches { receiver, leader: Some(leader) })
    }
}

impl<L> Iterator for Batches<L> {
    type Item = Result<Batch<L>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(batch) = self.receiver.recv() {
            return Some(batch);
        }
        // A bug in the leader is not the end of the data.
        if let Some(Err(panic)) = self.leader.take().map(std::thread::JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

#[cfg(test)]
#[path = "batches_tests.rs"]
mod tests;
