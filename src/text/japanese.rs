//! Japanese BERT (`BertJapaneseTokenizer`): words by rule, then WordPiece or single characters.
//!
//! Words found by a dictionary (MeCab, Sudachi, Juman++) are not available. With single characters
//! MeCab changes nothing but the blanks it drops, so that pair is encoded all the same.

use std::collections::HashSet;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use tokenizers::normalizers::{BertNormalizer, NFC, NFKC};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::files::TokenizerFiles;
use super::slow::Vocabulary;

/// The longest word WordPiece looks at.
const MAX_INPUT_CHARS_PER_WORD: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// No cutting into words at all.
    None,
    Basic,
    Mecab,
    Sudachi,
    Jumanpp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subwords {
    None,
    Wordpiece,
    Character,
}

pub(super) struct BertJapanese {
    words: Words,
    subwords: Subwords,
    pub(super) lower_case: bool,
    never_split: HashSet<String>,
    /// MeCab's own step to NFKC.
    mecab_normalizes: bool,
}

impl BertJapanese {
    pub(super) fn open(files: &TokenizerFiles) -> Result<BertJapanese> {
        let path = files.path("tokenizer_config.json");
        let words = match files.config_str("word_tokenizer_type").unwrap_or("basic") {
            _ if !files.flag("do_word_tokenize", true)? => Words::None,
            "basic" => Words::Basic,
            "mecab" => Words::Mecab,
            "sudachi" => Words::Sudachi,
            "jumanpp" => Words::Jumanpp,
            other => bail!("{path:?}: word_tokenizer_type {other:?} does not exist"),
        };
        let subwords = match files.config_str("subword_tokenizer_type").unwrap_or("wordpiece") {
            "sentencepiece" => {
                bail!("{path:?}: subword_tokenizer_type \"sentencepiece\" is not supported")
            }
            _ if !files.flag("do_subword_tokenize", true)? => Subwords::None,
            "wordpiece" => Subwords::Wordpiece,
            "character" => Subwords::Character,
            other => bail!("{path:?}: subword_tokenizer_type {other:?} does not exist"),
        };
        let never_split = files.config.get("never_split").and_then(Value::as_array);
        let mecab =
            files.config.get("mecab_kwargs").and_then(|kwargs| kwargs.get("normalize_text"));
        Ok(BertJapanese {
            words,
            subwords,
            lower_case: files.flag("do_lower_case", false)?,
            never_split: never_split
                .into_iter()
                .flatten()
                .filter_map(|token| token.as_str().map(str::to_owned))
                .collect(),
            mecab_normalizes: mecab.and_then(Value::as_bool).unwrap_or(true),
        })
    }

    /// `_tokenize`.
    pub(super) fn tokenize(
        &self,
        text: &str,
        vocab: &Vocabulary,
        unk: &str,
        special: &HashSet<String>,
    ) -> Result<Vec<String>> {
        let words = match (self.words, self.subwords) {
            (Words::None, _) => vec![text.to_owned()],
            (Words::Basic, _) => self.basic(text, special)?,
            (Words::Mecab, Subwords::Character) => {
                let text = if self.mecab_normalizes { nfkc(text)? } else { text.to_owned() };
                vec![text.chars().filter(|c| !matches!(c, ' ' | '\t' | '\n' | '\u{b}')).collect()]
            }
            (words, _) => bail!(
                "word_tokenizer_type {:?} cuts words with a dictionary that vedm does not have; texts \
                 cannot be encoded with this tokenizer, ids can be decoded",
                match words {
                    Words::Sudachi => "sudachi",
                    Words::Jumanpp => "jumanpp",
                    _ => "mecab",
                }
            ),
        };
        let mut tokens = Vec::new();
        for word in words {
            match self.subwords {
                Subwords::None => tokens.push(word),
                Subwords::Wordpiece => word_piece(&word, vocab, unk, &mut tokens),
                Subwords::Character => tokens.extend(nfkc(&word)?.chars().map(|c| {
                    let token = c.to_string();
                    if vocab.ids.contains_key(&token) { token } else { unk.to_owned() }
                })),
            }
        }
        Ok(tokens)
    }

    /// `BasicTokenizer` with `tokenize_chinese_chars=False`.
    fn basic(&self, text: &str, special: &HashSet<String>) -> Result<Vec<String>> {
        let text = normalize(&BertNormalizer::new(true, false, Some(false), false), text)?;
        let text = normalize(&NFC, &text)?;
        let mut words = Vec::new();
        for word in text.split_whitespace() {
            if self.never_split.contains(word) || special.contains(word) {
                words.push(word.to_owned());
                continue;
            }
            let mut word = word.to_owned();
            if self.lower_case {
                let strip_accents = BertNormalizer::new(false, false, Some(true), false);
                word = normalize(&strip_accents, &word.to_lowercase())?;
            }
            split_punctuation(&word, &mut words)?;
        }
        Ok(words)
    }
}

fn normalize(normalizer: &impl Normalizer, text: &str) -> Result<String> {
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized).map_err(|e| anyhow!("{text:?}: {e}"))?;
    Ok(normalized.get().to_owned())
}

fn nfkc(text: &str) -> Result<String> {
    normalize(&NFKC, text)
}

/// Every punctuation character becomes a word of its own.
fn split_punctuation(word: &str, words: &mut Vec<String>) -> Result<()> {
    let mut split = PreTokenizedString::from(word);
    BertPreTokenizer.pre_tokenize(&mut split).map_err(|e| anyhow!("{word:?}: {e}"))?;
    let parts = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
    words.extend(parts.into_iter().map(|(part, _, _)| part.to_owned()));
    Ok(())
}

/// `WordpieceTokenizer`: greedy, longest piece first; the whole word is unknown if any part is.
fn word_piece(text: &str, vocab: &Vocabulary, unk: &str, tokens: &mut Vec<String>) {
    for word in text.split_whitespace() {
        let before = tokens.len();
        let mut rest = word;
        let known = word.chars().count() <= MAX_INPUT_CHARS_PER_WORD;
        while known && !rest.is_empty() {
            let prefix = if rest.len() == word.len() { "" } else { "##" };
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            let found = ends
                .map(|end| (end, format!("{prefix}{}", &rest[..end])))
                .find(|(_, piece)| vocab.ids.contains_key(piece));
            match found {
                Some((end, piece)) => {
                    tokens.push(piece);
                    rest = &rest[end..];
                }
                None => break,
            }
        }
        if !known || !rest.is_empty() {
            tokens.truncate(before);
            tokens.push(unk.to_owned());
        }
    }
}
