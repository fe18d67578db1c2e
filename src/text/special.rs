//! Special and added tokens, by the order of authority of the reference
//! (`PreTrainedTokenizerBase._from_pretrained`).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::class::{Class, Resolved};
use super::defaults::{MBART_CODES, MBART50_CODES, class_token, default_token};
use super::files::TokenizerFiles;

/// The special tokens of a tokenizer with their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of a text.
    pub bos: Option<(String, i64)>,
    /// End of a text.
    pub eos: Option<(String, i64)>,
    /// What the vocabulary lacks.
    pub unk: Option<(String, i64)>,
    /// Between and after texts.
    pub sep: Option<(String, i64)>,
    /// Filling of batches.
    pub pad: Option<(String, i64)>,
    /// In front of a text (BERT, RoBERTa).
    pub cls: Option<(String, i64)>,
    /// A hidden token.
    pub mask: Option<(String, i64)>,
    /// `additional_special_tokens`, in their order.
    pub additional: Vec<(String, i64)>,
}

/// The attributes in the reference's order, which is the order new tokens are added in.
pub(super) const ATTRIBUTES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A special token as the reference holds it: a bare string, or a token with properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Str(String),
    Token(AddedToken),
}

impl Special {
    pub(super) fn content(&self) -> &str {
        match self {
            Special::Str(content) => content,
            Special::Token(token) => &token.content,
        }
    }
}

/// What the files and the class say, before the vocabulary is asked.
#[derive(Default)]
pub(super) struct SpecialMap {
    /// By [`ATTRIBUTES`].
    pub(super) named: [Option<Special>; 7],
    pub(super) additional: Vec<Special>,
    /// `extra_special_tokens`: tokens under names of their own.
    pub(super) extra: Vec<Special>,
    /// Tokens to add, by the id the files give them; the reference uses the id for the order only.
    pub(super) added: BTreeMap<i64, AddedToken>,
    /// Attributes that no file mentions: the class's default stands there.
    pub(super) defaulted: [bool; 7],
}

impl SpecialMap {
    /// Reads the files and fills the gaps with the class's defaults. `stored` are the added tokens
    /// of tokenizer.json, `stored_pad` the padding token of its padding state.
    pub(super) fn read(
        files: &TokenizerFiles,
        resolved: &Resolved,
        stored: &[(i64, AddedToken)],
        stored_pad: Option<&str>,
    ) -> Result<SpecialMap> {
        let mut map = SpecialMap::default();
        let mut given = files.config.clone();
        let by_content = map.read_added(files, &mut given, stored)?;
        for (index, attribute) in ATTRIBUTES.iter().enumerate() {
            map.named[index] = match given.get(*attribute) {
                None => {
                    map.defaulted[index] = true;
                    default_token(resolved.class, index).map(|token| Special::Str(token.to_owned()))
                }
                Some(value) => {
                    special(value).with_context(|| format!("{attribute} of {:?}", files.dir))?
                }
            };
            if let (false, Some(value)) = (map.defaulted[index], &mut map.named[index])
                && let Some(token) = by_content.iter().rev().find(|t| t.content == value.content())
            {
                *value = Special::Token(token.clone());
            }
        }
        if map.defaulted[4] && map.named[4].is_none() {
            map.named[4] = stored_pad.map(|pad| Special::Str(pad.to_owned()));
        }
        map.additional = specials(given.get("additional_special_tokens"))
            .with_context(|| format!("additional_special_tokens of {:?}", files.dir))?;
        if let Some(Value::Object(extra)) = files.config.get("extra_special_tokens") {
            for value in extra.values() {
                map.extra.extend(special(value)?);
            }
        }
        let named = given.contains_key("additional_special_tokens");
        map.apply_class(files, resolved, named)?;
        Ok(map)
    }

    /// Every special token once, in the reference's order (`all_special_tokens_extended`).
    pub(super) fn all(&self) -> Vec<&Special> {
        let mut all: Vec<&Special> = Vec::new();
        let seen = |all: &[&Special], token: &Special| {
            all.iter().any(|other| other.content() == token.content())
        };
        for token in self.named.iter().flatten() {
            if !seen(&all, token) {
                all.push(token);
            }
        }
        let known = all.len();
        for token in &self.additional {
            // Doubles inside the list stay, as in the reference.
            if !seen(&all[..known], token) {
                all.push(token);
            }
        }
        for token in &self.extra {
            if !seen(&all, token) {
                all.push(token);
            }
        }
        all
    }

    /// The string of one of [`ATTRIBUTES`].
    pub(super) fn text(&self, attribute: &str) -> Option<&str> {
        let index = ATTRIBUTES.iter().position(|other| *other == attribute)?;
        self.named[index].as_ref().map(Special::content)
    }

    /// Step one: `added_tokens_decoder` decides alone where it is there; else the three older
    /// files are merged into `given`. Returns the tokens that replace equal strings.
    fn read_added(
        &mut self,
        files: &TokenizerFiles,
        given: &mut Map<String, Value>,
        stored: &[(i64, AddedToken)],
    ) -> Result<Vec<AddedToken>> {
        let config = files.path("tokenizer_config.json");
        match files.config.get("added_tokens_decoder") {
            None => {}
            Some(Value::Object(tokens)) => {
                for (id, value) in tokens {
                    let id: i64 = id.parse().with_context(|| {
                        format!("{config:?}: added_tokens_decoder has the id {id:?}")
                    })?;
                    let token = added_token(value, false)
                        .with_context(|| format!("{config:?}: added_tokens_decoder, id {id}"))?;
                    self.added.insert(id, token);
                }
                return Ok(self.added.values().cloned().collect());
            }
            Some(_) => bail!("{config:?}: added_tokens_decoder is not an object"),
        }
        if let Some(special_tokens_map) = &files.special_tokens_map {
            merge_special_tokens_map(given, special_tokens_map);
        }
        if let Some(added) = &files.added_tokens {
            let is_special = |token: &str| {
                let named = ATTRIBUTES.iter().filter_map(|name| given.get(*name));
                let additional = given.get("additional_special_tokens").and_then(Value::as_array);
                named
                    .chain(additional.into_iter().flatten())
                    .any(|value| content(value) == Some(token))
            };
            for (token, id) in added {
                let path = files.path("added_tokens.json");
                let Some(id) = id.as_i64() else {
                    bail!("{path:?}: the id of token {token:?} is {id}, expected a number");
                };
                self.added.insert(id, AddedToken::from(token.as_str(), is_special(token)));
            }
        }
        for (id, token) in stored {
            self.added.insert(*id, token.clone());
        }
        Ok(stored.iter().map(|(_, token)| token.clone()).collect())
    }

    /// What the constructor of a class makes of its arguments. `named`: additional tokens are among them.
    fn apply_class(
        &mut self,
        files: &TokenizerFiles,
        resolved: &Resolved,
        named: bool,
    ) -> Result<()> {
        let from_json = resolved.from_json;
        for (index, value) in self.named.iter_mut().enumerate() {
            if let Some(Special::Str(content)) = value
                && let Some(token) = class_token(resolved.class, index, content, from_json)
            {
                *value = Some(Special::Token(token));
            }
        }
        if !resolved.declared && from_json {
            return Ok(());
        }
        match resolved.class {
            Class::MBart => {
                let given = std::mem::replace(&mut self.additional, strings(&MBART_CODES));
                self.extend_additional(given);
            }
            Class::MBart50 => {
                self.extend_additional(strings(&MBART_CODES));
                self.extend_additional(strings(&MBART50_CODES));
            }
            Class::Xglm => {
                self.extend_additional(
                    (0..7).map(|i| Special::Str(format!("<madeupword{i}>"))).collect(),
                );
            }
            Class::Camembert if !named => {
                self.extend_additional(strings(&["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"]));
            }
            Class::Pegasus => {
                let pegasus = Pegasus::read(files)?;
                let given = !self.additional.is_empty();
                let mut all = Vec::new();
                all.extend(pegasus.mask_token_sent.map(Special::Str).filter(|sent| {
                    self.additional.iter().all(|token| token.content() != sent.content())
                }));
                all.append(&mut self.additional);
                let first = if given { all.len() } else { 2 };
                let last = if given { pegasus.offset.saturating_sub(1) } else { pegasus.offset };
                all.extend((first..last).map(|i| Special::Str(format!("<unk_{i}>"))));
                self.additional = all;
                self.added.clear();
            }
            _ => {}
        }
        Ok(())
    }

    fn extend_additional(&mut self, tokens: Vec<Special>) {
        for token in tokens {
            if self.additional.iter().all(|other| other.content() != token.content()) {
                self.additional.push(token);
            }
        }
    }
}

/// The two arguments that only Pegasus has.
pub(super) struct Pegasus {
    pub(super) mask_token_sent: Option<String>,
    pub(super) offset: usize,
}

impl Pegasus {
    pub(super) fn read(files: &TokenizerFiles) -> Result<Pegasus> {
        let mask_token_sent = match files.config.get("mask_token_sent") {
            None => Some("<mask_1>".to_owned()),
            Some(value) => special(value)?.map(|token| token.content().to_owned()),
        };
        let offset = match files.config.get("offset") {
            None => 103,
            // A vocabulary has no million reserved places; the bound keeps a bad file cheap.
            Some(value) => match value.as_u64() {
                Some(offset) if offset <= 1_000_000 => offset as usize,
                _ => bail!("{:?}: offset is {value}", files.path("tokenizer_config.json")),
            },
        };
        Ok(Pegasus { mask_token_sent, offset })
    }
}

/// special_tokens_map.json overrides tokenizer_config.json; its additional tokens are appended.
fn merge_special_tokens_map(
    given: &mut Map<String, Value>,
    special_tokens_map: &Map<String, Value>,
) {
    for (key, value) in special_tokens_map {
        let mut value = value.clone();
        mark_special(&mut value);
        if key == "additional_special_tokens"
            && let Value::Array(tokens) = &mut value
        {
            tokens.iter_mut().for_each(mark_special);
            let mut all = match given.remove(key) {
                Some(Value::Array(tokens)) => tokens,
                _ => Vec::new(),
            };
            for token in std::mem::take(tokens) {
                if !all.contains(&token) {
                    all.push(token);
                }
            }
            *tokens = all;
        }
        given.insert(key.clone(), value);
    }
}

fn mark_special(value: &mut Value) {
    if let Value::Object(token) = value {
        token.insert("special".to_owned(), Value::Bool(true));
    }
}

/// A special token of a JSON file: null, a string, or an object with properties.
fn special(value: &Value) -> Result<Option<Special>> {
    match value {
        Value::Null => Ok(None),
        Value::String(token) => Ok(Some(Special::Str(token.clone()))),
        Value::Object(_) => Ok(Some(Special::Token(added_token(value, false)?))),
        other => bail!("a special token is {other}, expected a string or an object"),
    }
}

fn specials(value: Option<&Value>) -> Result<Vec<Special>> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tokens)) => Ok(tokens
            .iter()
            .map(special)
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect()),
        Some(other) => bail!("{other} is not a list"),
    }
}

/// An `AddedToken` written as an object. Without `normalized`, a special token is not normalised.
pub(super) fn added_token(value: &Value, special: bool) -> Result<AddedToken> {
    let Some(content) = value.get("content").and_then(Value::as_str) else {
        bail!("a token has no content");
    };
    let flag =
        |name: &str, default: bool| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    let special = flag("special", special);
    Ok(AddedToken::from(content, special)
        .single_word(flag("single_word", false))
        .lstrip(flag("lstrip", false))
        .rstrip(flag("rstrip", false))
        .normalized(flag("normalized", !special)))
}

fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn strings(tokens: &[&str]) -> Vec<Special> {
    tokens.iter().map(|token| Special::Str((*token).to_owned())).collect()
}
