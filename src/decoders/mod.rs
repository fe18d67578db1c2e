//! Text decoders with cross-attention.
