//! Language models with cross-attention: ids and image states in, logits out.
//! One file a family, one row an architecture.

mod bart;
mod bart_layer;
mod bert;
mod bert_embeddings;
mod bert_generation;
mod bert_layer;
mod bigbird_pegasus;
mod blenderbot;
mod block;
mod electra;
mod gpt2;
mod marian;
mod mbart;
mod megatron_bert;
mod pegasus;
mod prophetnet;
mod rembert;
mod roberta;
mod roformer;
mod trocr;
mod xglm;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tch::Tensor;

use crate::nn::{Cache, Params};

/// A causal language model that attends to encoder states.
pub trait Decoder {
    /// The hidden states that the output layer reads.
    ///
    /// `input_ids` [N, t] are the tokens after the `cache.past()` earlier ones; N is a multiple of B,
    /// image-major. `encoder_hidden_states` [B, S, De] of the images that are still at work, the same at
    /// each call: the cache has their keys and values, but makes them later where that pays. It grows by t.
    /// -> [N, t, D]
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor;

    /// The output layer. [N, t, D] -> [N, t, V]
    fn logits(&self, hidden_states: &Tensor) -> Tensor;

    /// What the world outside must know of the config.
    fn limits(&self) -> Limits;
}

/// Sizes of a decoder, free of the families' spellings.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub hidden_size: i64,
    pub vocab_size: i64,
    pub layers: usize,
    /// Longest sequence, start token included; None where positions are computed.
    pub max_positions: Option<i64>,
    /// The config's `cross_attention_hidden_size`: the size of the states that cross-attention
    /// reads, where the config says it. It must be the encoder's, and then nothing projects them.
    pub cross_attention_size: Option<i64>,
}

impl Limits {
    /// An empty cache for this decoder.
    pub fn cache(&self) -> Cache {
        Cache::new(self.layers)
    }
}

/// A row of the table: an architecture under its `model_type`.
pub struct DecoderArch {
    pub model_type: &'static str,
    /// What full checkpoints put before the base model's keys (`base_model_prefix`).
    pub prefix: &'static str,
    /// The config class's defaults: `model_type`, sizes, special ids, generation settings.
    pub defaults: fn() -> Value,
    /// (other spelling, name) pairs of the config (the reference's `attribute_map`).
    pub aliases: &'static [(&'static str, &'static str)],
    /// Constructor: the config (as in config.json) and the place of its tensors.
    pub build: fn(&Value, &Params) -> Result<Box<dyn Decoder>>,
    /// Keys that real files have and the computation does not; see `encoders::ignored`.
    pub ignore: &'static [&'static str],
}

/// Every decoder that can be built.
pub const DECODERS: &[DecoderArch] = &[
    bert::BERT,
    roberta::ROBERTA,
    roberta::XLM_ROBERTA,
    roberta::CAMEMBERT,
    roberta::DATA2VEC_TEXT,
    electra::ELECTRA,
    bert::ERNIE,
    rembert::REMBERT,
    roformer::ROFORMER,
    bert_generation::BERT_GENERATION,
    megatron_bert::MEGATRON_BERT,
    megatron_bert::XLM_ROBERTA_XL,
    megatron_bert::ROBERTA_PRELAYERNORM,
    gpt2::GPT2,
    trocr::TROCR,
    bart::BART,
    bart::PLBART,
    bart::MVP,
    mbart::MBART,
    marian::MARIAN,
    pegasus::PEGASUS,
    bigbird_pegasus::BIGBIRD_PEGASUS,
    blenderbot::BLENDERBOT,
    blenderbot::BLENDERBOT_SMALL,
    xglm::XGLM,
    prophetnet::PROPHETNET,
];

/// The row of a config's `model_type`; an unknown one is refused by name.
pub fn find(model_type: &str) -> Result<&'static DecoderArch> {
    if let Some(arch) = DECODERS.iter().find(|arch| arch.model_type == model_type) {
        return Ok(arch);
    }
    match REFUSED.iter().find(|(types, _)| types.contains(&model_type)) {
        Some((_, reason)) => bail!("decoder type {model_type:?} {reason}"),
        None => bail!("decoder type {model_type:?} is not supported (supported: {})", names()),
    }
}

/// Types that people try, and why they can't be used.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["distilbert"],
        "has no cross-attention, and the reference refuses it too; `vedm init --decoder` takes its \
         weights into a \"bert\" decoder",
    ),
    (
        &[
            "opt",
            "llama",
            "mistral",
            "mixtral",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "phi",
            "phi3",
            "gpt_neo",
            "gptj",
            "gpt_neox",
            "openai-gpt",
            "ctrl",
            "codegen",
            "bloom",
            "xlnet",
            "stablelm",
            "olmo",
            "falcon",
            "mpt",
            "whisper",
        ],
        "has no cross-attention to the states of another model, so it could not see the image; the \
         reference fails on it too",
    ),
    (&["biogpt"], "has no cross-attention; the reference runs it and ignores the image"),
    (
        &["xlm-prophetnet", "speech_to_text_2", "qdqbert", "mega", "nezha"],
        "is given up by the reference, whose last 4.x release can't decode with it",
    ),
    (&["gpt_bigcode"], "has no cross-attention: the reference lacks it for multi-query attention"),
    (
        &["t5", "mt5", "albert", "deberta", "deberta-v2", "longformer", "led"],
        "is no causal language model in the reference",
    ),
];

/// The supported types, for messages and help.
pub fn names() -> String {
    DECODERS.iter().map(|arch| arch.model_type).collect::<Vec<_>>().join(", ")
}

/// For families whose cross-attention hangs on `add_cross_attention` and reads states of its own
/// size: an error where the config asks for anything else.
fn check_cross_attention(json: &Value, cross_size: Option<i64>, hidden_size: i64) -> Result<()> {
    ensure!(
        json.get("add_cross_attention").and_then(Value::as_bool) != Some(false),
        "the decoder's config says add_cross_attention = false, so the image would be ignored; \
         set it to true"
    );
    check_cross_size(cross_size, hidden_size)
}

/// For families that read states of their own size only.
fn check_cross_size(cross_size: Option<i64>, hidden_size: i64) -> Result<()> {
    match cross_size {
        Some(size) if size != hidden_size => bail!(
            "cross_attention_hidden_size {size} differs from the hidden size {hidden_size}, and \
             this family's cross-attention reads no other; set it to null"
        ),
        _ => Ok(()),
    }
}

/// An error if the padding token has no row.
fn check_padding(pad_token_id: Option<i64>, rows: i64) -> Result<()> {
    match pad_token_id {
        Some(id) if !(0..rows).contains(&id) => {
            bail!("pad_token_id {id} lies outside the {rows} rows of the embeddings")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_config;
