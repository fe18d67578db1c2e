//! The VisionEncoderDecoder model: a vision encoder, a decoder that attends to it, and what lies between.
//! Every command goes through here. Reference: `modeling_vision_encoder_decoder.py`.

pub mod assemble;
pub mod config;
mod distilbert;
pub mod generation;
pub mod load;
pub mod parts;
pub mod processor;
pub mod report;
pub mod save;
pub mod source;
pub mod verify;

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

pub use config::VisionEncoderDecoderConfig;
use generation::{GenerationConfig, Sources};
pub use load::{LoadOptions, cpu_packing, load, packed_bytes, stored_kind};
pub use processor::Processor;

use crate::decoders::{self, Decoder};
use crate::encoders::{self, Encoder};
use crate::nn::params::{Init, Params};
use crate::nn::{Linear, Store, segment};

/// An encoder, a decoder, and a projection between them where their sizes ask for it.
pub struct VisionEncoderDecoder {
    pub config: VisionEncoderDecoderConfig,
    pub encoder: Box<dyn Encoder>,
    pub decoder: Box<dyn Decoder>,
    enc_to_dec_proj: Option<Linear>,
    /// Drafts pay (`nn::draft`): reading the decoder's weights is what its steps wait for.
    pub drafts: bool,
    store: Rc<Store>,
}

impl VisionEncoderDecoder {
    /// Builds the model of `config` over the variables of `store`.
    ///
    /// The caller asks `store.check()` afterwards: missing and misshapen tensors are noted there.
    pub fn build(mut config: VisionEncoderDecoderConfig, store: Rc<Store>) -> Result<Self> {
        let root = Params::root(store.clone());
        let encoder_arch = encoders::find(config.encoder_type())?;
        let encoder = (encoder_arch.build)(&config.encoder, &(&root / "encoder").for_many_rows())
            .with_context(|| format!("encoder {:?}", encoder_arch.model_type))?;
        let decoder_arch = decoders::find(config.decoder_type())?;
        let decoder = (decoder_arch.build)(&config.decoder, &(&root / "decoder"))
            .with_context(|| format!("decoder {:?}", decoder_arch.model_type))?;

        let (from, to) = (encoder.hidden_size(), decoder.limits().hidden_size);
        let cross = config.cross_attention_hidden_size();
        ensure!(
            cross.is_none_or(|cross| cross == from),
            "the decoder's cross_attention_hidden_size is {}, the encoder's hidden_size is {from}; \
             they have to be equal",
            cross.unwrap_or_default()
        );
        let enc_to_dec_proj = if from != to && cross.is_none() {
            let many = root.for_many_rows();
            Some(many.linear("enc_to_dec_proj", from, to, Init::Normal(0.02))?)
        } else {
            None
        };
        if store.untied() {
            // What is written says what is computed; else its readers would drop one of the two.
            config.decoder["tie_word_embeddings"] = json!(false);
        }
        Ok(VisionEncoderDecoder { config, encoder, decoder, enc_to_dec_proj, drafts: false, store })
    }

    /// The variables, for saving and training.
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn device(&self) -> Device {
        self.store.device()
    }

    pub fn kind(&self) -> Kind {
        self.store.kind()
    }

    /// The encoder's last hidden state. pixel_values [B, C, H, W] -> [B, S, De]
    pub fn encode(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.encoder.forward(pixel_values, train)
    }

    /// What the decoder attends to. [B, S, De] -> [B, S, Dd] (unchanged where no projection is needed)
    pub fn project(&self, encoder_hidden_states: &Tensor) -> Tensor {
        match &self.enc_to_dec_proj {
            Some(projection) => projection.forward(encoder_hidden_states),
            None => encoder_hidden_states.shallow_clone(),
        }
    }

    /// Teacher-forced logits. projected states [B, S, Dd], ids [B, T] -> [B, T, V]
    pub fn logits(&self, states: &Tensor, decoder_input_ids: &Tensor, train: bool) -> Tensor {
        self.decoder.logits(&self.hidden(states, decoder_input_ids, train))
    }

    /// What the output layer reads, teacher-forced. states [B, S, Dd], ids [B, T] -> [B, T, Dd]
    pub fn hidden(&self, states: &Tensor, decoder_input_ids: &Tensor, train: bool) -> Tensor {
        let mut cache = self.decoder.limits().cache();
        // Every layer reads them.
        let states = segment::leaf(states);
        self.decoder.forward(decoder_input_ids, &states, &mut cache, train)
    }

    /// The generation settings that this model runs with, and warnings; see `Sources` for the layers.
    pub fn generation_config(
        &self,
        overrides: &Map<String, Value>,
        generation_config: Option<&Value>,
        reference_length: bool,
    ) -> Result<(GenerationConfig, Vec<String>)> {
        GenerationConfig::resolve(&Sources {
            overrides,
            generation_config,
            config: &self.config.to_json(),
            decoder_defaults: &(decoders::find(self.config.decoder_type())?.defaults)(),
            max_positions: self.decoder.limits().max_positions,
            reference_length,
        })
    }

    /// Refuses settings, without flags, that nothing could be generated with; gives the warnings.
    pub fn check_generation(&self, generation_config: Option<&Value>) -> Result<Vec<String>> {
        let (settings, warnings) = self.generation_config(&Map::new(), generation_config, false)?;
        generation::check(self.decoder.as_ref(), &[settings.start_token()?], &settings)?;
        Ok(warnings)
    }

    /// What every sequence begins with: the start token, then the prompt's. Donut's prompts bring
    /// their own start token (the reference's `_prepare_decoder_input_ids_for_generation`).
    pub fn prompt(&self, start: i64, ids: Vec<i64>) -> Vec<i64> {
        let donut = self.config.encoder_type().contains("donut") && !ids.is_empty();
        if donut || ids.first() == Some(&start) {
            return ids;
        }
        std::iter::once(start).chain(ids).collect()
    }

    /// Labels one step later, behind the start token, -100 replaced by padding. [B, T] -> [B, T]
    ///
    /// The two ids come from the top level of config.json, as in the reference.
    pub fn shift_tokens_right(&self, labels: &Tensor) -> Result<Tensor> {
        let start = self.config.id("decoder_start_token_id").context(
            "config.json has no decoder_start_token_id at its top level; set it to train with labels",
        )?;
        let pad = self.config.id("pad_token_id").context(
            "config.json has no pad_token_id at its top level; set it to train with labels",
        )?;
        Ok(shift_tokens_right(labels, pad, start))
    }
}

/// `out[:, 0] = start; out[:, 1:] = labels[:, :-1]; out[out == -100] = pad`. [B, T] -> [B, T]
pub fn shift_tokens_right(labels: &Tensor, pad: i64, start: i64) -> Tensor {
    let (rows, t) = labels.size2().unwrap_or((0, 0));
    let first = Tensor::full([rows, 1], start, (Kind::Int64, labels.device()));
    let shifted = Tensor::cat(&[first, labels.narrow(1, 0, (t - 1).max(0))], 1);
    shifted.masked_fill(&shifted.eq(-100), pad)
}

/// Cross-entropy, the mean over all tokens whose label is not -100. Labels are aligned with the logits.
/// logits [B, T, V], labels [B, T] -> []
pub fn loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    let vocabulary = logits.size()[2];
    logits.reshape([-1, vocabulary]).to_kind(Kind::Float).cross_entropy_loss(
        &labels.reshape([-1]),
        None::<&Tensor>,
        tch::Reduction::Mean,
        -100,
        0.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_move_right_and_padding_is_filled() {
        let labels = Tensor::from_slice(&[5i64, 6, -100, 7, -100, -100]).reshape([2, 3]);
        let shifted = shift_tokens_right(&labels, 1, 2);
        let rows: Vec<Vec<i64>> = Vec::try_from(shifted).expect("ids");
        assert_eq!(rows, [[2, 5, 6], [2, 7, 1]]);
    }
}
