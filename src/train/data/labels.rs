//! Texts become labels: token ids, ended as the tokenizer's class ends a text.

use anyhow::{Context, Result, ensure};

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
    max_target_length: usize,
    /// Special tokens behind a text.
    suffix: usize,
    append: Option<i64>,
    unknown: Option<i64>,
}

impl<'a> Labeller<'a> {
    /// `eos_token_id` is the end token that generation stops at; it is appended only if the tokenizer
    /// ends texts with no token of its own.
    ///
    /// # Errors
    /// No end token at all, or a limit that leaves no room for text.
    pub fn new(
        tokenizer: &'a Tokenizer,
        eos_token_id: Option<i64>,
        max_target_length: usize,
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
        Ok(Labeller { tokenizer, max_target_length, suffix, append, unknown })
    }

    /// The ids of a text, at most `max_target_length`; what is cut is cut before the end token.
    pub fn encode(&self, text: &str) -> Result<Label> {
        let mut ids = self.tokenizer.encode(text, true)?;
        let room = self.max_target_length - usize::from(self.append.is_some());
        let cut = ids.len() > room;
        if cut {
            let suffix = ids.split_off(ids.len() - self.suffix);
            ids.truncate(room - self.suffix);
            ids.extend(suffix);
        }
        let unknown = ids.iter().filter(|id| Some(**id) == self.unknown).count();
        ids.extend(self.append);
        Ok(Label { ids, cut, unknown })
    }

    /// The text that a label stands for: special tokens left out.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        self.tokenizer.decode(ids, true)
    }
}

/// How many special tokens the tokenizer puts before and behind a text.
fn special_tokens(tokenizer: &Tokenizer) -> Result<(usize, usize)> {
    let probe = "a";
    let plain = tokenizer.encode(probe, false)?;
    let whole = tokenizer.encode(probe, true)?;
    let extra = whole.len().saturating_sub(plain.len());
    let starts = |prefix: &usize| whole[*prefix..].starts_with(&plain);
    let prefix = (0..=extra).find(starts).unwrap_or(extra);
    Ok((prefix, extra - prefix))
}
