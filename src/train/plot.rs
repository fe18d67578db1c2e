//! Loss and metrics over the steps as a picture: SVG, written by hand.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// The plot of metrics.jsonl in the output directory.
pub const PLOT: &str = "training.svg";

const WIDTH: f64 = 760.0;
const PANEL: f64 = 260.0;
/// Around the drawing of a panel: left, top, right, bottom.
const MARGIN: [f64; 4] = [64.0, 40.0, 20.0, 40.0];
/// Points of one line; more are drawn as means of neighbours.
const POINTS: usize = 600;
/// About so many rules across, the uppermost at or above all values.
const VALUES: usize = 5;

/// Title of a panel, and its lines: the key in metrics.jsonl, its name, its colour, and what its values
/// are multiplied by. The colours stand out from white and from black.
type Panel = (&'static str, &'static [(&'static str, &'static str, &'static str, f64)]);

const PANELS: &[Panel] = &[
    ("loss", &[("loss", "training", "#3b82f6", 1.0), ("eval_loss", "evaluation", "#f97316", 1.0)]),
    ("errors", &[("eval_cer", "CER", "#ef4444", 1.0), ("eval_wer", "WER", "#a855f7", 1.0)]),
    (
        "agreement",
        &[
            ("eval_exact-match", "exact match", "#10b981", 1.0),
            ("eval_bleu-4", "BLEU-4 / 100", "#3b82f6", 0.01),
            ("eval_rouge-l", "ROUGE-L", "#f97316", 1.0),
            ("eval_cider-d", "CIDEr-D", "#a855f7", 1.0),
        ],
    ),
    ("learning rate", &[("learning_rate", "learning rate", "#10b981", 1.0)]),
];

struct Line {
    name: &'static str,
    color: &'static str,
    points: Vec<(f64, f64)>,
}

/// Draws metrics.jsonl into an SVG file. A last line that is cut short is passed over.
pub fn draw(metrics: &Path, to: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(metrics).with_context(|| format!("can't read {metrics:?}"))?;
    let rows: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    std::fs::write(to, svg(&rows)).with_context(|| format!("can't write {to:?}"))
}

/// The picture of rows with `step` and any of `loss`, `learning_rate`, `eval_loss`, `eval_cer` and the
/// other metrics; panels without a value are left out.
pub fn svg(rows: &[Value]) -> String {
    let panels: Vec<(&str, Vec<Line>)> = PANELS
        .iter()
        .map(|(title, lines)| {
            let lines = lines.iter().map(|(key, name, color, factor)| Line {
                name,
                color,
                points: points(rows, key, *factor),
            });
            (*title, lines.filter(|line| !line.points.is_empty()).collect::<Vec<_>>())
        })
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    let height = PANEL * panels.len().max(1) as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>text {{ fill: #333 }} .rule {{ stroke: #8884; fill: none }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}</style>\n"
    );
    if panels.is_empty() {
        out.push_str("<text x=\"64\" y=\"40\">nothing was logged yet</text>\n");
    }
    let steps = panels.iter().flat_map(|(_, lines)| lines).flat_map(|line| &line.points);
    let (first, last) = span(steps.map(|point| point.0));
    for (number, (title, lines)) in panels.iter().enumerate() {
        panel(&mut out, PANEL * number as f64, title, lines, (first, last));
    }
    out.push_str("</svg>\n");
    out
}

/// Step and value of every row that has the key, under either spelling of its name.
fn points(rows: &[Value], key: &str, factor: f64) -> Vec<(f64, f64)> {
    let other = key.replace('-', "_");
    let found: Vec<(f64, f64)> = rows
        .iter()
        .filter_map(|row| {
            let value = row.get(key).or_else(|| row.get(&other))?.as_f64()? * factor;
            let step = row.get("step")?.as_f64()?;
            value.is_finite().then_some((step, value))
        })
        .collect();
    let size = found.len().div_ceil(POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let count = points.len() as f64;
        let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    found.chunks(size).map(mean).collect()
}

fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)))
}

fn panel(out: &mut String, top: f64, title: &str, lines: &[Line], steps: (f64, f64)) {
    let [left, above, right, below] = MARGIN;
    let (x0, x1) = (left, WIDTH - right);
    let (y0, y1) = (top + PANEL - below, top + above);
    let (least, most) = span(lines.iter().flat_map(|line| &line.points).map(|point| point.1));
    let value_ticks = ticks(least.min(0.0), most, VALUES);
    let (low, high) = (
        least.min(0.0),
        value_ticks.last().copied().unwrap_or(most).max(most).max(least.min(0.0) + 1e-12),
    );
    let width = (steps.1 - steps.0).max(1e-9);
    let x = |step: f64| x0 + (step - steps.0) / width * (x1 - x0);
    let y = |value: f64| y0 - (value - low) / (high - low) * (y0 - y1);

    let _ = writeln!(
        out,
        "<text x=\"{x0}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>",
        y1 - 18.0
    );
    for tick in value_ticks {
        let at = y(tick);
        let _ = writeln!(out, "<path class=\"rule\" d=\"M{x0} {at:.1}H{x1}\"/>");
        let (x, at) = (x0 - 8.0, at + 4.0);
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{at:.1}\" text-anchor=\"end\">{}</text>",
            label(tick)
        );
    }
    for tick in ticks(steps.0, steps.1, 6) {
        let at = x(tick);
        let _ = writeln!(out, "<path class=\"rule\" d=\"M{at:.1} {y0:.1}V{y1:.1}\"/>");
        let y = y0 + 16.0;
        let _ = writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>",
            label(tick)
        );
    }
    let (middle, y_name) = ((x0 + x1) / 2.0, y0 + 32.0);
    let _ =
        writeln!(out, "<text x=\"{middle}\" y=\"{y_name:.1}\" text-anchor=\"middle\">step</text>");
    let mut legend = x1;
    for line in lines.iter().rev() {
        legend -= line.name.len() as f64 * 7.0 + 34.0;
        let (at, color) = (y1 - 22.0, line.color);
        let _ = writeln!(
            out,
            "<path d=\"M{legend} {at:.1}h18\" stroke=\"{color}\" stroke-width=\"3\"/>"
        );
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\">{}</text>",
            legend + 23.0,
            at + 4.0,
            line.name
        );
    }
    for line in lines {
        draw_line(out, line, &x, &y);
    }
}

fn draw_line(out: &mut String, line: &Line, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) {
    let color = line.color;
    let points: Vec<String> = line
        .points
        .iter()
        .map(|(step, value)| format!("{:.1},{:.1}", x(*step), y(*value)))
        .collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\" \
         stroke-linejoin=\"round\"/>",
        points.join(" ")
    );
    // A line of few points shows where they are; one of a single point would not be seen at all.
    if points.len() <= 40 {
        for (step, value) in &line.points {
            let (x, y) = (x(*step), y(*value));
            let _ =
                writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"{color}\"/>");
        }
    }
}

/// Round numbers from at or above `least` to at or just above `most`, 1, 2 or 5 times a power of ten
/// apart.
fn ticks(least: f64, most: f64, about: usize) -> Vec<f64> {
    let rough = ((most - least) / about as f64).max(1e-12);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power);
    let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
    let first = (least / step - 1e-9).ceil() as i64;
    let last =
        if about == VALUES { (most / step - 1e-9).ceil() } else { (most / step + 1e-9).floor() };
    let last = last as i64;
    (first..=last).map(|number| number as f64 * step).collect()
}

/// Short, without digits that are only noise of the arithmetic.
fn label(value: f64) -> String {
    let rounded = format!("{value:.6}");
    let short = rounded.trim_end_matches('0').trim_end_matches('.');
    match value.abs() {
        0.0 => "0".to_string(),
        size if size < 1e-3 => format!("{value:.0e}"),
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e4 => format!("{}k", value / 1e3),
        _ => short.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(0.0, 100.0, 6), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.0, 0.93, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(500.0, 3000.0, 6), [500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0]);
        let labels: Vec<String> =
            [0.0, 0.6000000000000001, 25_000.0, 5e-5, 2e6].map(label).to_vec();
        assert_eq!(labels, ["0", "0.6", "25k", "5e-5", "2M"]);
    }

    #[test]
    fn lines_go_through_their_values() {
        let rows = [
            json!({"step": 0, "loss": 4.0, "learning_rate": 5e-5}),
            json!({"step": 50, "loss": 2.0, "learning_rate": 2.5e-5}),
            json!({"step": 100, "loss": 0.0, "learning_rate": 0.0}),
            json!({"step": 100, "eval_loss": 1.0, "eval_cer": 0.5, "eval_bleu_4": 50.0}),
            json!({"step": 100, "note": "no number"}),
        ];
        let picture = svg(&rows);
        // The drawing goes from 64 to 740 across and from 220 (0) to 40 (the last tick, 4) down.
        assert!(picture.contains("points=\"64.0,40.0 402.0,130.0 740.0,220.0\""), "{picture}");
        for words in ["training", "evaluation", "CER", "BLEU-4 / 100", "learning rate", "</svg>"] {
            assert!(picture.contains(words), "{words}");
        }
        assert!(!picture.contains("WER") && !picture.contains("NaN"), "{picture}");
        assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
        assert!(picture.contains("height=\"1040\""), "four panels");
    }

    #[test]
    fn long_runs_are_thinned_and_empty_ones_drawn() {
        let rows: Vec<Value> =
            (0..5000).map(|step| json!({"step": step, "loss": f64::from(step % 2)})).collect();
        let points = points(&rows, "loss", 1.0);
        assert!(points.len() <= POINTS && points.len() > POINTS / 2);
        assert!(points.iter().skip(1).all(|(_, value)| (value - 0.5).abs() < 0.1));
        assert!(svg(&[]).contains("nothing was logged yet"));
        assert!(svg(&[json!({"step": 3, "loss": 0.0})]).contains("<circle"));
    }

    #[test]
    fn a_line_cut_short_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("metrics.jsonl"), folder.path().join("plot.svg"));
        std::fs::write(&from, "{\"step\":1,\"loss\":2.0}\n{\"step\":2,\"lo").unwrap();
        draw(&from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(to).unwrap().matches("<circle").count(), 1);
    }
}
