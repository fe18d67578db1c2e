//! What became of the tensors of a new model, in few lines that leave nothing out.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Half;

/// What became of the tensors.
#[derive(Default)]
pub struct Report {
    /// Tensors of the new model that came from a checkpoint.
    pub taken: Vec<String>,
    /// Keys of the two checkpoints that have no place in the new model.
    pub left: Vec<(Half, String)>,
    /// Tensors of the new model that were drawn.
    pub made: Vec<String>,
    /// Sentences for the user that are no errors.
    pub notes: Vec<String>,
}

impl Report {
    /// The report as lines of text: per half what was taken, what was drawn, what was left.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for half in [Half::Encoder, Half::Decoder] {
            let prefix = format!("{}.", half.name());
            let of = |names: &[String]| -> Vec<String> {
                names.iter().filter(|name| name.starts_with(&prefix)).cloned().collect()
            };
            self.half(half, &of(&self.taken), &of(&self.made), &mut lines);
        }
        let between: Vec<String> =
            self.made.iter().filter(|name| name.starts_with("enc_to_dec_proj")).cloned().collect();
        if !between.is_empty() {
            lines.push(format!("between them: newly drawn {}", tensors(between.len())));
            lines.extend(indented(&between));
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines
    }

    fn half(&self, half: Half, taken: &[String], made: &[String], lines: &mut Vec<String>) {
        let name = half.name();
        if taken.is_empty() {
            lines.push(format!("{name}: all {} newly drawn", tensors(made.len())));
        } else if made.is_empty() {
            lines.push(format!("{name}: all {} taken", tensors(taken.len())));
        } else {
            lines.push(format!("{name}: taken {}", tensors(taken.len())));
            lines.extend(indented(taken));
            lines.push(format!("{name}: newly drawn {}", tensors(made.len())));
            lines.extend(indented(made));
        }
        let left: Vec<String> =
            self.left.iter().filter(|(of, _)| *of == half).map(|(_, key)| key.clone()).collect();
        if !left.is_empty() {
            lines.push(format!("{name}: left in its checkpoint {}", tensors(left.len())));
            lines.extend(indented(&left));
        }
    }
}

fn indented(names: &[String]) -> impl Iterator<Item = String> {
    collapse(names).into_iter().map(|name| format!("  {name}"))
}

fn tensors(count: usize) -> String {
    if count == 1 { "1 tensor".to_string() } else { format!("{count} tensors") }
}

/// Names that differ in their numbers alone become one: `layer.0.bias`, `layer.1.bias` are
/// `layer.{0-1}.bias`. Names whose numbers are no full grid stay as they are, so that the short form
/// always says exactly which names it stands for.
pub fn collapse(names: &[String]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut groups: BTreeMap<String, Vec<(Vec<u64>, String)>> = BTreeMap::new();
    for name in names {
        let numbers: Vec<u64> = name.split('.').filter_map(number).collect();
        let pattern: Vec<&str> =
            name.split('.').map(|part| if number(part).is_some() { "#" } else { part }).collect();
        let pattern = pattern.join(".");
        let group = groups.entry(pattern.clone()).or_default();
        if group.is_empty() {
            order.push(pattern);
        }
        group.push((numbers, name.clone()));
    }
    let mut lines = Vec::new();
    for pattern in order {
        let group = groups.remove(&pattern).unwrap_or_default();
        let axes: Vec<BTreeSet<u64>> = (0..group.first().map_or(0, |(numbers, _)| numbers.len()))
            .map(|axis| group.iter().map(|(numbers, _)| numbers[axis]).collect())
            .collect();
        if group.len() > 1 && axes.iter().map(BTreeSet::len).product::<usize>() == group.len() {
            let mut ranges = axes.iter().map(ranges);
            let parts = pattern.split('.').map(|part| match part {
                "#" => ranges.next().unwrap_or_default(),
                part => part.to_string(),
            });
            lines.push(parts.collect::<Vec<_>>().join("."));
        } else {
            lines.extend(group.into_iter().map(|(_, name)| name));
        }
    }
    lines
}

/// The index that a part of a name is, if it is one (written without leading zeros).
fn number(part: &str) -> Option<u64> {
    part.parse().ok().filter(|number: &u64| number.to_string() == part)
}

/// `{0-3,5}`, or the number itself where there is one only.
fn ranges(numbers: &BTreeSet<u64>) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let texts: Vec<String> = runs
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    match numbers.len() {
        1 => texts.concat(),
        _ => format!("{{{}}}", texts.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_ranges() {
        let table: &[(&[&str], &[&str])] = &[
            (&["a.0.b", "a.0.c", "a.1.b", "a.1.c"], &["a.{0-1}.b", "a.{0-1}.c"]),
            (&["a.0.b", "a.2.b", "a.3.b"], &["a.{0,2-3}.b"]),
            (&["a.7.b"], &["a.7.b"]),
            (&["x", "x"], &["x", "x"]),
            (&["l.0.b.0.w", "l.0.b.1.w", "l.1.b.0.w", "l.1.b.1.w"], &["l.{0-1}.b.{0-1}.w"]),
            (&["l.0.b.0.w", "l.0.b.1.w"], &["l.0.b.{0-1}.w"]),
            // No full grid: nothing may be said of l.1.b.1.w.
            (&["l.0.b.0.w", "l.0.b.1.w", "l.1.b.0.w"], &["l.0.b.0.w", "l.0.b.1.w", "l.1.b.0.w"]),
            (&["v.01.w", "v.1.w"], &["v.01.w", "v.1.w"]),
        ];
        for (names, expected) in table {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            assert_eq!(collapse(&names), *expected);
        }
    }

    #[test]
    fn a_random_half_is_one_line() {
        let report = Report {
            taken: vec!["decoder.a".into()],
            left: vec![(Half::Decoder, "pooler.0".into()), (Half::Decoder, "pooler.1".into())],
            made: vec!["encoder.a".into(), "encoder.b".into(), "enc_to_dec_proj.bias".into()],
            notes: vec!["so it is".into()],
        };
        let expected = [
            "encoder: all 2 tensors newly drawn",
            "decoder: all 1 tensor taken",
            "decoder: left in its checkpoint 2 tensors",
            "  pooler.{0-1}",
            "between them: newly drawn 1 tensor",
            "  enc_to_dec_proj.bias",
            "note: so it is",
        ];
        assert_eq!(report.lines(), expected);
    }
}
