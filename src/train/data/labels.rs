//! Texts become labels: token ids, ended as the tokenizer's class ends a text.

use anyhow::{Context, Result, bail, ensure};

use crate::text::Tokenizer;

/// The ids of one text, and what was lost on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub ids: Vec<i64>,
    /// The text was longer than the limit.
    pub cut: bool,
    /// Tokens that stand for what the vocabulary lacks.
    pub unknown: usize,
}

/// Encodes labels as the reference's fine-tuning recipes do: `tokenizer(text, truncation=True,
/// max_length=max_target_length).input_ids`, special tokens included.
///
/// TrOCR's labels are `<s> text </s>` behind the start token `</s>`, BERT's `[CLS] text [SEP]`. A
/// tokenizer that ends no text by itself (GPT-2, XGLM) gets the end token appended, or the model would
/// never learn to stop. Padding is -100 by position, never by comparing ids: where the end token is
/// also the padding token (GPT-2), the end is still learned.
pub struct Labeller<'a> {
    tokenizer: &'a Tokenizer,
    rule: LabelRule,
}

/// What a [`Labeller`] knows of its tokenizer and its model.
#[derive(Clone, Copy)]
pub struct LabelRule {
    max_target_length: usize,
    /// Special tokens before and behind a text.
    prefix: usize,
    suffix: usize,
    /// A text that is too long loses its beginning.
    cuts_left: bool,
    append: Option<i64>,
    unknown: Option<i64>,
    vocab_size: i64,
}

impl LabelRule {
    /// `eos_token_id` is the end token that generation stops at; it is appended only if the tokenizer
    /// ends texts with no token of its own. `vocab_size` is the decoder's.
    ///
    /// # Errors
    /// No end token at all, or a limit that leaves no room for text.
    pub fn new(
        tokenizer: &Tokenizer,
        eos_token_id: Option<i64>,
        max_target_length: usize,
        vocab_size: i64,
    ) -> Result<Self> {
        let (prefix, suffix) = special_tokens(tokenizer)?;
        let append = if suffix == 0 {
            let named = [&tokenizer.special.eos, &tokenizer.special.sep];
            let own = named.into_iter().flatten().map(|(_, id)| *id).next();
            Some(eos_token_id.or(own).context(
                "neither the checkpoint nor its tokenizer has an end token; set eos_token_id in \
                 generation_config.json",
            )?)
        } else {
            None
        };
        let least = prefix + suffix + usize::from(append.is_some());
        ensure!(
            max_target_length > least,
            "--max-target-length {max_target_length}: the special tokens alone are {least}"
        );
        // In byte-level vocabularies the unknown token is only a name for the end token.
        let unknown = tokenizer.special.unk.as_ref().map(|(_, id)| *id);
        let end = tokenizer.special.eos.as_ref().map(|(_, id)| *id);
        let unknown = unknown.filter(|unknown| Some(*unknown) != end);
        let cuts_left = tokenizer.truncates_left();
        Ok(LabelRule { max_target_length, prefix, suffix, cuts_left, append, unknown, vocab_size })
    }

    /// The rule applied by the tokenizer that it was made for.
    pub fn labeller(self, tokenizer: &Tokenizer) -> Labeller<'_> {
        Labeller { tokenizer, rule: self }
    }
}

impl<'a> Labeller<'a> {
    /// See [`LabelRule::new`].
    pub fn new(
        tokenizer: &'a Tokenizer,
        eos_token_id: Option<i64>,
        max_target_length: usize,
        vocab_size: i64,
    ) -> Result<Self> {
        let rule = LabelRule::new(tokenizer, eos_token_id, max_target_length, vocab_size)?;
        Ok(rule.labeller(tokenizer))
    }

    /// The ids of a text, at most `max_target_length`; what is cut is text, at its end unless the tokenizer's
    /// `truncation_side` is left.
    ///
    /// # Errors
    /// A token that the decoder has no row for.
    pub fn encode(&self, text: &str) -> Result<Label> {
        let LabelRule { max_target_length, prefix, suffix, cuts_left, .. } = self.rule;
        let mut ids = self.tokenizer.encode(text, true)?;
        let room = max_target_length - usize::from(self.rule.append.is_some());
        let surplus = ids.len().saturating_sub(room);
        let cut = surplus > 0;
        let start = if cuts_left { prefix } else { ids.len().saturating_sub(suffix + surplus) };
        ids.drain(start..start + surplus);
        let unknown = ids.iter().filter(|id| Some(**id) == self.rule.unknown).count();
        ids.extend(self.rule.append);
        if let Some(id) = ids.iter().find(|id| !(0..self.rule.vocab_size).contains(*id)) {
            let token = self.tokenizer.id_to_token(*id).unwrap_or_default();
            bail!(
                "the token {token:?} has the id {id}, but the decoder's vocabulary has {} rows; the \
                 tokenizer is not the decoder's",
                self.rule.vocab_size
            );
        }
        Ok(Label { ids, cut, unknown })
    }

    /// The characters of a text that the vocabulary lacks.
    pub fn unknown_characters(&self, text: &str) -> Result<Vec<char>> {
        let mut found = Vec::new();
        for c in text.chars() {
            let ids = self.tokenizer.encode(&c.to_string(), false)?;
            if ids.iter().any(|id| Some(*id) == self.rule.unknown) {
                found.push(c);
            }
        }
        Ok(found)
    }

    /// The limit of tokens, special tokens included.
    pub fn max_target_length(&self) -> usize {
        self.rule.max_target_length
    }

    /// The tokens of a label as the vocabulary spells them.
    pub fn tokens(&self, ids: &[i64]) -> Vec<String> {
        ids.iter().map(|id| self.tokenizer.id_to_token(*id).unwrap_or_default()).collect()
    }

    /// The text that a label stands for: special tokens left out.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        self.tokenizer.decode(ids, true)
    }
}

/// How many special tokens the tokenizer puts before and behind a text, seen by a text of known tokens: one
/// that is lost on the way, or is special itself, would not tell where the text stands.
fn special_tokens(tokenizer: &Tokenizer) -> Result<(usize, usize)> {
    let is_plain =
        |ids: &Vec<i64>| !ids.is_empty() && !ids.iter().any(|id| tokenizer.is_special(*id));
    let mut probes = Some("a".to_string()).into_iter().chain(vocabulary(tokenizer));
    let found = probes.find_map(|probe| {
        let plain = tokenizer.encode(&probe, false).ok().filter(is_plain)?;
        Some((probe, plain))
    });
    let (probe, plain) =
        found.context("the tokenizer has no token that a text could be made of")?;
    let whole = tokenizer.encode(&probe, true)?;
    let extra = whole.len().saturating_sub(plain.len());
    let starts = |prefix: &usize| whole[*prefix..].starts_with(&plain);
    let prefix = (0..=extra).find(starts).unwrap_or(extra);
    Ok((prefix, extra - prefix))
}

/// What the tokens of the vocabulary stand for. Nothing is listed before it is asked for.
fn vocabulary(tokenizer: &Tokenizer) -> impl Iterator<Item = String> {
    let tokens = std::iter::once(()).flat_map(|()| tokenizer.tokens());
    tokens.filter_map(|(id, _)| tokenizer.decode(&[id], true).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;

    fn labels(case: &str, limit: usize, texts: &[&str]) -> Vec<Label> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
        let tokenizer = Tokenizer::from_dir(&dir, None).unwrap();
        let labeller = Labeller::new(&tokenizer, None, limit, 1 << 20).unwrap();
        texts.iter().map(|text| labeller.encode(text).unwrap()).collect()
    }

    #[allow(clippy::type_complexity)]
    #[test]
    fn labels_are_those_of_the_reference() {
        // tokenizer(text, truncation=True, max_length=limit).input_ids; behind GPT-2 and XGLM the end.
        let (text, texts) = ("the cat sat on the mat", ["a", "the cat sat on the mat", ""]);
        let table: &[(&str, [&[i64]; 3], &[i64])] = &[
            (
                "vit-gpt2",
                [&[23, 139], &[53, 66, 59, 70, 59, 58, 56, 49, 35, 59, 139], &[139]],
                &[53, 66, 59, 70, 139],
            ),
            (
                "vit-bert",
                [&[2, 48, 3], &[2, 69, 50, 72, 65, 72, 71, 69, 59, 72, 3], &[2, 3]],
                &[2, 69, 50, 72, 3],
            ),
            (
                "deit-trocr",
                [&[0, 27, 2], &[0, 57, 70, 63, 74, 63, 62, 60, 53, 39, 63, 2], &[0, 2]],
                &[0, 57, 70, 63, 2],
            ),
            (
                "vit-xglm",
                [&[2, 27, 2], &[2, 57, 70, 63, 74, 63, 62, 60, 53, 39, 63, 2], &[2, 2]],
                &[2, 57, 70, 63, 2],
            ),
            (
                "vit-mbart",
                [&[53, 2, 107], &[48, 37, 44, 32, 44, 45, 48, 54, 68, 44, 2, 107], &[2, 107]],
                &[48, 37, 44, 2, 107],
            ),
        ];
        for (case, expected, cut) in table {
            let found = labels(case, 64, &texts);
            for (label, ids) in found.iter().zip(expected) {
                assert_eq!((label.ids.as_slice(), label.cut), (*ids, false), "{case}");
            }
            let label = &labels(case, 5, &[text])[0];
            assert_eq!((label.ids.as_slice(), label.cut), (*cut, true), "{case}");
        }
    }

    /// A tokenizer of digits alone, with these tokens around a text.
    fn digits(template: &[&str], truncation_side: &str) -> tempfile::TempDir {
        let id = |token: &&str| if *token == "<s>" { 0 } else { 2 };
        let piece = |token: &&str| match *token {
            "$A" => serde_json::json!({"Sequence": {"id": "A", "type_id": 0}}),
            token => serde_json::json!({"SpecialToken": {"id": token, "type_id": 0}}),
        };
        let special: serde_json::Map<_, _> = template
            .iter()
            .filter(|token| **token != "$A")
            .map(|token| {
                let of = serde_json::json!({"id": token, "ids": [id(token)], "tokens": [token]});
                ((*token).to_string(), of)
            })
            .collect();
        let single: Vec<_> = template.iter().map(piece).collect();
        let processor = serde_json::json!({
            "type": "TemplateProcessing", "single": single, "pair": single,
            "special_tokens": special,
        });
        let mut vocab = serde_json::json!({"<s>": 0, "<pad>": 1, "</s>": 2});
        (0..10).for_each(|digit| vocab[digit.to_string()] = (digit + 3).into());
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [],
            "pre_tokenizer": {
                "type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": false,
            },
            "post_processor": if template == ["$A"] { serde_json::Value::Null } else { processor },
            "decoder": {"type": "Fuse"},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "byte_fallback": false, "vocab": vocab, "merges": [],
            },
        });
        let config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "truncation_side": truncation_side,
            "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
        });
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, json: &serde_json::Value| {
            std::fs::write(folder.path().join(name), json.to_string()).unwrap();
        };
        write("tokenizer.json", &json);
        write("tokenizer_config.json", &config);
        folder
    }

    #[allow(clippy::type_complexity)]
    #[test]
    fn readers_of_digits_need_no_letters() {
        // Template, where it is cut, labels of 12 and of 123456 in at most 5 tokens: those of transformers,
        // and the end where the template has none.
        let table: [(&[&str], &str, &[i64], &[i64]); 5] = [
            (&["<s>", "$A", "</s>"], "right", &[0, 4, 5, 2], &[0, 4, 5, 6, 2]),
            (&["<s>", "$A", "</s>"], "left", &[0, 4, 5, 2], &[0, 7, 8, 9, 2]),
            (&["<s>", "$A"], "right", &[0, 4, 5, 2], &[0, 4, 5, 6, 2]),
            (&["$A"], "right", &[4, 5, 2], &[4, 5, 6, 7, 2]),
            (&["$A"], "left", &[4, 5, 2], &[6, 7, 8, 9, 2]),
        ];
        for (template, side, short, cut) in table {
            let folder = digits(template, side);
            let tokenizer = Tokenizer::from_dir(folder.path(), None).unwrap();
            assert!(tokenizer.encode("a", false).unwrap().is_empty());
            let labeller = Labeller::new(&tokenizer, None, 5, 13).unwrap();
            assert_eq!(labeller.encode("12").unwrap().ids, short, "{template:?} {side}");
            let label = labeller.encode("123456").unwrap();
            assert_eq!((label.ids.as_slice(), label.cut), (cut, true), "{template:?} {side}");
        }
    }

    #[test]
    fn unknown_characters_are_counted() {
        let label = &labels("vit-bert", 64, &["a \u{2603} b"])[0];
        assert_eq!(label.unknown, 1, "{:?}", label.ids);
        assert_eq!(labels("vit-gpt2", 64, &["\u{2603}"])[0].unknown, 0);
    }

    #[test]
    fn what_can_not_be_learned_is_refused() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/deit-trocr");
        let tokenizer = Tokenizer::from_dir(&dir, None).unwrap();
        let error = Labeller::new(&tokenizer, None, 2, 1000).err().unwrap().to_string();
        assert!(error.contains("the special tokens alone are 2"), "{error}");
        let labeller = Labeller::new(&tokenizer, None, 9, 20).unwrap();
        let error = labeller.encode("the").unwrap_err().to_string();
        assert!(error.contains("the decoder's vocabulary has 20 rows"), "{error}");
    }
}
