//! vedm: captions images and reads text in them with VisionEncoderDecoder checkpoints.

pub mod checkpoint;
pub mod decoders;
pub mod encoders;
pub mod image;
pub mod native;
pub mod nn;
pub mod text;
pub mod ved;
