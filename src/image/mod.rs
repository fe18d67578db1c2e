//! Images: decoding and the Hugging Face image processors. No tensors here.
//!
//! `decode` turns a file's bytes into an upright 8-bit RGB picture; `ImageProcessor` turns that into the
//! `Pixels` a model was trained on, with Pillow's own arithmetic (`resample`) and the order of operations of
//! the reference's slow processors.

mod classes;
mod decode;
mod geometry;
mod magic;
mod processor;
mod resample;
mod size;

pub use decode::{Background, DecodeOptions, Decoded, decode};
pub use processor::ImageProcessor;
pub use resample::{Filter, resize, resize_with_gap};

/// An upright picture: rows from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    pub width: usize,
    pub height: usize,
    /// height · width · 3 bytes
    pub data: Vec<u8>,
}

/// What a model sees; the only thing that crosses threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    /// [C, H, W]
    pub data: Vec<f32>,
}
