//! Blenderbot small (`BlenderbotSmallTokenizer`): a BPE of its own that marks parts of words by `@@`.

use std::collections::HashMap;

use anyhow::Result;

use super::build::read_merges;
use super::files::TokenizerFiles;

/// The ranks of the merges.
pub(super) struct BlenderbotSmall {
    ranks: HashMap<(String, String), usize>,
}

impl BlenderbotSmall {
    pub(super) fn open(files: &TokenizerFiles) -> Result<BlenderbotSmall> {
        let merges = read_merges(files)?;
        // A repeated pair has its last rank, as in Python's dict.
        Ok(BlenderbotSmall { ranks: merges.into_iter().zip(0..).collect() })
    }

    /// `_tokenize`: white space separates words; a line end stays with the word before it.
    pub(super) fn tokenize(&self, text: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start_matches(char::is_whitespace);
        while !rest.is_empty() {
            let mut end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            if rest[end..].starts_with('\n') {
                end += 1;
            }
            self.bpe(&rest[..end], &mut tokens);
            rest = rest[end..].trim_start_matches(char::is_whitespace);
        }
        tokens
    }

    /// `bpe`: punctuation is split off, then every word is merged.
    fn bpe(&self, word: &str, tokens: &mut Vec<String>) {
        let mut spaced = String::with_capacity(word.len() + 8);
        for c in word.chars() {
            match c {
                '.' | ',' | '!' | '?' | '(' | ')' => spaced.extend([' ', c]),
                '\'' => spaced.extend([' ', c, ' ']),
                _ => spaced.push(c),
            }
        }
        let spaced = squeeze(&spaced).replace('\n', " __newln__");
        let before = tokens.len();
        for word in spaced.split(' ').filter(|word| !word.is_empty()) {
            self.merge(&word.to_lowercase(), tokens);
        }
        if tokens.len() == before {
            tokens.push(String::new());
        }
    }

    fn merge(&self, word: &str, tokens: &mut Vec<String>) {
        let mut parts: Vec<String> = word.chars().map(String::from).collect();
        if parts.len() == 1 {
            tokens.append(&mut parts);
            return;
        }
        if let Some(last) = parts.last_mut() {
            last.push_str("</w>");
        }
        while parts.len() > 1 {
            let rank = |pair: &[String]| self.ranks.get(&(pair[0].clone(), pair[1].clone()));
            let Some(best) =
                parts.windows(2).filter(|pair| rank(pair).is_some()).min_by_key(|p| rank(p))
            else {
                break;
            };
            let (left, right) = (best[0].clone(), best[1].clone());
            let mut merged: Vec<String> = Vec::with_capacity(parts.len());
            let mut at = 0;
            while at < parts.len() {
                if at + 1 < parts.len() && parts[at] == left && parts[at + 1] == right {
                    merged.push(format!("{left}{right}"));
                    at += 2;
                } else {
                    merged.push(std::mem::take(&mut parts[at]));
                    at += 1;
                }
            }
            parts = merged;
        }
        let last = parts.len() - 1;
        for (at, mut part) in parts.into_iter().enumerate() {
            if at == last {
                part.truncate(part.len().saturating_sub("</w>".len()));
            } else {
                part.push_str("@@");
            }
            tokens.push(part);
        }
    }
}

/// Every run of two or more white space characters becomes one blank.
fn squeeze(text: &str) -> String {
    let mut squeezed = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() && chars.peek().copied().is_some_and(char::is_whitespace) {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            squeezed.push(' ');
        } else {
            squeezed.push(c);
        }
    }
    squeezed
}
