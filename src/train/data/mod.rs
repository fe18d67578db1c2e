//! Labelled images: from what `--data` names to batches of pixels and labels.
//!
//! ```text
//! Table::read ─▶ rows ─ check ─▶ Dataset ─ Dataset::batches ─▶ Batch, Batch, …
//! pipe:COMMAND ─▶ tar stream ──────────── Stream::batches ───▶ Batch, Batch, …
//! ```
//!
//! * `feed` is either of the two behind one face.
//! * `table` reads CSV, TSV, JSONL, folders of pairs and WebDataset tar files (`forms`).
//! * `labels` turns texts into token ids by the rule of the tokenizer's class.
//! * `check` looks at every row before the first step; what it decodes stays in the cache of `images`.
//! * `order` is the order of an epoch: a function of seed and epoch alone.
//! * `batches` decodes, augments (`augment`) and processes ahead in parallel; only plain memory crosses
//!   threads, and a batch is the same whatever the number of threads.

pub mod augment;
pub mod batches;
pub mod check;
pub mod feed;
mod forms;
pub mod images;
pub mod labels;
pub mod order;
mod random;
pub mod stream;
pub mod table;

pub use augment::Augment;
pub use batches::{Batch, BatchOptions, Batches, Dataset, Position, Sample};
pub use check::{CACHE_BYTES, CheckOptions, Prepared, Report, prepare};
pub use feed::{Feed, Source};
pub use images::Images;
pub use labels::{Label, LabelRule, Labeller};
pub use stream::{Stream, StreamBatches, StreamOptions};
pub use table::{ImageSource, Row, Table, TableOptions};
