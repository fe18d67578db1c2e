//! Edit distance (Levenshtein) between sequences, and which characters are taken for which.

use std::collections::HashMap;
use std::hash::Hash;

/// One step of an alignment of a reference with a hypothesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<T> {
    Match(T),
    /// Of the reference, of the hypothesis.
    Substitution(T, T),
    /// Only in the hypothesis.
    Insertion(T),
    /// Only in the reference.
    Deletion(T),
}

/// The least number of substitutions, insertions and deletions that turn one sequence into the other.
pub fn distance<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> usize {
    let (reference, hypothesis, _) = trim(reference, hypothesis);
    let mut row: Vec<usize> = (0..=hypothesis.len()).collect();
    for (i, own) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in hypothesis.iter().enumerate() {
            let replaced = diagonal + usize::from(own != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[hypothesis.len()]
}

/// Without the ends that both have; the length of the common start comes third.
fn trim<'a, T: PartialEq>(a: &'a [T], b: &'a [T]) -> (&'a [T], &'a [T], usize) {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..], &b[start..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    (&a[..a.len() - end], &b[..b.len() - end], start)
}

/// An alignment with the least number of edits, from the first element to the last. Where several have
/// it, a substitution goes before a deletion, and this before an insertion.
pub fn align<T: PartialEq + Copy>(reference: &[T], hypothesis: &[T]) -> Vec<Edit<T>> {
    let (a, b, start) = trim(reference, hypothesis);
    let width = b.len() + 1;
    let mut cost = vec![0u32; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            cost[i * width + j] = match (i, j) {
                (0, _) => j as u32,
                (_, 0) => i as u32,
                _ => {
                    let replaced = cost[(i - 1) * width + j - 1] + u32::from(a[i - 1] != b[j - 1]);
                    let one = cost[(i - 1) * width + j].min(cost[i * width + j - 1]) + 1;
                    replaced.min(one)
                }
            };
        }
    }
    let mut edits: Vec<Edit<T>> =
        reference[start + a.len()..].iter().rev().map(|item| Edit::Match(*item)).collect();
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 || j > 0 {
        let here = cost[i * width + j];
        let differ = i > 0 && j > 0 && a[i - 1] != b[j - 1];
        if i > 0 && j > 0 && cost[(i - 1) * width + j - 1] + u32::from(differ) == here {
            let (own, other) = (a[i - 1], b[j - 1]);
            edits.push(if differ { Edit::Substitution(own, other) } else { Edit::Match(own) });
            (i, j) = (i - 1, j - 1);
        } else if i > 0 && cost[(i - 1) * width + j] + 1 == here {
            edits.push(Edit::Deletion(a[i - 1]));
            i -= 1;
        } else {
            edits.push(Edit::Insertion(b[j - 1]));
            j -= 1;
        }
    }
    edits.extend(reference[..start].iter().rev().map(|item| Edit::Match(*item)));
    edits.reverse();
    edits
}

/// How often which character was taken for which, the most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusions {
    /// Of the reference, of the hypothesis, how often.
    pub substitutions: Vec<(char, char, usize)>,
    pub insertions: Vec<(char, usize)>,
    pub deletions: Vec<(char, usize)>,
}

impl Confusions {
    /// Counts over pairs of reference and hypothesis.
    pub fn count<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut taken, mut inserted, mut deleted) =
            (HashMap::new(), HashMap::new(), HashMap::new());
        for (reference, hypothesis) in pairs {
            let (a, b): (Vec<char>, Vec<char>) =
                (reference.chars().collect(), hypothesis.chars().collect());
            for edit in align(&a, &b) {
                match edit {
                    Edit::Match(_) => {}
                    Edit::Substitution(own, other) => *taken.entry((own, other)).or_default() += 1,
                    Edit::Insertion(c) => *inserted.entry(c).or_default() += 1,
                    Edit::Deletion(c) => *deleted.entry(c).or_default() += 1,
                }
            }
        }
        Confusions {
            substitutions: sorted(taken).into_iter().map(|((a, b), n)| (a, b, n)).collect(),
            insertions: sorted(inserted),
            deletions: sorted(deleted),
        }
    }
}

fn sorted<K: Hash + Ord + Copy>(counts: HashMap<K, usize>) -> Vec<(K, usize)> {
    let mut counts: Vec<(K, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(key, count)| (std::cmp::Reverse(*count), *key));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    #[test]
    fn distances() {
        let table = [
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
            ("same", "same", 0),
            ("flaw", "lawn", 2),
            ("Größe", "Grosse", 3),
            ("aab", "ab", 1),
        ];
        for (a, b, expected) in table {
            assert_eq!(distance(&chars(a), &chars(b)), expected, "{a} {b}");
            let edits = align(&chars(a), &chars(b));
            let count = edits.iter().filter(|edit| !matches!(edit, Edit::Match(_))).count();
            assert_eq!(count, expected, "{a} {b}: {edits:?}");
            let own: String = edits
                .iter()
                .filter_map(|edit| match edit {
                    Edit::Match(c) | Edit::Substitution(c, _) | Edit::Deletion(c) => Some(*c),
                    Edit::Insertion(_) => None,
                })
                .collect();
            assert_eq!(own, a);
        }
    }

    #[test]
    fn confusions_are_counted() {
        let pairs = [("l0l", "lOl"), ("00", "O0"), ("abc", "ac"), ("x", "x!")];
        let found = Confusions::count(pairs.into_iter());
        assert_eq!(found.substitutions, [('0', 'O', 2)]);
        assert_eq!(found.insertions, [('!', 1)]);
        assert_eq!(found.deletions, [('b', 1)]);
    }
}
