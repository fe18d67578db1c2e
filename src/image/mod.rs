//! Images: from the bytes of a file to the `pixel_values` of a model. No tensors here.
//!
//! ```text
//! bytes ─ decode ─▶ Rgb8 ─ ImageProcessor::process ─▶ Pixels
//! ```
//!
//! * [`decode()`] finds the format by content (`sniff`), refuses what is too large, not an image or
//!   damaged, and gives 8-bit RGB: turned upright by EXIF, transparency laid over a background
//!   (`color`). Pages of a TIFF are in `tiff`, frames of animations in `frames`, and which of them are
//!   decoded in `select` and `visit`. Decoders read through `bytes`, which limits their time.
//! * [`ImageProcessor`] is preprocessor_config.json (`config`, `fields`): a fixed order of steps
//!   (`processor`), whose defaults and spellings depend on the class (`class`, `size`, `target`). The steps on
//!   8-bit pixels are in `geometry`, and with Pillow's own arithmetic in `resample`, `reduce` and
//!   `filter`; `antialias` is PyTorch's arithmetic, for the class that resizes floats.
//! * [`Pixels`] holds the floats, channel by channel. It is plain memory, so it crosses threads.

mod antialias;
mod blank;
mod bytes;
pub mod class;
mod color;
mod config;
pub mod decode;
mod encode;
mod fields;
pub mod filter;
mod frames;
pub mod geometry;
#[cfg(test)]
mod hostile;
mod ico;
mod orientation;
pub mod processor;
pub mod reduce;
pub mod resample;
mod select;
pub mod size;
mod sniff;
mod target;
#[cfg(test)]
mod tests;
mod tiff;
mod visit;

pub use blank::Blank;
pub use decode::{
    Background, DecodeOptions, Decoded, MAX_PAGES, decode, decode_page, page_count, probe,
};
pub use encode::{png, png_of_opacity};
pub use processor::{ImageProcessor, Pixels};
pub use select::Pages;
pub use sniff::is_picture;
pub use visit::{memory, visit_pages};

/// An image of 8-bit RGB: `width * height * 3` bytes, row by row, three bytes a pixel
/// (`[height, width, 3]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    pub width: usize,
    pub height: usize,
    pub data: Vec<u8>,
}
