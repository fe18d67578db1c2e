//! When a sequence ends: eos, length, time, a stop string, a loop.

use std::time::{Duration, Instant};

use super::config::GenerationConfig;
use super::{Decode, Finish, Hooks};

/// Ends a sequence whose last tokens say the same again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopDetector {
    /// The longest period looked for, in tokens.
    pub max_period: usize,
    /// So many times in a row the same period is a loop.
    pub repeats: usize,
    /// All repeats together have at least so many tokens; keeps "....." out of it.
    pub min_tokens: usize,
}

/// The conditions of one call of `generate`.
pub(super) struct Stopping<'a> {
    eos: &'a [i64],
    max_length: usize,
    deadline: Option<Instant>,
    strings: &'a [String],
    decode: Option<Decode<'a>>,
    loops: Option<LoopDetector>,
}

impl LoopDetector {
    /// True if some period of at most `max_period` tokens fills the end of `ids` often enough.
    pub fn found(&self, ids: &[i64]) -> bool {
        (1..=self.max_period).any(|period| {
            let times = self.repeats.max(self.min_tokens.div_ceil(period)).max(2);
            let tail = ids.len().checked_sub(times * period).map(|start| &ids[start..]);
            tail.is_some_and(|tail| tail.iter().zip(&tail[period..]).all(|(a, b)| a == b))
        })
    }
}

impl<'a> Stopping<'a> {
    pub(super) fn new(config: &'a GenerationConfig, hooks: &Hooks<'a>, max_length: i64) -> Self {
        Stopping {
            eos: &config.eos_token_id,
            max_length: max_length as usize,
            deadline: config.max_time.and_then(deadline),
            strings: &config.stop_strings,
            decode: hooks.decode,
            loops: hooks.loop_detector,
        }
    }

    pub(super) fn is_eos(&self, id: i64) -> bool {
        self.eos.contains(&id)
    }

    /// Asked once a step, so that all rows of a step see the same answer.
    pub(super) fn time_is_up(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Why the sequence of `prompt` and `new` tokens ends with its last token, if it does.
    pub(super) fn check(&self, prompt: &[i64], new: &[i64], time_is_up: bool) -> Option<Finish> {
        if new.last().is_some_and(|id| self.is_eos(*id)) {
            Some(Finish::Eos)
        } else if !self.strings.is_empty() && self.ends_with_stop_string(prompt, new) {
            Some(Finish::Stop)
        } else if self.loops.is_some_and(|loops| loops.found(new)) {
            Some(Finish::Repetition)
        } else if prompt.len() + new.len() >= self.max_length {
            Some(Finish::Length)
        } else {
            time_is_up.then_some(Finish::Time)
        }
    }

    /// A stop string ends within the text of the last token, the prompt's text included (the
    /// reference's `StopStringCriteria`).
    fn ends_with_stop_string(&self, prompt: &[i64], new: &[i64]) -> bool {
        let Some(decode) = self.decode else { return false };
        // A stop string has at most one token a character; some more, for tokens without text.
        let longest = self.strings.iter().map(|s| s.chars().count()).max().unwrap_or(0) + 8;
        let tail = new.len().saturating_sub(longest);
        let missing = longest.saturating_sub(new.len()).min(prompt.len());
        let ids = [&prompt[prompt.len() - missing..], &new[tail..]].concat();
        let after = decode(&ids);
        let before = decode(&ids[..ids.len() - 1]);
        let common: usize = after
            .chars()
            .zip(before.chars())
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        self.strings.iter().any(|string| {
            let ends = after.match_indices(string.as_str()).map(|(at, _)| at + string.len());
            // Overlapping occurrences: the last one is what counts.
            ends.chain(after.rfind(string.as_str()).map(|at| at + string.len()))
                .any(|end| end > common)
        })
    }
}

/// None where it lies beyond what a clock can count.
fn deadline(seconds: f64) -> Option<Instant> {
    Instant::now().checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_found_by_period_and_length() {
        let detector = LoopDetector { max_period: 3, repeats: 3, min_tokens: 6 };
        let table: &[(&[i64], bool)] = &[
            (&[1, 2, 1, 2, 1, 2], true),
            (&[9, 1, 2, 3, 1, 2, 3, 1, 2, 3], true),
            (&[1, 2, 1, 2, 1, 3], false),
            (&[1, 2, 1, 2], false),
            (&[7, 7, 7, 7, 7], false),
            (&[7, 7, 7, 7, 7, 7], true),
            (&[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], false),
            (&[], false),
        ];
        for (ids, expected) in table {
            assert_eq!(detector.found(ids), *expected, "{ids:?}");
        }
    }

    #[test]
    fn a_stop_string_must_reach_into_the_last_token() {
        const WORDS: [&str; 5] = ["<s>", "ab", "c", "", "bcd"];
        let decode = |ids: &[i64]| ids.iter().map(|id| WORDS[*id as usize]).collect::<String>();
        let config = GenerationConfig {
            stop_strings: vec!["bc".to_string(), "aba".to_string()],
            ..Default::default()
        };
        let hooks = Hooks { decode: Some(&decode), ..Default::default() };
        let stopping = Stopping::new(&config, &hooks, 99);
        let table: &[(&[i64], bool)] = &[
            (&[1, 2], true),     // ab|c ends with bc
            (&[1, 2, 1], false), // abc|ab: bc ended before
            (&[1, 2, 3], false), // abc|(nothing)
            (&[4], true),        // bcd overlaps its end
            (&[1, 1, 1], true),  // abab|ab holds aba ending in the last token
            (&[1], false),
        ];
        for (ids, expected) in table {
            let found = stopping.check(&[0], ids, false) == Some(Finish::Stop);
            assert_eq!(found, *expected, "{ids:?}");
        }
    }
}
