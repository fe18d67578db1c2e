//! The special ids of a model that `vedm init` makes.

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use crate::text::Tokenizer;
use crate::ved::VisionEncoderDecoder;
use crate::ved::source::{Half, Source};

/// Start, pad and end at the top level and in a drawn decoder: from the checkpoint that tokenizer and
/// decoder share, else from the tokenizer, unless they are set.
///
/// The start token is what the decoder's family names (BART: end, Marian: padding), else [CLS], <s> or
/// the text's beginning; GPT-2, which has no padding, pads by its end token.
pub(super) fn fill(
    top: &mut Map<String, Value>,
    of_decoder: &mut Map<String, Value>,
    tokenizer: &Tokenizer,
    decoder: &Source,
    own: bool,
) -> Result<()> {
    let special = &tokenizer.special;
    let id = |token: &Option<(String, i64)>| token.as_ref().map(|(_, id)| *id);
    let eos = id(&special.eos).or(id(&special.sep));
    let bos = id(&special.bos).or(id(&special.cls));
    let pad = id(&special.pad).or(eos);
    let family_start = family_start(decoder, bos, eos, pad)?;
    let start = family_start.or(id(&special.cls)).or(bos).or(eos);
    let ids = [
        ("decoder_start_token_id", start),
        ("bos_token_id", bos),
        ("eos_token_id", eos),
        ("pad_token_id", pad),
    ];
    let drawn = matches!(decoder, Source::Config(_));
    for (name, value) in ids {
        let value = if own { decoder.id(name).or(value) } else { value };
        let Some(value) = value else { continue };
        let value = top.entry(name).or_insert(json!(value)).clone();
        // Pretrained decoders keep their ids: RoBERTa counts its positions from the padding id.
        if drawn && (name != "decoder_start_token_id" || family_start.is_some()) {
            of_decoder.entry(name).or_insert(value);
        }
    }
    for name in ["decoder_start_token_id", "eos_token_id", "pad_token_id"] {
        ensure!(
            top.contains_key(name),
            "the tokenizer has no token for {name}; pass --set {name}=ID"
        );
    }
    Ok(())
}

/// The start token of a family that names one: the tokenizer's token of the same role.
fn family_start(
    decoder: &Source,
    bos: Option<i64>,
    eos: Option<i64>,
    pad: Option<i64>,
) -> Result<Option<i64>> {
    let defaults = Half::Decoder.defaults(decoder.model_type())?;
    let default = |name: &str| defaults.get(name).and_then(Value::as_i64);
    let Some(start) = default("decoder_start_token_id") else { return Ok(None) };
    let roles = [("eos_token_id", eos), ("pad_token_id", pad), ("bos_token_id", bos)];
    let role = roles.into_iter().find(|(name, _)| default(name) == Some(start));
    Ok(role.and_then(|(_, id)| id).or(eos).or(bos))
}

/// Refuses special ids that the decoder has no row for, and settings that nothing could be generated with.
pub(super) fn check(model: &VisionEncoderDecoder) -> Result<()> {
    let vocabulary = model.decoder.limits().vocab_size;
    for name in ["decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"] {
        let Some(value) = model.config.get(name).filter(|value| !value.is_null()) else { continue };
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let inside = |id: &Value| id.as_i64().is_some_and(|id| (0..vocabulary).contains(&id));
        ensure!(
            ids.iter().all(inside),
            "{name} is {value}, and the decoder's vocabulary has the ids 0 to {}; correct --set {name}",
            vocabulary - 1
        );
    }
    model.check_generation(None).map(drop)
}
