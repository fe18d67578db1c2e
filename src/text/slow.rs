//! The tokenizers that the reference runs in Python (`PreTrainedTokenizer`), where no fast class exists.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail};
use tokenizers::AddedToken;

use super::blenderbot_small::BlenderbotSmall;
use super::build::read_vocab_txt;
use super::class::{Class, Resolved};
use super::files::TokenizerFiles;
use super::japanese::BertJapanese;
use super::marian::Marian;
use super::special::{Special, SpecialMap};

/// What differs between the classes: text to tokens and back.
enum Kind {
    Marian(Box<Marian>),
    BertJapanese(BertJapanese),
    BlenderbotSmall(BlenderbotSmall),
}

/// Token strings and ids of the vocabulary file.
pub(super) struct Vocabulary {
    pub(super) ids: HashMap<String, i64>,
    tokens: HashMap<i64, String>,
}

impl Vocabulary {
    fn new(entries: Vec<(String, u32)>) -> Vocabulary {
        let ids: HashMap<String, i64> =
            entries.into_iter().map(|(t, id)| (t, i64::from(id))).collect();
        let tokens = ids.iter().map(|(token, id)| (*id, token.clone())).collect();
        Vocabulary { ids, tokens }
    }
}

/// A slow tokenizer.
pub(super) struct Slow {
    kind: Kind,
    vocab: Vocabulary,
    added: BTreeMap<i64, AddedToken>,
    added_ids: HashMap<String, i64>,
    unk: String,
    /// `all_special_tokens` and `all_special_ids`.
    special: HashSet<String>,
    special_ids: HashSet<i64>,
    /// Added tokens that are no named special token: they cut the text when decoding.
    cutting: HashSet<String>,
    template: (Vec<i64>, Vec<i64>),
    lower_case: bool,
}

impl Slow {
    /// Reads the vocabulary and adds the special tokens as `PreTrainedTokenizer.__init__` does.
    pub(super) fn load(files: &TokenizerFiles, resolved: &Resolved) -> Result<(Slow, SpecialMap)> {
        let map = SpecialMap::read(files, resolved, &[], None)?;
        let unk = map.text("unk_token").with_context(|| {
            format!("{:?}: unk_token is null, and this tokenizer needs it", files.dir)
        })?;
        let (kind, entries) = match resolved.class {
            Class::Marian => {
                (Kind::Marian(Box::new(Marian::open(files)?)), files.vocab_json("vocab.json")?)
            }
            Class::BertJapanese => {
                (Kind::BertJapanese(BertJapanese::open(files)?), read_vocab_txt(files)?)
            }
            Class::BlenderbotSmall => (
                Kind::BlenderbotSmall(BlenderbotSmall::open(files)?),
                files.vocab_json("vocab.json")?,
            ),
            other => bail!("{other:?} has a fast tokenizer"),
        };
        let mut slow = Slow {
            lower_case: matches!(&kind, Kind::BertJapanese(japanese) if japanese.lower_case),
            kind,
            vocab: Vocabulary::new(entries),
            added: map.added.clone(),
            added_ids: HashMap::new(),
            unk: unk.to_owned(),
            special: map.all().iter().map(|token| token.content().to_owned()).collect(),
            special_ids: HashSet::new(),
            cutting: HashSet::new(),
            template: (Vec::new(), Vec::new()),
        };
        if matches!(slow.kind, Kind::Marian(_)) && !slow.vocab.ids.contains_key(unk) {
            bail!("{:?} lacks the token {unk:?}", files.path("vocab.json"));
        }
        slow.add_special(&map);
        slow.special_ids =
            slow.special.iter().filter_map(|token| slow.token_to_id(token)).collect();
        slow.cut_at(&map);
        slow.template = match resolved.class {
            Class::Marian => (vec![], vec![slow.named(&map, "eos_token")?]),
            Class::BertJapanese => {
                (vec![slow.named(&map, "cls_token")?], vec![slow.named(&map, "sep_token")?])
            }
            _ => (vec![], vec![]),
        };
        Ok((slow, map))
    }

    fn named(&self, map: &SpecialMap, attribute: &str) -> Result<i64> {
        map.text(attribute)
            .and_then(|token| self.token_to_id(token))
            .with_context(|| format!("{attribute} is not set, and this tokenizer needs it"))
    }

    /// `_add_tokens(all_special_tokens, special_tokens=True)`: new ones get ids at the end.
    fn add_special(&mut self, map: &SpecialMap) {
        self.added_ids =
            self.added.iter().map(|(id, token)| (token.content.clone(), *id)).collect();
        for token in map.all() {
            let content = token.content();
            if content.is_empty() || self.added_ids.contains_key(content) {
                continue;
            }
            let id = self.vocab.ids.get(content).copied().unwrap_or(self.len() as i64);
            let token = match token {
                Special::Str(content) => AddedToken::from(content.as_str(), true),
                Special::Token(token) => token.clone().special(true),
            };
            self.added_ids.insert(content.to_owned(), id);
            self.added.insert(id, token);
        }
    }

    fn cut_at(&mut self, map: &SpecialMap) {
        let base = self.vocab.ids.len() as i64;
        let beyond = |token: &&str| self.token_to_id(token).is_some_and(|id| id >= base);
        let additional: HashSet<String> =
            map.additional.iter().map(|t| t.content()).filter(beyond).map(str::to_owned).collect();
        self.cutting =
            self.added_ids.keys().filter(|t| !self.special.contains(*t)).cloned().collect();
        self.cutting.extend(additional);
    }

    /// Vocabulary and added tokens together.
    pub(super) fn len(&self) -> usize {
        let new =
            self.added_ids.keys().filter(|token| !self.vocab.ids.contains_key(*token)).count();
        self.vocab.ids.len() + new
    }

    /// The id of a token; None where the reference would give the unknown id.
    pub(super) fn token_to_id(&self, token: &str) -> Option<i64> {
        self.added_ids.get(token).or_else(|| self.vocab.ids.get(token)).copied()
    }

    /// The token of an id; None where the reference would give the unknown token.
    pub(super) fn id_to_token(&self, id: i64) -> Option<&str> {
        match self.added.get(&id) {
            Some(token) => Some(&token.content),
            None => self.vocab.tokens.get(&id).map(String::as_str),
        }
    }

    /// Whether decoding can leave the id out.
    pub(super) fn is_special(&self, id: i64) -> bool {
        self.special_ids.contains(&id)
    }

    /// All tokens by id.
    pub(super) fn tokens(&self) -> Vec<(i64, String)> {
        let mut all: BTreeMap<i64, String> =
            self.vocab.tokens.iter().map(|(id, token)| (*id, token.clone())).collect();
        all.extend(self.added.iter().map(|(id, token)| (*id, token.content.clone())));
        all.into_iter().collect()
    }

    /// Added tokens by id.
    pub(super) fn added_tokens(&self) -> Vec<(i64, AddedToken)> {
        self.added.iter().map(|(id, token)| (*id, token.clone())).collect()
    }

    /// `PreTrainedTokenizer._decode`, without the clean-up.
    pub(super) fn decode(&self, ids: &[i64], skip_special_tokens: bool) -> Result<String> {
        let mut texts: Vec<String> = Vec::new();
        let mut open: Vec<&str> = Vec::new();
        for &id in ids {
            let token = self.id_to_token(id).unwrap_or(&self.unk);
            if skip_special_tokens
                && (self.special_ids.contains(&id) || self.special.contains(token))
            {
                continue;
            }
            if self.cutting.contains(token) {
                if !open.is_empty() {
                    let text = self.join(&open);
                    if !text.is_empty() {
                        texts.push(text);
                    }
                    open.clear();
                }
                texts.push(token.to_owned());
            } else {
                open.push(token);
            }
        }
        if !open.is_empty() {
            texts.push(self.join(&open));
        }
        Ok(texts.join(" "))
    }

    /// `convert_tokens_to_string`.
    fn join(&self, tokens: &[&str]) -> String {
        match &self.kind {
            Kind::Marian(marian) => marian.join(tokens, &self.special),
            Kind::BertJapanese(_) => {
                tokens.join(" ").replace(" ##", "").trim_matches(is_space).to_owned()
            }
            Kind::BlenderbotSmall(_) => {
                tokens.join(" ").replace("@@ ", "").trim_matches(is_space).to_owned()
            }
        }
    }

    /// `PreTrainedTokenizer.tokenize` and the ids of its tokens.
    pub(super) fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<i64>> {
        let text = if self.lower_case { self.lower(text) } else { text.to_owned() };
        let unk = self.token_to_id(&self.unk).context("the unknown token has no id")?;
        let mut ids = Vec::new();
        if add_special_tokens {
            ids.extend(&self.template.0);
        }
        for part in self.split(&text) {
            match part {
                Part::Added(id) => ids.push(id),
                Part::Text(text) => {
                    for token in self.tokenize(&text)? {
                        let known = self.added_ids.get(&token).copied();
                        ids.push(known.or_else(|| self.lookup(&token)).unwrap_or(unk));
                    }
                }
            }
        }
        if add_special_tokens {
            ids.extend(&self.template.1);
        }
        Ok(ids)
    }

    /// `_convert_token_to_id`, None for unknown.
    fn lookup(&self, token: &str) -> Option<i64> {
        match &self.kind {
            Kind::BlenderbotSmall(_) => self.vocab.ids.get(&token.to_lowercase()).copied(),
            _ => self.vocab.ids.get(token).copied(),
        }
    }

    /// `_tokenize`.
    fn tokenize(&self, text: &str) -> Result<Vec<String>> {
        match &self.kind {
            Kind::Marian(marian) => marian.tokenize(text),
            Kind::BertJapanese(japanese) => {
                japanese.tokenize(text, &self.vocab, &self.unk, &self.special)
            }
            Kind::BlenderbotSmall(blenderbot) => Ok(blenderbot.tokenize(text)),
        }
    }

    /// Lower case, except in special tokens and in added tokens that want to be normalised.
    fn lower(&self, text: &str) -> String {
        let kept =
            self.added.values().filter(|t| !t.special && t.normalized).map(|t| t.content.as_str());
        let kept: Vec<&str> = self.special.iter().map(String::as_str).chain(kept).collect();
        let mut lower = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            match kept.iter().find(|token| !token.is_empty() && rest.starts_with(**token)) {
                Some(token) => {
                    lower.push_str(token);
                    rest = &rest[token.len()..];
                }
                None => {
                    lower.extend(c.to_lowercase());
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        lower
    }

    /// Cuts a text at added tokens: the longest one at the leftmost place, as the reference's trie.
    fn split(&self, text: &str) -> Vec<Part> {
        let mut by_first: HashMap<char, Vec<(&str, i64)>> = HashMap::new();
        for (token, id) in &self.added_ids {
            if let Some(first) = token.chars().next() {
                by_first.entry(first).or_default().push((token, *id));
            }
        }
        let mut parts = Vec::new();
        let mut start = 0;
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let found = by_first.get(&c).and_then(|tokens| {
                let here = tokens.iter().filter(|(token, _)| text[at..].starts_with(token));
                here.max_by_key(|(token, _)| token.len())
            });
            match found {
                Some((token, id)) => {
                    parts.push(Part::Text(text[start..at].to_owned()));
                    parts.push(Part::Added(*id));
                    at += token.len();
                    start = at;
                }
                None => at += c.len_utf8(),
            }
        }
        parts.push(Part::Text(text[start..].to_owned()));
        self.strip(&mut parts);
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        parts
    }

    /// Added tokens eat the white space beside them, and whole words only if they say so.
    fn strip(&self, parts: &mut [Part]) {
        for i in 0..parts.len() {
            let Part::Added(id) = parts[i] else { continue };
            let Some(token) = self.added.get(&id) else { continue };
            if token.rstrip
                && let Some(Part::Text(right)) = parts.get_mut(i + 1)
            {
                *right = right.trim_start_matches(is_space).to_owned();
            }
            if token.lstrip
                && let Some(Part::Text(left)) =
                    i.checked_sub(1).and_then(|left| parts.get_mut(left))
            {
                *left = left.trim_end_matches(is_space).to_owned();
            }
            if !token.single_word {
                continue;
            }
            if let Some(Part::Text(left)) = i.checked_sub(1).and_then(|left| parts.get_mut(left))
                && !left.is_empty()
                && !left.ends_with(' ')
            {
                left.push_str(&token.content);
                parts[i] = Part::Text(String::new());
            } else if let Some(Part::Text(right)) = parts.get_mut(i + 1)
                && !right.is_empty()
                && !right.starts_with(' ')
            {
                right.insert_str(0, &token.content);
                parts[i] = Part::Text(String::new());
            }
        }
    }
}

/// A stretch of text, or an added token.
enum Part {
    Text(String),
    Added(i64),
}

/// White space as Python's `str.isspace` sees it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
