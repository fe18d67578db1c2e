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

    /// Batches from a place on.
    pub fn feed(&self, options: &BatchOptions, start: Position) -> Result<Feed> {
        match self {
            Source::Rows(data) => data.batches(options, start).map(Feed::Rows),
            Source::Stream(stream, processor) => {
                let options = StreamOptions {
                    batch_size: options.batch_size,
                    workers: options.workers,
                    skip_bad_rows: options.skip_bad_rows,
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
        let cut = batches.cut();
        let told = format!("{cut} labels of the stream were cut by --max-target-length");
        (cut > 0).then_some(told).into_iter().collect()
    }
}
