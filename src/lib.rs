//! vedm: captions images and reads text in them with Hugging Face VisionEncoderDecoder checkpoints.
//!
//! # The map of the house
//!
//! ```text
//! 6  cli/          arguments → options; one file a command; writers and reports
//! 5  train/        data → batches → steps; evaluation, plot and card
//! 4  pipeline      inputs → records: decoding ahead on rayon, one thread owns the model
//! 3  ved/          THE shared module: config · assembly · load/save · loss · generation/
//! 2  encoders/     vit deit beit swin …        decoders/   bert roberta gpt2 …     models
//!    lines/        a page → its text lines, in reading order (no tensors)
//! 1  nn/           image/        text/          checkpoint/     device     hub/
//!    (tch)         (no tensors)  (tokenizers)   (every file format)        (hf-hub)
//! 0  native        the only room with `unsafe`         fetch  archive  metrics  formats  splitmix  stderr
//! ```
//!
//! A floor imports only from below. `tests/it/house.rs` holds that, the length of files, and that
//! every architecture has its row.
//!
//! # What holds everywhere
//!
//! * **The constructor is the loader.** `p / "layer" / i / "attention"` is the key in the file; `nn::Store`
//!   accounts for every tensor: missing, misshapen and left-over ones are told by name.
//! * **Share the block, write out the layer.** Attention, feed-forward and norms are shared parts; the order
//!   of a family's layer stands in its own file. A new architecture is one file and one row of `ENCODERS`
//!   or `DECODERS`, and a golden case (`tests/golden/README.md`).
//! * **State is a value in the caller's hand.** Models are `&self`; `nn::Cache` belongs to the search.
//!   Keys and values of cross-attention belong to an image and are shared by its beams.
//! * **Pixels cross threads, tensors do not.**
//! * **Refuse by name, never approximate.** A config value without an implementation is an error at load.
//! * **Mistakes of users are sentences, bugs are panics.** `anyhow` with context at each door; plain tensor
//!   operators inside, once shapes are checked.
//! * **Standard output is the result, standard error the talk, the exit status the verdict.**
//! * **`cli::foresee` runs before libtorch is ready**: nothing on its way may call a function of tch.
//! * **Nothing is half-written.** Temporary file or directory, then rename.
//! * **Numbers come from the reference**, transformers 4.57.6: `tests/golden/` is made by it, and
//!   `tests/it/parity.rs` compares stage by stage.

pub mod archive;
pub mod checkpoint;
pub mod cli;
pub mod decoders;
pub mod device;
pub mod encoders;
pub mod fetch;
pub mod formats;
pub mod hub;
pub mod image;
pub mod lines;
pub mod metrics;
pub mod models;
pub mod native;
pub mod nn;
pub mod pipeline;
pub mod signals;
pub mod splitmix;
pub mod stderr;
pub mod text;
pub mod train;
pub mod ved;
