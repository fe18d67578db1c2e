//! tokenizer.json, which the library reads, as far as it is looked at before.
//!
//! The vocabulary is by far the most of it, and it is read into no more than is asked of it here.

use std::collections::HashSet;
use std::fmt::{self, Formatter};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// tokenizer.json.
#[derive(serde::Deserialize)]
pub(super) struct Stored {
    pub(super) model: Option<StoredModel>,
    /// Everything but the model.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// The model of a tokenizer.
#[derive(serde::Deserialize)]
pub(super) struct StoredModel {
    /// Older files lack it.
    #[serde(rename = "type")]
    pub(super) class: Option<String>,
    /// Of a token that goes on with a word, in BPE and WordPiece.
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) vocab: Vocab,
    /// Of BPE.
    #[serde(default)]
    pub(super) merges: Vec<Merge>,
}

/// The tokens of a model.
pub(super) enum Vocab {
    /// Tokens that have an id.
    Ids(HashSet<String>),
    /// Pieces of a unigram model: the bytes of the longest.
    Pieces(usize),
}

/// The two tokens that a merge brings together. None: a string without a blank, which the library refuses.
pub(super) struct Merge(pub(super) Option<(String, String)>);

impl Default for Vocab {
    fn default() -> Self {
        Vocab::Ids(HashSet::new())
    }
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocab;

            fn expecting(&self, out: &mut Formatter<'_>) -> fmt::Result {
                out.write_str("tokens with their ids, or a list of pieces with their scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut tokens = HashSet::new();
                while let Some((token, IgnoredAny)) = map.next_entry()? {
                    tokens.insert(token);
                }
                Ok(Vocab::Ids(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocab, A::Error> {
                let mut longest = 0;
                while let Some((piece, IgnoredAny)) = list.next_element::<(String, _)>()? {
                    longest = longest.max(piece.len());
                }
                Ok(Vocab::Pieces(longest))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, out: &mut Formatter<'_>) -> fmt::Result {
                out.write_str("a merge: two tokens")
            }

            fn visit_str<E>(self, text: &str) -> Result<Merge, E> {
                let owned = |(left, right): (&str, &str)| (left.to_owned(), right.to_owned());
                Ok(Merge(text.split_once(' ').map(owned)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                Ok(Merge(list.next_element()?.zip(list.next_element()?)))
            }
        }
        deserializer.deserialize_any(Pair)
    }
}
