//! Marian: a sentencepiece model that cuts, a vocabulary file that numbers (`MarianTokenizer`).
//!
//! vedm reads and writes the target language: texts are cut with target.spm, as the reference does
//! with `text_target`.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, anyhow, bail};
use tokenizers::Model;
use tokenizers::models::unigram::Unigram;

use super::charsmap::CharsMap;
use super::files::TokenizerFiles;
use super::sentencepiece::{ModelProto, PieceType};
use super::slow::is_space;

/// Stands for a blank in pieces.
const SPACE: char = '▁';

/// The sentencepiece model of the target language.
pub(super) struct Marian {
    kinds: HashMap<String, PieceType>,
    model: Unigram,
    charsmap: Option<CharsMap>,
    unk_surface: String,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
}

impl Marian {
    pub(super) fn open(files: &TokenizerFiles) -> Result<Marian> {
        if files.flag("separate_vocabs", false)? {
            bail!(
                "{:?}: separate_vocabs = true is not supported",
                files.path("tokenizer_config.json")
            );
        }
        let path = files.path("target.spm");
        Marian::new(ModelProto::open(&path)?).with_context(|| format!("{path:?}"))
    }

    fn new(proto: ModelProto) -> Result<Marian> {
        if proto.model_type != 1 {
            bail!("model type {} is not supported, expected 1, a unigram model", proto.model_type);
        }
        // The unknown piece never matches a text: blanks do not reach the model.
        let mut vocab = vec![(" ".to_owned(), 0.0)];
        for piece in &proto.pieces {
            match piece.kind {
                PieceType::Normal => vocab.push((piece.piece.clone(), f64::from(piece.score))),
                PieceType::Unknown | PieceType::Control | PieceType::Unused => {}
                PieceType::UserDefined | PieceType::Byte => {
                    bail!(
                        "piece {:?} is {:?}, which is not supported here",
                        piece.piece,
                        piece.kind
                    )
                }
            }
        }
        Ok(Marian {
            model: Unigram::from(vocab, Some(0), false).map_err(|e| anyhow!("{e}"))?,
            charsmap: match proto.precompiled_charsmap.as_slice() {
                [] => None,
                charsmap => Some(CharsMap::parse(charsmap)?),
            },
            kinds: proto.pieces.into_iter().map(|piece| (piece.piece, piece.kind)).collect(),
            unk_surface: proto.unk_surface,
            add_dummy_prefix: proto.add_dummy_prefix,
            remove_extra_whitespaces: proto.remove_extra_whitespaces,
        })
    }

    /// `_tokenize`: a language code such as `>>fra<<` stays whole, the rest is cut into pieces.
    pub(super) fn tokenize(&self, text: &str) -> Result<Vec<String>> {
        let mut tokens = Vec::new();
        let mut text = text;
        if text.starts_with(">>")
            && let Some(end) = text.find("<<")
        {
            tokens.push(text[..end + 2].to_owned());
            text = &text[end + 2..];
        }
        let normalized = self.normalize(text);
        if !normalized.is_empty() {
            let pieces = self.model.tokenize(&normalized).map_err(|e| anyhow!("{text:?}: {e}"))?;
            tokens.extend(pieces.into_iter().map(|piece| piece.value));
        }
        Ok(tokens)
    }

    /// sentencepiece's normalizer: character map, blanks made one, a blank in front.
    fn normalize(&self, text: &str) -> String {
        let text = match &self.charsmap {
            Some(charsmap) => charsmap.normalize(text),
            None => text.to_owned(),
        };
        let mut normalized = String::with_capacity(text.len() + 3);
        let mut after_space = self.remove_extra_whitespaces;
        for c in text.chars() {
            let space = c == ' ';
            if !(space && after_space) {
                normalized.push(if space { SPACE } else { c });
            }
            after_space = space && self.remove_extra_whitespaces;
        }
        if self.add_dummy_prefix && !normalized.is_empty() {
            normalized.insert(0, SPACE);
        }
        if self.remove_extra_whitespaces {
            normalized.truncate(normalized.trim_end_matches(SPACE).len());
        }
        normalized
    }

    /// `convert_tokens_to_string`: special tokens stand between stretches of pieces.
    pub(super) fn join(&self, tokens: &[&str], special: &HashSet<String>) -> String {
        let mut text = String::new();
        let mut open: Vec<&str> = Vec::new();
        for token in tokens {
            if special.contains(*token) {
                text.push_str(&self.decode_pieces(&open));
                text.push_str(token);
                text.push(' ');
                open.clear();
            } else {
                open.push(token);
            }
        }
        text.push_str(&self.decode_pieces(&open));
        text.replace(SPACE, " ").trim_matches(is_space).to_owned()
    }

    /// sentencepiece's `DecodePieces`.
    fn decode_pieces(&self, pieces: &[&str]) -> String {
        let mut text = String::new();
        let mut at_start = true;
        for piece in pieces {
            match self.kinds.get(*piece) {
                Some(PieceType::Control) => continue,
                Some(PieceType::Unknown) => text.push_str(&self.unk_surface),
                None => text.push_str(piece),
                Some(_) => {
                    let mut piece = *piece;
                    if at_start && (self.add_dummy_prefix || self.remove_extra_whitespaces) {
                        let stripped = piece.strip_prefix(SPACE);
                        // Without white space removal only the added blank is taken away.
                        at_start = stripped.is_none() || self.remove_extra_whitespaces;
                        piece = stripped.unwrap_or(piece);
                    }
                    text.push_str(piece);
                }
            }
            at_start &= text.is_empty();
        }
        text
    }
}
