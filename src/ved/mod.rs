//! The VisionEncoderDecoder model.

pub mod generation;
