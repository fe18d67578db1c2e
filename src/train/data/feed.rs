//! What a run trains on, rows of a table or a stream, behind one face.

use anyhow::Result;

use super::batches::{Batch, BatchOptions, Batches, Dataset, Position};
use super::labels::Labeller;
use super::stream::{Stream, StreamBatches, StreamOptions};
use crate::image::{DecodeOptions, ImageProcessor};

/// Where batches come from.
pub enum Source {
    Rows(Dataset),
    /// The command, and what its pictures go through.
    Stream(Stream, Box<ImageProcessor>),
}

/// Batches, one after another, without end.
pub enum Feed {
    Rows(Batches),
    Stream(StreamBatches),
}

impl Source {
    /// The number of rows; a stream has no end.
    pub fn rows(&self) -> Option<usize> {
        match self {
            Source::Rows(data) => Some(data.len()),
            Source::Stream(..) => None,
        }
    }

    /// Batches from a place on. `skip_bad` leaves out samples of a stream that can't be used; those of
    /// a table are known before.
    pub fn feed(&self, options: &BatchOptions, skip_bad: bool, start: Position) -> Result<Feed> {
        match self {
            Source::Rows(data) => data.batches(options, start).map(Feed::Rows),
            Source::Stream(stream, processor) => {
                let options = StreamOptions {
                    batch_size: options.batch_size,
                    workers: options.workers,
                    skip_bad_rows: skip_bad,
                    decode: DecodeOptions::default(),
                    augment: options.augment.clone(),
                    seed: options.seed,
                    group_by_length: options.group_by_length,
                    trim: options.trim,
                };
                stream.batches(processor, &options, start).map(Feed::Stream)
            }
        }
    }
}

impl Feed {
    /// The next batch; the texts of a stream are encoded by `labeller`.
    ///
    /// # Errors
    /// A bad image; the end of a stream.
    pub fn next(&mut self, labeller: &Labeller) -> Result<Batch> {
        match self {
            Feed::Rows(batches) => batches
                .next()
                .unwrap_or_else(|| Err(anyhow::anyhow!("the data ended before the run"))),
            Feed::Stream(batches) => batches.next(labeller),
        }
    }

    /// What should be known of a stream when it is over.
    pub fn notes(&self) -> Vec<String> {
        let Feed::Stream(batches) = self else { return Vec::new() };
        let counts = [
            (batches.bad(), "samples of the stream could not be used and were left out"),
            (batches.cut(), "labels of the stream were cut by --max-target-length"),
        ];
        let told = counts.iter().filter(|(count, _)| *count > 0);
        told.map(|(count, what)| format!("{count} {what}")).collect()
    }
}
