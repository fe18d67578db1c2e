//! Tokenizers: text to ids and back, as transformers 4.57.6 does it.
//!
//! A directory's tokenizer.json is used where it is there; otherwise the tokenizer is built from the
//! vocabulary files of its class. The `tokenizers` library does the work of the reference's fast
//! classes; the three classes without a fast form ([`slow`]) are written out.

mod blenderbot_small;
mod build;
mod charsmap;
mod class;
mod cleanup;
mod defaults;
mod donut;
mod fast;
mod files;
mod guard;
mod japanese;
mod marian;
mod save;
mod sentencepiece;
mod slow;
mod special;
mod stored;
mod stream;
#[cfg(test)]
mod tests;
mod unigram;

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tokenizers::AddedToken;

use class::{Class, Resolved};
use fast::Fast;
use files::TokenizerFiles;
use slow::Slow;
use special::SpecialMap;

pub use cleanup::clean_up_tokenization;
pub use files::{TOKENIZER_FILES, VOCABULARIES};
pub use special::SpecialTokens;
pub use stream::DecodeStream;

/// A tokenizer with its special tokens.
pub struct Tokenizer {
    /// The special tokens that have a name, with their ids.
    pub special: SpecialTokens,
    /// Whether [`Tokenizer::decode`] tidies blanks before punctuation. The reference's default is
    /// false, except for BERT classes built from vocab.txt.
    pub clean_up_tokenization_spaces: bool,
    backend: Backend,
    files: TokenizerFiles,
    resolved: Resolved,
}

enum Backend {
    Fast(Box<Fast>),
    Slow(Box<Slow>),
}

impl Tokenizer {
    /// Opens the tokenizer of a checkpoint directory.
    ///
    /// Its class is `tokenizer_class` of tokenizer_config.json, else of config.json, else what goes
    /// with `decoder_model_type` (or the decoder's `model_type` in config.json), else what the files
    /// look like.
    ///
    /// # Errors
    /// No tokenizer files, damaged ones, or a class that is not supported.
    pub fn from_dir(dir: &Path, decoder_model_type: Option<&str>) -> Result<Tokenizer> {
        let files = TokenizerFiles::open(dir)?;
        let resolved = class::resolve(&files, decoder_model_type)?;
        let (backend, map) = if resolved.class.is_slow() {
            let (slow, map) = Slow::load(&files, &resolved)?;
            (Backend::Slow(Box::new(slow)), map)
        } else {
            let (fast, map) = Fast::load(&files, &resolved)?;
            (Backend::Fast(Box::new(fast)), map)
        };
        // BertTokenizer and its copies are the only constructors whose default is true, and a fast
        // tokenizer takes it over when it is built from a slow one.
        let clean_up = resolved.class == Class::Bert && !resolved.from_json;
        let clean_up_tokenization_spaces = files.flag("clean_up_tokenization_spaces", clean_up)?;
        let mut tokenizer = Tokenizer {
            special: SpecialTokens::default(),
            clean_up_tokenization_spaces,
            backend,
            files,
            resolved,
        };
        tokenizer.special = tokenizer.special_tokens(&map);
        Ok(tokenizer)
    }

    /// The text of ids. `skip_special_tokens` leaves special tokens out. Ids beyond the vocabulary are
    /// left out, or are the unknown token in the three slow classes.
    ///
    /// # Errors
    /// A negative id, or one beyond 32 bits, in a tokenizer that has a fast class.
    pub fn decode(&self, ids: &[i64], skip_special_tokens: bool) -> Result<String> {
        let text = self.decode_raw(ids, skip_special_tokens)?;
        Ok(if self.clean_up_tokenization_spaces { clean_up_tokenization(&text) } else { text })
    }

    fn decode_raw(&self, ids: &[i64], skip_special_tokens: bool) -> Result<String> {
        match &self.backend {
            Backend::Fast(fast) => fast.decode(ids, skip_special_tokens),
            Backend::Slow(slow) => slow.decode(ids, skip_special_tokens),
        }
    }

    /// Turns ids into text as they come; see [`DecodeStream`].
    pub fn decode_stream(&self, skip_special_tokens: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special_tokens)
    }

    /// The ids of a text, with the class's special tokens around it if wanted. No truncation, no padding.
    ///
    /// # Errors
    /// A tokenizer that needs a dictionary (MeCab, Sudachi, Juman++), or a vocabulary without unknown
    /// token where one is needed.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<i64>> {
        match &self.backend {
            Backend::Fast(fast) => fast.encode(text, add_special_tokens),
            Backend::Slow(slow) => slow.encode(text, add_special_tokens),
        }
    }

    /// Whether a text that is too long loses its beginning (`truncation_side`), where the reference truncates.
    pub fn truncates_left(&self) -> bool {
        self.files.config_str("truncation_side") == Some("left")
    }

    /// The id of a token, added tokens first.
    pub fn token_to_id(&self, token: &str) -> Option<i64> {
        match &self.backend {
            Backend::Fast(fast) => fast.inner.token_to_id(token).map(i64::from),
            Backend::Slow(slow) => slow.token_to_id(token),
        }
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: i64) -> Option<String> {
        match &self.backend {
            Backend::Fast(fast) => fast.id_to_token(u32::try_from(id).ok()?),
            Backend::Slow(slow) => slow.id_to_token(id).map(str::to_owned),
        }
    }

    /// The number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        match &self.backend {
            Backend::Fast(fast) => fast.inner.get_vocab_size(true),
            Backend::Slow(slow) => slow.len(),
        }
    }

    /// Whether [`Tokenizer::decode`] leaves the id out when special tokens are skipped.
    pub fn is_special(&self, id: i64) -> bool {
        match &self.backend {
            Backend::Fast(fast) => fast.is_special(id),
            Backend::Slow(slow) => slow.is_special(id),
        }
    }

    /// All tokens with their ids, in the order of the ids.
    pub fn tokens(&self) -> impl Iterator<Item = (i64, String)> {
        let tokens = match &self.backend {
            Backend::Fast(fast) => fast.tokens(),
            Backend::Slow(slow) => slow.tokens(),
        };
        tokens.into_iter()
    }

    /// Added tokens (`get_added_vocab`): those that are matched whole before the model sees a text.
    pub fn added_tokens(&self) -> Vec<(i64, AddedToken)> {
        match &self.backend {
            Backend::Fast(fast) => fast.added_tokens(),
            Backend::Slow(slow) => slow.added_tokens(),
        }
    }

    /// Donut's `token2json`: the tagged text of a form as JSON.
    ///
    /// # Errors
    /// Tags nested deeper than the reference's interpreter allows.
    pub fn token2json(&self, text: &str) -> Result<Value> {
        let added = self.added_tokens().into_iter().map(|(_, token)| token.content).collect();
        donut::token2json(text, &added)
    }

    /// The reference's name of the class, without the suffix `Fast`.
    pub fn class_name(&self) -> &str {
        &self.resolved.name
    }

    /// Writes the files that transformers opens; see the module `save`.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        save::save(self, dir)
    }

    fn special_tokens(&self, map: &SpecialMap) -> SpecialTokens {
        let unk = map.text("unk_token").and_then(|unk| self.token_to_id(unk));
        let with_id = |token: &str| Some((token.to_owned(), self.token_to_id(token).or(unk)?));
        let named = |attribute: &str| map.text(attribute).and_then(with_id);
        SpecialTokens {
            bos: named("bos_token"),
            eos: named("eos_token"),
            unk: named("unk_token"),
            sep: named("sep_token"),
            pad: named("pad_token"),
            cls: named("cls_token"),
            mask: named("mask_token"),
            additional: map
                .additional
                .iter()
                .filter_map(|token| with_id(token.content()))
                .collect(),
        }
    }
}
