//! Corpus BLEU (Papineni et al. 2002) as sacrebleu computes it: tokens of mteval-v13a, the closest
//! reference length, exponential smoothing. From 0 to 100.

use std::collections::HashMap;

/// BLEU with n-grams of up to 1, 2, 3 and 4 words (`max_ngram_order`). Each item has its references.
pub fn corpus(items: &[(Vec<&str>, &str)]) -> [f64; 4] {
    let (mut correct, mut total) = ([0usize; 4], [0usize; 4]);
    let (mut length, mut reference_length) = (0, 0);
    for (references, hypothesis) in items {
        let own = tokenize(hypothesis);
        let references: Vec<Vec<String>> = references.iter().map(|text| tokenize(text)).collect();
        length += own.len();
        let lengths = references.iter().map(Vec::len);
        reference_length +=
            lengths.min_by_key(|other| (own.len().abs_diff(*other), *other)).unwrap_or(0);
        for n in 1..=4 {
            // An n-gram counts as often as the one reference that has most of it.
            let mut most: HashMap<&[String], usize> = HashMap::new();
            for reference in &references {
                for (gram, count) in counts(reference, n) {
                    let best = most.entry(gram).or_default();
                    *best = count.max(*best);
                }
            }
            for (gram, count) in counts(&own, n) {
                correct[n - 1] += count.min(most.get(gram).copied().unwrap_or(0));
                total[n - 1] += count;
            }
        }
    }
    std::array::from_fn(|order| score(&correct, &total, length, reference_length, order + 1))
}

/// `BLEU.compute_bleu` of sacrebleu, with `smooth_method="exp"`.
fn score(
    correct: &[usize; 4],
    total: &[usize; 4],
    length: usize,
    reference_length: usize,
    order: usize,
) -> f64 {
    if correct[..order].iter().all(|count| *count == 0) {
        return 0.0;
    }
    let brevity = if length < reference_length {
        (1.0 - reference_length as f64 / length as f64).exp()
    } else {
        1.0
    };
    let (mut logarithms, mut smooth) = (0.0, 1.0);
    for (correct, total) in correct.iter().zip(total).take(order) {
        if *total == 0 {
            // No hypothesis is that long: a precision of 0.
            return 0.0;
        }
        let precision = if *correct == 0 {
            smooth *= 2.0;
            100.0 / (smooth * *total as f64)
        } else {
            100.0 * *correct as f64 / *total as f64
        };
        logarithms += precision.ln();
    }
    brevity * (logarithms / order as f64).exp()
}

fn counts(tokens: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for gram in tokens.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// sacrebleu's `Tokenizer13a`.
fn tokenize(text: &str) -> Vec<String> {
    let text = text
        .trim_end()
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let mut spaced = vec![' '];
    for c in text.chars() {
        match c {
            '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/' => {
                spaced.extend([' ', c, ' ']);
            }
            _ => spaced.push(c),
        }
    }
    spaced.push(' ');
    let is_point = |c: char| c == '.' || c == ',';
    let is_digit = |c: char| c.is_ascii_digit();
    let spaced = separate(&spaced, |a, b| !is_digit(a) && is_point(b), |a, b| [a, ' ', b, ' ']);
    let spaced = separate(&spaced, |a, b| is_point(a) && !is_digit(b), |a, b| [' ', a, ' ', b]);
    let spaced = separate(&spaced, |a, b| is_digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    let spaced: String = spaced.into_iter().collect();
    spaced.split_whitespace().map(str::to_string).collect()
}

/// Replaces pairs of neighbours from left to right, without overlap, as `re.sub` does.
fn separate(
    text: &[char],
    found: impl Fn(char, char) -> bool,
    replace: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match tail {
            [second, tail @ ..] if found(*first, *second) => {
                out.extend(replace(*first, *second));
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}
