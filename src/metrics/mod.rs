//! How well texts agree: pure functions of strings.
//!
//! | figure | as | texts are |
//! |---|---|---|
//! | CER, WER | jiwer, over the whole set | composed (NFC), blanks at the ends dropped, runs of them made one |
//! | exact match | – | the same |
//! | BLEU-1 to 4 | sacrebleu (13a, exp) | as they are |
//! | ROUGE-L | rouge_score, no stemmer | as they are |
//! | CIDEr-D | pycocoevalcap's `Cider` | cut into words by [`caption_words`], not by the Java tokenizer |
//!
//! An image with several references is measured by CER, WER and exact match against the nearest one.
//! tests/fixtures/metrics/ holds what the named implementations say about fixed texts.

pub mod bleu;
pub mod cider;
pub mod edit;
pub mod rouge;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

pub use edit::Confusions;

/// One image: what people wrote, and what the model wrote.
#[derive(Clone, Debug)]
pub struct Item {
    pub references: Vec<String>,
    pub hypothesis: String,
}

/// The figures of a set. Rates are shares of 1, BLEU goes to 100, CIDEr-D to 10.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub items: usize,
    pub cer: f64,
    pub wer: f64,
    pub exact_match: f64,
    #[serde(rename = "bleu-1")]
    pub bleu_1: f64,
    #[serde(rename = "bleu-2")]
    pub bleu_2: f64,
    #[serde(rename = "bleu-3")]
    pub bleu_3: f64,
    #[serde(rename = "bleu-4")]
    pub bleu_4: f64,
    #[serde(rename = "rouge-l")]
    pub rouge_l: f64,
    #[serde(rename = "cider-d")]
    pub cider_d: f64,
    pub counts: Counts,
}

/// What the rates are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub exact: usize,
    pub character_edits: usize,
    pub characters: usize,
    pub word_edits: usize,
    pub words: usize,
}

/// An item against its nearest reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest {
    /// Both in the form that is compared.
    pub reference: String,
    pub hypothesis: String,
    pub character_edits: usize,
    pub characters: usize,
}

impl Nearest {
    /// Edits a character of the reference; of an empty reference, their number.
    pub fn cer(&self) -> f64 {
        self.character_edits as f64 / self.characters.max(1) as f64
    }
}

/// The form in which CER, WER and exact match compare: NFC, no blanks at the ends, runs of blanks made
/// one; in lower case if `ignore_case`.
pub fn normalize(text: &str, ignore_case: bool) -> String {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").nfc().collect();
    // Lower case may decompose (İ): compose again.
    if ignore_case { text.to_lowercase().nfc().collect() } else { text }
}

/// The words of a caption: lower case, cut at blanks and punctuation; apostrophe and hyphen stay
/// inside a word.
pub fn caption_words(text: &str) -> Vec<String> {
    let is_blank = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || (c.is_ascii_punctuation() && c != '\'' && c != '-')
            || matches!(c, '\u{a1}'..='\u{bf}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}'
                | '\u{ff00}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}')
    };
    let text = text.to_lowercase().replace('\u{2019}', "'");
    let words = text.split(is_blank).map(|word| word.trim_matches(['\'', '-']));
    words.filter(|word| !word.is_empty()).map(str::to_string).collect()
}

/// The reference with the lowest rate of edits; the first of equals.
pub fn nearest(item: &Item, ignore_case: bool) -> Nearest {
    let hypothesis = normalize(&item.hypothesis, ignore_case);
    let own: Vec<char> = hypothesis.chars().collect();
    let mut best: Option<Nearest> = None;
    for reference in &item.references {
        let reference = normalize(reference, ignore_case);
        let characters: Vec<char> = reference.chars().collect();
        let found = Nearest {
            character_edits: edit::distance(&characters, &own),
            characters: characters.len(),
            hypothesis: hypothesis.clone(),
            reference,
        };
        if best.as_ref().is_none_or(|best| found.cer() < best.cer()) {
            best = Some(found);
        }
    }
    best.unwrap_or(Nearest {
        reference: String::new(),
        character_edits: own.len(),
        characters: 0,
        hypothesis,
    })
}

/// All figures of a set; zeros for an empty one.
pub fn score(items: &[Item], ignore_case: bool) -> Scores {
    if items.is_empty() {
        return Scores::default();
    }
    let mut counts = Counts::default();
    for item in items {
        let nearest = nearest(item, ignore_case);
        counts.exact += usize::from(nearest.reference == nearest.hypothesis);
        counts.character_edits += nearest.character_edits;
        counts.characters += nearest.characters;
        let (edits, words) = nearest_words(item, ignore_case);
        counts.word_edits += edits;
        counts.words += words;
    }
    let folded: Vec<Item> = items.iter().map(|item| folded(item, ignore_case)).collect();
    let borrowed: Vec<(Vec<&str>, &str)> = folded
        .iter()
        .map(|item| {
            (item.references.iter().map(String::as_str).collect(), item.hypothesis.as_str())
        })
        .collect();
    let [bleu_1, bleu_2, bleu_3, bleu_4] = bleu::corpus(&borrowed);
    let words: Vec<_> = items
        .iter()
        .map(|item| {
            let references = item.references.iter().map(|text| caption_words(text)).collect();
            (references, caption_words(&item.hypothesis))
        })
        .collect();
    let n = items.len() as f64;
    let rouge = borrowed.iter().map(|(references, own)| rouge::rouge_l(references, own));
    Scores {
        items: items.len(),
        cer: counts.character_edits as f64 / counts.characters.max(1) as f64,
        wer: counts.word_edits as f64 / counts.words.max(1) as f64,
        exact_match: counts.exact as f64 / n,
        bleu_1,
        bleu_2,
        bleu_3,
        bleu_4,
        rouge_l: rouge.sum::<f64>() / n,
        cider_d: cider::cider_d(&words).iter().sum::<f64>() / n,
        counts,
    }
}

fn folded(item: &Item, ignore_case: bool) -> Item {
    let fold = |text: &String| if ignore_case { text.to_lowercase() } else { text.clone() };
    Item {
        references: item.references.iter().map(fold).collect(),
        hypothesis: fold(&item.hypothesis),
    }
}

/// Edits and words of the reference with the lowest rate of word edits.
fn nearest_words(item: &Item, ignore_case: bool) -> (usize, usize) {
    let hypothesis = normalize(&item.hypothesis, ignore_case);
    let own: Vec<&str> = hypothesis.split(' ').filter(|word| !word.is_empty()).collect();
    let mut best: Option<(usize, usize)> = None;
    let rate = |(edits, words): (usize, usize)| edits as f64 / words.max(1) as f64;
    for reference in &item.references {
        let reference = normalize(reference, ignore_case);
        let words: Vec<&str> = reference.split(' ').filter(|word| !word.is_empty()).collect();
        let found = (edit::distance(&words, &own), words.len());
        if best.is_none_or(|best| rate(found) < rate(best)) {
            best = Some(found);
        }
    }
    best.unwrap_or((own.len(), 0))
}

#[cfg(test)]
mod tests;
