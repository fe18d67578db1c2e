//! vedm: captions images and reads text in them with VisionEncoderDecoder checkpoints.

pub mod checkpoint;
pub mod cli;
pub mod decoders;
pub mod device;
pub mod encoders;
pub mod image;
pub mod models;
pub mod native;
pub mod nn;
pub mod pipeline;
pub mod text;
pub mod ved;
