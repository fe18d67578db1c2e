//! Building blocks that the encoders and decoders share. Nothing here knows a model.
//!
//! Letters of shapes, used in every file above and here:
//! B images · N rows (B, or B·K with K beams, image-major) · C,H,W channels, height, width · P patches ·
//! S encoder tokens · t new tokens · T tokens so far · D hidden · De,Dd of encoder, decoder · A heads ·
//! d head dim · I intermediate · V vocabulary

pub mod activation;
pub mod attention;
pub mod cache;
pub mod config;
pub mod draft;
pub mod dropout;
mod flash;
mod gelu;
pub mod layers;
pub mod linear;
pub mod lookup;
pub mod mask;
pub mod memory;
pub mod norm;
mod one_token;
pub mod params;
pub mod position;
mod pre_norm;
pub mod precision;
pub mod segment;
pub mod store;
pub mod window;

pub use activation::Activation;
pub use attention::{Attention, CrossAttention};
pub use cache::{Cache, KeyValue, LayerCache};
pub use dropout::{drop_layer, drop_path, dropout};
pub use layers::{Embedding, FeedForward, PatchEmbeddings};
pub use linear::{Joined, Linear, Packing};
pub use memory::Memory;
pub use norm::LayerNorm;
pub use params::{Init, Params};
pub use pre_norm::PreNorm;
pub use store::{Missing, Store, Variable};
