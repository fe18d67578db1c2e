//! The tokenizers that the reference runs on the `tokenizers` library.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, Decoder, DecoderWrapper, Model, ModelWrapper, NormalizerWrapper,
    PostProcessorWrapper, PreTokenizerWrapper, Tokenizer as Inner, TokenizerImpl,
};

use super::class::{Class, Resolved};
use super::files::TokenizerFiles;
use super::special::{Special, SpecialMap, added_token};
use super::stored::Stored;
use super::{build, guard, unigram};

/// A tokenizer of the library, finished as `PreTrainedTokenizerFast` finishes it.
pub(super) struct Fast {
    pub(super) inner: Inner,
}

impl Fast {
    /// Reads tokenizer.json, or builds the tokenizer from its parts.
    pub(super) fn load(files: &TokenizerFiles, resolved: &Resolved) -> Result<(Fast, SpecialMap)> {
        let (inner, map) = if resolved.from_json {
            from_json(files, resolved)?
        } else {
            from_parts(files, resolved)?
        };
        Ok((Fast { inner }, map))
    }

    /// The token of an id: an added token as it was written, else a piece of the model.
    pub(super) fn id_to_token(&self, id: u32) -> Option<String> {
        // The library would give a normalised added token in its normalised spelling.
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        match added.get(&id) {
            Some(token) => Some(token.content.clone()),
            None => self.inner.get_model().id_to_token(id),
        }
    }

    /// Text of ids; ids that the vocabulary lacks are left out, as in the reference.
    pub(super) fn decode(&self, ids: &[i64], skip_special_tokens: bool) -> Result<String> {
        let added = self.inner.get_added_vocabulary();
        let mut tokens = Vec::with_capacity(ids.len());
        for &id in ids {
            let Ok(id) = u32::try_from(id) else { bail!("{id} is not a token id") };
            tokens.extend(
                self.id_to_token(id)
                    .filter(|token| !(skip_special_tokens && added.is_special_token(token))),
            );
        }
        match self.inner.get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(|e| anyhow!("decoding failed: {e}")),
            None => Ok(tokens.join(" ")),
        }
    }

    /// Ids of a text.
    pub(super) fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<i64>> {
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|e| anyhow!("text {text:?} cannot be encoded: {e}"))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// Whether skipping special tokens leaves the id out.
    pub(super) fn is_special(&self, id: i64) -> bool {
        let token = u32::try_from(id).ok().and_then(|id| self.id_to_token(id));
        token.is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// All tokens by id.
    pub(super) fn tokens(&self) -> Vec<(i64, String)> {
        let mut tokens: Vec<(i64, String)> = self
            .inner
            .get_vocab(true)
            .into_iter()
            .map(|(token, id)| (i64::from(id), token))
            .collect();
        tokens.sort();
        tokens
    }

    /// Added tokens by id.
    pub(super) fn added_tokens(&self) -> Vec<(i64, AddedToken)> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let mut tokens: Vec<(i64, AddedToken)> =
            added.iter().map(|(id, token)| (i64::from(*id), token.clone())).collect();
        tokens.sort_by_key(|(id, _)| *id);
        tokens
    }
}

fn from_json(files: &TokenizerFiles, resolved: &Resolved) -> Result<(Inner, SpecialMap)> {
    let path = files.path("tokenizer.json");
    let bytes = files.bytes("tokenizer.json")?;
    let unread = |error: serde_json::Error| match serde_json::from_slice::<IgnoredAny>(&bytes) {
        Ok(_) => {
            anyhow!("{path:?} is not a tokenizer that the tokenizers library reads: {error}")
        }
        Err(error) => anyhow!(error).context(format!("{path:?} is not valid JSON")),
    };
    let stored: &Stored = &serde_json::from_slice(&bytes).map_err(unread)?;
    let Stored { model, rest } = stored;
    guard::check_stored(stored).with_context(|| format!("{path:?}"))?;
    let class = model.as_ref().and_then(|model| model.class.as_deref());
    let mut inner = whole(&bytes, class).map_err(unread)?;
    let mut added = Vec::new();
    for value in rest.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        if let Some(id) = value.get("id").and_then(Value::as_i64) {
            added.push((id, added_token(value, false).with_context(|| format!("{path:?}"))?));
        }
    }
    let stored_pad = rest.get("padding").and_then(|padding| padding.get("pad_token")?.as_str());
    let mut map = SpecialMap::read(files, resolved, &added, stored_pad)?;
    if !resolved.declared {
        // The class was guessed: a default that the vocabulary lacks is not added to it.
        for (index, value) in map.named.iter_mut().enumerate() {
            let unknown = |token: &Special| inner.token_to_id(token.content()).is_none();
            if map.defaulted[index] && value.as_ref().is_some_and(unknown) {
                *value = None;
            }
        }
    }
    add_tokens(&mut inner, &map)?;
    if resolved.declared {
        apply_class(&mut inner, files, resolved, &map)?;
    }
    finish(&mut inner, files)?;
    Ok((inner, map))
}

/// The library's tokenizer. Told the class of its model, serde reads the vocabulary once; otherwise it makes
/// four copies on the way, which take as long as packing a small model.
fn whole(json: &[u8], class: Option<&str>) -> serde_json::Result<Inner> {
    match class {
        Some("BPE") => of_model::<BPE>(json),
        Some("WordPiece") => of_model::<WordPiece>(json),
        Some("WordLevel") => of_model::<WordLevel>(json),
        Some("Unigram") => of_model::<Unigram>(json),
        _ => serde_json::from_slice(json),
    }
}

fn of_model<M>(json: &[u8]) -> serde_json::Result<Inner>
where
    M: Model + DeserializeOwned + Into<ModelWrapper>,
{
    type Of<M> = TokenizerImpl<
        M,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >;
    Ok(Inner::from(serde_json::from_slice::<Of<M>>(json)?))
}

fn from_parts(files: &TokenizerFiles, resolved: &Resolved) -> Result<(Inner, SpecialMap)> {
    let map = SpecialMap::read(files, resolved, &[], None)?;
    let mut inner = match resolved.class {
        Class::Gpt2 | Class::Roberta | Class::Bart | Class::Blenderbot => {
            build::byte_level_bpe(files)?
        }
        Class::Bert => build::word_piece(files, &map)?,
        _ => unigram::build(files, resolved.class, &map)?,
    };
    add_tokens(&mut inner, &map)?;
    build::post_processor(&mut inner, files, resolved.class, &map)?;
    apply_class(&mut inner, files, resolved, &map)?;
    finish(&mut inner, files)?;
    Ok((inner, map))
}

/// The end of `PreTrainedTokenizerFast.__init__`: added tokens in the order of their ids, then the
/// special tokens that are not among them.
fn add_tokens(inner: &mut Inner, map: &SpecialMap) -> Result<()> {
    let mut tokens: Vec<AddedToken> = map.added.values().cloned().collect();
    let known: HashSet<String> = inner
        .get_added_vocabulary()
        .get_added_tokens_decoder()
        .values()
        .chain(&tokens)
        .map(|token| token.content.clone())
        .collect();
    let special = map.all();
    for token in &special {
        match token {
            Special::Str(content) if known.contains(content) => {}
            Special::Str(content) => tokens.push(AddedToken::from(content.as_str(), true)),
            // Tokens with properties are always set, unless exactly that token is there already.
            Special::Token(token) if map.added.values().any(|other| other == token) => {}
            Special::Token(token) => tokens.push(token.clone()),
        }
    }
    // The library of the reference matches a special token as its first version says, before or after
    // normalisation, whatever versions come later.
    let mut first: HashMap<String, bool> = HashMap::new();
    for token in inner.get_added_vocabulary().get_added_tokens_decoder().values() {
        if token.special {
            first.insert(token.content.clone(), token.normalized);
        }
    }
    for token in &mut tokens {
        token.special |= special.iter().any(|other| other.content() == token.content);
        if token.special {
            token.normalized = *first.entry(token.content.clone()).or_insert(token.normalized);
        }
    }
    inner.add_tokens(tokens).map_err(|e| anyhow!("the added tokens cannot be used: {e}"))?;
    Ok(())
}

/// What the constructors of fast classes change in a backend that is already there.
fn apply_class(
    inner: &mut Inner,
    files: &TokenizerFiles,
    resolved: &Resolved,
    map: &SpecialMap,
) -> Result<()> {
    match resolved.class {
        Class::Bert => {
            let Some(NormalizerWrapper::BertNormalizer(old)) = inner.get_normalizer() else {
                return Ok(());
            };
            let new = build::bert_normalizer(files, old.clean_text)?;
            let same = |a: &BertNormalizer| (a.handle_chinese_chars, a.strip_accents, a.lowercase);
            if same(old) != same(&new) {
                // The reference's library goes on matching added tokens by the old normalizer.
                let added = inner.get_added_vocabulary().clone();
                set_normalizer(inner, new)?;
                inner.with_added_vocabulary(added);
            }
        }
        Class::MBart | Class::MBart50 => {
            let lang = files.config_str("src_lang").unwrap_or("en_XX");
            let eos = map.text("eos_token").unwrap_or("</s>");
            let single: &[&str] = if resolved.class == Class::MBart {
                &["$A", eos, lang]
            } else {
                &[lang, "$A", eos]
            };
            set_template(inner, single, &[])?;
        }
        _ => {}
    }
    Ok(())
}

/// Settings that hold for every fast class, whatever tokenizer.json stores.
fn finish(inner: &mut Inner, files: &TokenizerFiles) -> Result<()> {
    let add_prefix_space = files.flag("add_prefix_space", false)?;
    if let Some(PreTokenizerWrapper::ByteLevel(byte_level)) = inner.get_pre_tokenizer() {
        let byte_level = byte_level.add_prefix_space(add_prefix_space);
        inner.with_pre_tokenizer(Some(byte_level));
    }
    inner.set_encode_special_tokens(files.flag("split_special_tokens", false)?);
    // Stored padding and truncation belong to the run that saved the file.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| anyhow!("{e}"))?;
    Ok(())
}

/// Sets the normalizer.
pub(super) fn set_normalizer(
    inner: &mut Inner,
    normalizer: impl Into<NormalizerWrapper>,
) -> Result<()> {
    inner
        .with_normalizer(Some(normalizer.into()))
        .map_err(|e| anyhow!("the normalizer cannot be used: {e}"))?;
    Ok(())
}

/// Sets a post-processor that puts special tokens around `$A` (and `$B`; the default pair is `single`
/// with `$B` after `$A`). The suffix `:1` gives a piece the token type 1.
pub(super) fn set_template(inner: &mut Inner, single: &[&str], pair: &[&str]) -> Result<()> {
    let mut pair = pair.to_vec();
    if pair.is_empty() {
        for piece in single {
            pair.push(piece);
            if *piece == "$A" {
                pair.push("$B");
            }
        }
    }
    let mut tokens: Vec<(String, u32)> = Vec::new();
    for piece in single.iter().chain(&pair).filter(|piece| !piece.starts_with('$')) {
        let piece = piece.strip_suffix(":1").unwrap_or(piece);
        let id = inner
            .token_to_id(piece)
            .with_context(|| format!("special token {piece:?} is not in the vocabulary"))?;
        if !tokens.iter().any(|(token, _)| token == piece) {
            tokens.push((piece.to_owned(), id));
        }
    }
    let template = TemplateProcessing::builder()
        .try_single(single.to_vec())
        .and_then(|builder| builder.try_pair(pair))
        .map_err(|e| anyhow!("special tokens {single:?}: {e}"))?
        .special_tokens(tokens)
        .build()
        .map_err(|e| anyhow!("special tokens {single:?}: {e}"))?;
    inner.with_post_processor(Some(PostProcessorWrapper::from(template)));
    Ok(())
}

/// A component of the library from its JSON form.
pub(super) fn component<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).context("a tokenizer component was refused")
}

/// The Metaspace component of every sentencepiece layout (pre-tokenizer and decoder).
pub(super) fn metaspace() -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true})
}
