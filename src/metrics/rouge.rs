//! ROUGE-L (Lin 2004) as rouge_score computes it, without stemming: F1 of the longest common
//! subsequence of words. Words are runs of a to z and 0 to 9; other scripts have none.

/// The best F1 over the references, from 0 to 1.
pub fn rouge_l(references: &[&str], hypothesis: &str) -> f64 {
    let own = words(hypothesis);
    references.iter().map(|reference| f1(&words(reference), &own)).fold(0.0, f64::max)
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let split = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    split.filter(|word| !word.is_empty()).map(str::to_string).collect()
}

fn f1(reference: &[String], hypothesis: &[String]) -> f64 {
    let common = common_subsequence(reference, hypothesis) as f64;
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / hypothesis.len() as f64, common / reference.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

fn common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}
