//! Decoding id by id.

use anyhow::Result;

use super::Tokenizer;
use super::cleanup::{clean_up_tokenization, settled_len};

/// Gives the new text after each id, so that the pieces in a row are the text of [`Tokenizer::decode`].
///
/// Text that the next id may still change is held back: the bytes of an unfinished character, and
/// blanks that the clean-up may take away.
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special_tokens: bool,
    ids: Vec<i64>,
    shown: String,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special_tokens: bool) -> DecodeStream<'a> {
        DecodeStream { tokenizer, skip_special_tokens, ids: Vec::new(), shown: String::new() }
    }

    /// Takes the next id and gives the text that is now certain; often empty.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: i64) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode_raw(&self.ids, self.skip_special_tokens)?;
        // Blenderbot small marks unfinished words by "@@".
        let text = text.trim_end_matches("@@").trim_end_matches('\u{fffd}');
        Ok(match self.tokenizer.clean_up_tokenization_spaces {
            true => self.advance(&clean_up_tokenization(&text[..settled_len(text)])),
            false => self.advance(text),
        })
    }

    /// Gives what was held back at the end.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, self.skip_special_tokens)?;
        Ok(self.advance(&text))
    }

    /// The part of `text` after what was shown. Text that no longer begins so waits.
    fn advance(&mut self, text: &str) -> String {
        match text.strip_prefix(self.shown.as_str()) {
            Some(new) => {
                let new = new.to_owned();
                self.shown.push_str(&new);
                new
            }
            None => String::new(),
        }
    }
}
