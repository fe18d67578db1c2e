//! Images: decoding and the Hugging Face image processors. No tensors here.
