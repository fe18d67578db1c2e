//! An evaluation as text for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::evaluate::{Evaluation, Prediction};
use crate::metrics::{Confusions, Scores};

/// Confusions of one kind that the text names.
const NAMED: usize = 10;

/// The figures of a set, one a line.
pub fn figures(scores: &Scores) -> String {
    let counts = &scores.counts;
    let mut out = String::new();
    let mut line = |name: &str, value: String, of: String| {
        let line = format!("{name:<12} {value:>9}   {of}");
        out.push_str(line.trim_end());
        out.push('\n');
    };
    let share = |value: f64| format!("{:.2} %", value * 100.0);
    let (edits, all) = (counts.character_edits, counts.characters);
    line("CER", share(scores.cer), format!("{edits} edits on {all} characters"));
    let (edits, all) = (counts.word_edits, counts.words);
    line("WER", share(scores.wer), format!("{edits} edits on {all} words"));
    let exact = format!("{} of {}", counts.exact, scores.items);
    line("exact match", share(scores.exact_match), exact);
    let others = [("BLEU-2", scores.bleu_2), ("BLEU-3", scores.bleu_3), ("BLEU-4", scores.bleu_4)];
    let others: Vec<String> =
        others.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
    line("BLEU-1", format!("{:.2}", scores.bleu_1), others.join("  "));
    line("ROUGE-L", format!("{:.4}", scores.rouge_l), String::new());
    line("CIDEr-D", format!("{:.4}", scores.cider_d), String::new());
    out
}

/// What `vedm eval` prints: figures, speed, the worst items, confusions.
pub fn text(evaluation: &Evaluation, worst: usize) -> String {
    let mut out = String::new();
    let failed = match evaluation.failed.len() {
        0 => String::new(),
        failed => format!(", {failed} more could not be scored"),
    };
    let case = if evaluation.ignore_case { "; case ignored" } else { "" };
    let _ = writeln!(out, "{} images{failed}{case}", evaluation.scores.items);
    out.push_str(&figures(&evaluation.scores));
    let _ = writeln!(out, "{:<12} {:>9.1}   images/s", "speed", evaluation.rate());
    let worst = evaluation.worst(worst);
    if !worst.is_empty() {
        out.push_str("\nworst\n");
        worst.iter().for_each(|prediction| item(&mut out, prediction));
    }
    if evaluation.is_reading() && evaluation.scores.counts.character_edits > 0 {
        confusions(&mut out, &evaluation.confusions());
    }
    out
}

fn item(out: &mut String, prediction: &Prediction) {
    let _ = writeln!(out, "  {}  CER {:.1} %", prediction.image, prediction.nearest.cer() * 100.0);
    let _ = writeln!(out, "    label {:?}", prediction.nearest.reference);
    let _ = writeln!(out, "    text  {:?}", prediction.nearest.hypothesis);
}

fn confusions(out: &mut String, found: &Confusions) {
    let single = |counts: &[(char, usize)]| -> Vec<String> {
        counts.iter().take(NAMED).map(|(c, count)| format!("{} {count}", shown(*c))).collect()
    };
    let taken = found.substitutions.iter().take(NAMED);
    let taken = taken.map(|(a, b, count)| format!("{}>{} {count}", shown(*a), shown(*b)));
    let rows = [
        ("substituted", taken.collect()),
        ("missing", single(&found.deletions)),
        ("added", single(&found.insertions)),
    ];
    out.push_str("\ncharacters (label>text, how often)\n");
    for (name, found) in rows {
        if !found.is_empty() {
            let _ = writeln!(out, "  {name:<12} {}", found.join("   "));
        }
    }
}

/// A blank would not be seen.
fn shown(c: char) -> String {
    match c {
        ' ' => "␣".to_string(),
        c if c.is_control() => format!("{:?}", c),
        c => c.to_string(),
    }
}

/// What `vedm eval --format json` prints.
pub fn json(evaluation: &Evaluation, model: &str, data: &str, worst: usize) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_string(), value);
    put("model", json!(model));
    put("data", json!(data));
    put("ignore_case", json!(evaluation.ignore_case));
    if let Value::Object(scores) = json!(evaluation.scores) {
        for (name, value) in scores {
            put(if name == "items" { "images" } else { &name }, value);
        }
    }
    put("failed", json!(evaluation.failed));
    put("seconds", json!((evaluation.seconds * 1e3).round() / 1e3));
    put("images_per_second", json!((evaluation.rate() * 100.0).round() / 100.0));
    let worst = evaluation.worst(worst);
    put("worst", worst.into_iter().map(Prediction::to_json).collect());
    let found = evaluation.confusions();
    let single = |counts: &[(char, usize)]| -> Value {
        counts.iter().map(|(c, count)| json!([c, count])).collect()
    };
    let taken = found.substitutions.iter();
    put(
        "confusions",
        json!({
            "substitutions": taken.map(|(a, b, n)| json!([a, b, n])).collect::<Value>(),
            "insertions": single(&found.insertions),
            "deletions": single(&found.deletions),
        }),
    );
    Value::Object(out)
}
