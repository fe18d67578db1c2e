//! The VisionEncoderDecoder model.
