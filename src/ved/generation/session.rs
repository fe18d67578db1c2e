//! The decoder's side of a search: rows of tokens, the cache, the image states that are still needed.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::GenerationConfig;
use crate::decoders::Decoder;
use crate::nn::Cache;
use crate::nn::draft::Draft;

/// N rows of tokens over B images (image-major), as far as the decoder has read them.
pub(super) struct Session<'a> {
    decoder: &'a dyn Decoder,
    /// [B, S, D]
    states: Tensor,
    cache: Cache,
    /// [N, L]: all tokens, the unread ones too.
    pub(super) ids: Tensor,
}

impl<'a> Session<'a> {
    /// One row an image, nothing read.
    pub(super) fn new(
        decoder: &'a dyn Decoder,
        encoder_hidden_states: &Tensor,
        prompt: &Tensor,
        config: &GenerationConfig,
    ) -> Self {
        let mut cache = decoder.limits().cache();
        cache.counts_padding = config.use_cache;
        Session {
            decoder,
            states: encoder_hidden_states.shallow_clone(),
            cache,
            ids: prompt.to_kind(Kind::Int64),
        }
    }

    /// No image will have several rows.
    pub(super) fn expect_one_row_per_image(&mut self) {
        self.cache.expect_one_row_per_image();
    }

    /// From now on cross-attention is kept; see `attentions`.
    pub(super) fn watch(&mut self) {
        self.cache.watch();
    }

    /// Layer by layer, what the tokens read last looked at: [N, A, t, S] f32.
    pub(super) fn attentions(&self) -> Vec<&Tensor> {
        self.cache.attentions()
    }

    /// Reads the unread tokens. -> hidden states [N, t, D]
    pub(super) fn read(&mut self) -> Tensor {
        let (length, past) = (self.ids.size()[1], self.cache.past());
        let unread = self.ids.narrow(1, past, length - past);
        self.decoder.forward(&unread, &self.states, &mut self.cache, false)
    }

    /// Scores of the token after the last one read. hidden states [N, t, D] -> [N, V] f32
    pub(super) fn logits(&self, hidden: &Tensor) -> Tensor {
        let last = hidden.narrow(1, hidden.size()[1] - 1, 1);
        self.decoder.logits(&last).squeeze_dim(1).to_kind(Kind::Float)
    }

    /// `read` and `logits`. -> [N, V] f32
    pub(super) fn next_logits(&mut self) -> Tensor {
        let hidden = self.read();
        self.logits(&hidden)
    }

    /// True if there is one row, and what it read can be forgotten again.
    pub(super) fn takes_drafts(&self) -> bool {
        self.ids.size()[0] == 1 && self.cache.rewinds()
    }

    /// Appends up to `count` tokens that a draft chooses by `choose` from ids [1, L] and logits [1, V], which
    /// tells too if the token is the last. They remain unread.
    pub(super) fn write_draft(
        &mut self,
        count: usize,
        mut choose: impl FnMut(&Tensor, Tensor) -> Result<(i64, bool)>,
    ) -> Result<Vec<i64>> {
        let _draft = Draft::begin();
        let past = self.cache.past();
        let mut tokens = Vec::with_capacity(count);
        while tokens.len() < count {
            let logits = self.next_logits();
            let (token, is_last) = choose(&self.ids, logits)?;
            tokens.push(token);
            self.append(&[token]);
            if is_last {
                break;
            }
        }
        self.cache.rewind(past);
        Ok(tokens)
    }

    /// Reads the unread tokens. -> scores of the token after each of them, [N, t, V] f32
    pub(super) fn all_logits(&mut self) -> Tensor {
        let hidden = self.read();
        self.decoder.logits(&hidden).to_kind(Kind::Float)
    }

    /// Only the first `length` tokens of each row remain, and have been read.
    pub(super) fn rewind(&mut self, length: i64) {
        self.ids = self.ids.narrow(1, 0, length);
        self.cache.rewind(length);
    }

    /// Each row becomes `times` rows, side by side.
    pub(super) fn repeat(&mut self, times: i64) {
        if times > 1 {
            let n = self.ids.size()[0];
            let rows: Vec<i64> = (0..n * times).map(|row| row / times).collect();
            self.select(&rows);
        }
    }

    /// Rows become copies of `rows`; the images stay.
    pub(super) fn select(&mut self, rows: &[i64]) {
        if !self.is_identity(rows) {
            self.cache.reorder(rows);
            self.ids = self.ids.index_select(0, &self.index(rows));
        }
    }

    /// Keeps `images`, and rows that become copies of `rows`, which number the rows before.
    pub(super) fn keep(&mut self, images: &[i64], rows: &[i64]) {
        if images.len() as i64 == self.states.size()[0] {
            return self.select(rows);
        }
        self.cache.keep(images, rows);
        self.states = self.states.index_select(0, &self.index(images));
        self.ids = self.ids.index_select(0, &self.index(rows));
    }

    /// Appends one token to each row.
    pub(super) fn append(&mut self, tokens: &[i64]) {
        self.append_column(&self.index(tokens).unsqueeze(1));
    }

    /// Appends a column, [N, 1].
    pub(super) fn append_column(&mut self, tokens: &Tensor) {
        self.ids = Tensor::cat(&[&self.ids, tokens], 1);
    }

    fn is_identity(&self, rows: &[i64]) -> bool {
        rows.len() as i64 == self.ids.size()[0] && rows.iter().zip(0..).all(|(a, b)| *a == b)
    }

    fn index(&self, numbers: &[i64]) -> Tensor {
        Tensor::from_slice(numbers).to_device(self.ids.device())
    }
}

/// Closes the gaps of those that leave (None) with the last ones, so that few change their places.
/// -> those that stay, with their old places
pub(super) fn close_gaps<T>(all: Vec<Option<T>>) -> Vec<(usize, T)> {
    let count = all.iter().flatten().count();
    let mut all: Vec<(usize, Option<T>)> = all.into_iter().enumerate().collect();
    let mut last: Vec<(usize, T)> =
        all.split_off(count).into_iter().filter_map(|(at, one)| Some((at, one?))).collect();
    all.into_iter()
        .filter_map(|(at, one)| one.map(|one| (at, one)).or_else(|| last.pop()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_close_the_gaps() {
        let table: &[(&[bool], &[usize])] = &[
            (&[true, true, true], &[0, 1, 2]),
            (&[false, true, true], &[2, 1]),
            (&[true, false, false, true, true], &[0, 4, 3]),
            (&[true, false], &[0]),
            (&[false, false], &[]),
        ];
        for (stay, expected) in table {
            let all = stay.iter().map(|stay| stay.then_some(())).collect();
            let found: Vec<usize> = close_gaps(all).into_iter().map(|(at, ())| at).collect();
            assert_eq!(found, *expected, "{stay:?}");
        }
    }
}
