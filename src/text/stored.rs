//! tokenizer.json, which the library reads, as far as it is looked at before.
//!
//! The vocabulary is by far the most of it, and no token of it is kept.

use std::borrow::Cow;
use std::fmt::{self, Formatter};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// tokenizer.json.
#[derive(serde::Deserialize)]
pub(super) struct Stored<'a> {
    #[serde(borrow)]
    pub(super) model: Option<StoredModel<'a>>,
    /// Everything but the model.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// The model of a tokenizer.
#[derive(serde::Deserialize)]
pub(super) struct StoredModel<'a> {
    /// Older files lack it.
    #[serde(rename = "type")]
    pub(super) class: Option<String>,
    /// Of a token that goes on with a word, in BPE and WordPiece.
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) vocab: Vocab,
    /// Of BPE.
    #[serde(default, borrow)]
    pub(super) merges: Vec<Merge<'a>>,
}

/// The longest token of a model, in bytes.
pub(super) enum Vocab {
    /// Of tokens that have an id.
    Ids(usize),
    /// Of the pieces of a unigram model.
    Pieces(usize),
}

/// The two tokens that a merge brings together. None: a string without a blank, which the library refuses.
pub(super) struct Merge<'a>(pub(super) Option<(Text<'a>, Text<'a>)>);

/// A string, which is a part of the file unless something in it is escaped.
#[derive(serde::Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl Default for Vocab {
    fn default() -> Self {
        Vocab::Ids(0)
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
                let mut longest = 0;
                while let Some((Text(token), IgnoredAny)) = map.next_entry()? {
                    longest = longest.max(token.len());
                }
                Ok(Vocab::Ids(longest))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocab, A::Error> {
                let mut longest = 0;
                while let Some((Text(piece), IgnoredAny)) = list.next_element()? {
                    longest = longest.max(piece.len());
                }
                Ok(Vocab::Pieces(longest))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge<'de>;

            fn expecting(&self, out: &mut Formatter<'_>) -> fmt::Result {
                out.write_str("a merge: two tokens")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Merge<'de>, E> {
                let lent = |text| Text(Cow::Borrowed(text));
                Ok(Merge(text.split_once(' ').map(|(left, right)| (lent(left), lent(right)))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Merge<'de>, E> {
                let owned = |text: &str| Text(Cow::Owned(text.to_owned()));
                Ok(Merge(text.split_once(' ').map(|(left, right)| (owned(left), owned(right)))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge<'de>, A::Error> {
                Ok(Merge(list.next_element()?.zip(list.next_element()?)))
            }
        }
        deserializer.deserialize_any(Pair)
    }
}
