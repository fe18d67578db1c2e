//! Greedy search with drafts: several tokens a reading of the weights, and the same text.

use anyhow::Result;

use super::session::Session;
use super::step::{Chosen, Rows};
use super::{GenerationMode, Run};

/// Tokens of the first draft.
const FIRST: usize = 4;

/// Tokens of a draft at most.
const MOST: usize = 8;

/// Of so many tokens half must have been right, or no more drafts are written.
const TRIAL: usize = 12;

/// How long the next draft is, by what became of those before.
pub(super) struct Drafts {
    length: usize,
    written: usize,
    right: usize,
}

impl Drafts {
    pub(super) fn new(run: &Run) -> Self {
        let asked = run.hooks.drafts && run.config.mode() == GenerationMode::Greedy;
        Drafts { length: if asked { FIRST } else { 0 }, written: 0, right: 0 }
    }

    /// Tokens to write ahead: 0 where a step of one token is better. The last token is not worth a draft.
    pub(super) fn length(&self, session: &Session, run: &Run) -> usize {
        if self.length == 0 || !session.takes_drafts() {
            return 0;
        }
        let room = run.max_length - session.ids.size()[1] - 1;
        self.length.min(room.max(0) as usize)
    }

    /// Writes a draft of up to `length` tokens after what the row has, reads all of it in one step, and takes
    /// what search would have chosen. -> its first choice that is not the draft's; None if the sequence has
    /// ended
    pub(super) fn check(
        &mut self,
        length: usize,
        session: &mut Session,
        rows: &mut Rows,
        run: &Run,
    ) -> Result<Option<Chosen>> {
        let before = session.ids.size()[1];
        let draft = session.write_draft(length, |ids, logits| {
            let token = rows.choose(ids, logits, run)?.0[0];
            Ok((token, run.stopping.is_eos(token)))
        })?;
        let logits = session.all_logits(); // [1, draft + 1, V]
        for right in 0..=draft.len() {
            let length = before + right as i64;
            let ids = session.ids.narrow(1, 0, length);
            let chosen = rows.choose(&ids, logits.select(1, right as i64), run)?;
            if draft.get(right) != Some(&chosen.0[0]) {
                self.learn(right, draft.len());
                session.rewind(length);
                return Ok(Some(chosen));
            }
            if rows.advance(chosen, run).is_none() {
                break;
            }
        }
        Ok(None)
    }

    /// `right` of the `written` tokens of a draft were those of search.
    fn learn(&mut self, right: usize, written: usize) {
        // Those after the first wrong one say nothing.
        self.written += written.min(right + 1);
        self.right += right;
        self.length = match () {
            () if self.written >= TRIAL && self.right * 2 < self.written => 0,
            () if right == written => (written.max(self.length) + 2).min(MOST),
            () => (right + 1).min(self.length),
        };
    }
}
