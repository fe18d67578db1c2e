//! CIDEr-D (Vedantam et al. 2015) as pycocoevalcap computes it (`CiderScorer`, n = 4, sigma = 6): the
//! weights of n-grams come from the references of the set itself.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Counts of n-grams of 1 to 4 words. In order: sums of floats depend on it, and equal texts get equal scores.
type Counts<'a> = BTreeMap<&'a [String], f64>;

/// Of each item its references and its hypothesis, as lists of words -> one score an item, 0 to 10.
///
/// A set of one item scores 0: its n-grams tell nothing about it.
pub fn cider_d(items: &[(Vec<Vec<String>>, Vec<String>)]) -> Vec<f64> {
    let counted: Vec<(Vec<Counts>, Counts)> = items
        .iter()
        .map(|(references, own)| {
            (references.iter().map(|words| count(words)).collect(), count(own))
        })
        .collect();
    let mut images: HashMap<&[String], f64> = HashMap::new();
    for (references, _) in &counted {
        let grams: HashSet<&[String]> =
            references.iter().flat_map(|counts| counts.keys().copied()).collect();
        grams.into_iter().for_each(|gram| *images.entry(gram).or_default() += 1.0);
    }
    let all = (items.len() as f64).ln();
    let weight = |gram: &[String]| all - images.get(gram).copied().unwrap_or(0.0).max(1.0).ln();
    counted
        .iter()
        .map(|(references, own)| {
            let own = Weighted::new(own, &weight);
            let sum: f64 = references
                .iter()
                .map(|reference| own.similarity(&Weighted::new(reference, &weight)))
                .sum();
            10.0 * sum / references.len().max(1) as f64
        })
        .collect()
}

fn count(words: &[String]) -> Counts<'_> {
    let mut counts = Counts::new();
    for n in 1..=4 {
        for gram in words.windows(n) {
            *counts.entry(gram).or_default() += 1.0;
        }
    }
    counts
}

/// A text as four vectors, one a length of n-grams.
struct Weighted<'a> {
    values: BTreeMap<&'a [String], f64>,
    norms: [f64; 4],
    length: f64,
}

impl<'a> Weighted<'a> {
    fn new(counts: &Counts<'a>, weight: &impl Fn(&[String]) -> f64) -> Self {
        let mut squares = [0.0; 4];
        let mut length = 0.0;
        let values = counts.iter().map(|(gram, count)| {
            let value = count * weight(gram);
            squares[gram.len() - 1] += value * value;
            // The reference counts pairs of words here, not words.
            if gram.len() == 2 {
                length += count;
            }
            (*gram, value)
        });
        let values = values.collect();
        Weighted { values, norms: squares.map(f64::sqrt), length }
    }

    /// The mean over n of the clipped cosine, damped by the difference in length (sigma = 6).
    fn similarity(&self, reference: &Weighted) -> f64 {
        let mut sums = [0.0; 4];
        for (gram, own) in &self.values {
            let other = reference.values.get(gram).copied().unwrap_or(0.0);
            sums[gram.len() - 1] += own.min(other) * other;
        }
        let delta = self.length - reference.length;
        let damped = (-(delta * delta) / 72.0).exp();
        let cosines =
            sums.iter().zip(self.norms).zip(reference.norms).map(|((sum, own), other)| {
                let norm = own * other;
                if norm == 0.0 { *sum } else { sum / norm }
            });
        cosines.sum::<f64>() * damped / 4.0
    }
}
