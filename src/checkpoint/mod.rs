//! Tensors of a checkpoint directory by their keys.
