//! A tokenizer for the names: byte-pair encoding of whole words, in the files that `transformers` opens as
//! a `PreTrainedTokenizerFast`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer, TokenizerBuilder};

const SPECIAL: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
/// Characters that stand in the vocabulary though no name may have them.
const LETTERS: &str =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'-:!?.,&()\"#*+";

/// Learns `size` tokens from the names and writes `tokenizer.json` and its companions into `folder`.
///
/// # Errors
/// A folder that can't be written.
pub(crate) fn write<'a>(
    labels: impl Iterator<Item = &'a str>,
    size: usize,
    folder: &Path,
) -> Result<()> {
    let mut tokenizer = learn(labels, size).map_err(|error| anyhow!("the vocabulary: {error}"))?;
    let special = SPECIAL.map(|token| AddedToken::from(token, true));
    let wrap = TemplateProcessing::builder()
        .try_single("$A </s>")
        .map_err(|error| anyhow!("{error}"))?
        .special_tokens(vec![("</s>", 2)])
        .build()?;
    tokenizer.add_special_tokens(special).map_err(|error| anyhow!("{error}"))?;
    tokenizer.with_post_processor(Some(wrap));
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: can't be made", folder.display()))?;
    let text = tokenizer.to_string(true).map_err(|error| anyhow!("{error}"))?;
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: can't be written", path.display()))
    };
    file("tokenizer.json", text)?;
    let roles = ["bos_token", "pad_token", "eos_token", "unk_token"];
    let roles: Map<String, Value> = roles
        .iter()
        .zip(SPECIAL)
        .map(|(role, token)| ((*role).to_string(), json!(token)))
        .collect();
    file("special_tokens_map.json", serde_json::to_string_pretty(&roles)?)?;
    let mut config = roles;
    config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".into(), json!(false));
    file("tokenizer_config.json", serde_json::to_string_pretty(&config)?)
}

fn learn<'a>(labels: impl Iterator<Item = &'a str>, size: usize) -> tokenizers::Result<Tokenizer> {
    let model = BPE::builder().unk_token("<unk>".into()).build()?;
    let space = || Metaspace::new('\u{2581}', PrependScheme::Always, true);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(tokenizers::normalizers::unicode::NFC))
        .with_pre_tokenizer(Some(space()))
        .with_post_processor(None::<TemplateProcessing>)
        .with_decoder(Some(space()))
        .build()?;
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(size)
        .min_frequency(1)
        .show_progress(false)
        .special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)).into())
        .initial_alphabet(LETTERS.chars().collect())
        .build();
    // Sorted, so that ties between pairs fall the same way each time.
    let labels: BTreeMap<&str, ()> = labels.map(|label| (label, ())).collect();
    tokenizer.train(&mut trainer, labels.into_keys())?;
    Ok(tokenizer.into())
}
