//! The model card: README.md of a trained model, in the form that the Hugging Face Hub reads.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::report;
use crate::metrics::Scores;

/// The file of the card in a model's directory.
pub const CARD: &str = "README.md";
/// What every card says.
const MADE: &str = "trained with vedm ";

/// True if a file lies there that no run of this program has written.
pub fn is_foreign(path: &Path) -> bool {
    path.exists() && !fs::read_to_string(path).is_ok_and(|text| text.contains(MADE))
}

/// What a card tells.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// Of the model: the name of its folder.
    pub name: String,
    /// What training began with, as the user named it.
    pub base_model: String,
    pub train: DataSet,
    pub eval: Option<DataSet>,
    /// Names and values in the order to show.
    pub settings: Vec<(String, String)>,
    pub steps: u64,
    pub epochs: f64,
    /// Wall time of training.
    pub seconds: f64,
    pub device: String,
    /// Scores of the saved model on the evaluation data, and the step it is from.
    pub scores: Option<(Scores, u64)>,
    /// Name of the plot beside the card.
    pub plot: Option<String>,
}

/// Of which data a card speaks.
#[derive(Clone, Debug, Default)]
pub struct DataSet {
    /// As the user named it.
    pub name: String,
    /// None for streams.
    pub rows: Option<usize>,
    pub images: Option<usize>,
}

impl Card {
    /// The text of README.md.
    pub fn markdown(&self) -> String {
        let mut out = self.front_matter();
        let name = &self.name;
        let _ = writeln!(
            out,
            "\n# {name}\n\nA VisionEncoderDecoder model (image in, text out), {MADE}{} from \
             `{}`.",
            env!("CARGO_PKG_VERSION"),
            self.base_model
        );
        out.push_str("\n## Data\n\n| | source | rows | images |\n|---|---|---:|---:|\n");
        for (what, data) in [("training", Some(&self.train)), ("evaluation", self.eval.as_ref())] {
            let Some(data) = data else { continue };
            let count = |n: Option<usize>| n.map_or("stream".to_string(), |n| n.to_string());
            let source = data.name.replace('|', "\\|");
            let (rows, images) = (count(data.rows), count(data.images));
            let _ = writeln!(out, "| {what} | `{source}` | {rows} | {images} |");
        }
        self.tell_scores(&mut out);
        let _ = writeln!(
            out,
            "\n## Training\n\n{} steps, {:.2} epochs, {} on {}.",
            self.steps,
            self.epochs,
            time(self.seconds),
            self.device
        );
        if let Some(plot) = &self.plot {
            let _ = writeln!(out, "\n![Loss and metrics over the steps]({plot})");
        }
        out.push_str("\n| setting | value |\n|---|---|\n");
        for (setting, value) in &self.settings {
            let _ =
                writeln!(out, "| {setting} | {} |", value.replace('|', "\\|").replace('\n', " "));
        }
        out.push_str(&self.usage());
        out
    }

    fn tell_scores(&self, out: &mut String) {
        let Some((scores, step)) = &self.scores else {
            let why = match &self.eval {
                None => ": training had no evaluation data",
                Some(_) => "",
            };
            let _ = writeln!(out, "\n## Scores\n\nNot measured{why}.");
            return;
        };
        let _ = writeln!(
            out,
            "\n## Scores\n\nOf step {step}, on the {} images of the evaluation data, by generating:\n\n\
             ```text\n{}```",
            scores.items,
            report::figures(scores)
        );
    }

    /// YAML: strings are written as JSON, which YAML reads.
    fn front_matter(&self) -> String {
        let mut out = String::from(
            "---\nlibrary_name: transformers\npipeline_tag: image-to-text\ntags:\n\
             - vision-encoder-decoder\n- image-to-text\n- vedm\n",
        );
        // The Hub knows models of the form owner/name only.
        if let Some(base) = hub_name(&self.base_model) {
            let _ = writeln!(out, "base_model: {}", json!(base));
        }
        if let (Some((scores, _)), Some(data)) = (&self.scores, &self.eval) {
            let _ = writeln!(out, "metrics:\n- cer\n- wer\n- bleu\n- rouge");
            let _ = writeln!(
                out,
                "model-index:\n- name: {}\n  results:\n  - task:\n      type: image-to-text\n    \
                 dataset:\n      name: {}\n      type: {}\n    metrics:",
                json!(self.name),
                json!(data.name),
                json!(data.name)
            );
            for (metric, value) in [
                ("cer", scores.cer),
                ("wer", scores.wer),
                ("exact_match", scores.exact_match),
                ("bleu", scores.bleu_4),
                ("rouge", scores.rouge_l),
                ("cider", scores.cider_d),
            ] {
                let value = (value * 1e6).round() / 1e6;
                let _ = writeln!(out, "    - type: {metric}\n      value: {}", json!(value));
            }
        }
        out.push_str("---\n");
        out
    }

    fn usage(&self) -> String {
        let name = &self.name;
        format!(
            "\n## Use\n\n\
             ```sh\nvedm ocr --model {name} picture.png\n```\n\n\
             ```python\n\
             from PIL import Image\n\
             from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel\n\n\
             model = VisionEncoderDecoderModel.from_pretrained({quoted})\n\
             processor = AutoImageProcessor.from_pretrained({quoted})\n\
             tokenizer = AutoTokenizer.from_pretrained({quoted})\n\n\
             pixel_values = processor(Image.open(\"picture.png\").convert(\"RGB\"), \
             return_tensors=\"pt\").pixel_values\n\
             ids = model.generate(pixel_values)\n\
             print(tokenizer.batch_decode(ids, skip_special_tokens=True)[0])\n\
             ```\n",
            quoted = json!(name)
        )
    }
}

/// `owner/name` of a model on the Hub, without its revision.
fn hub_name(model: &str) -> Option<&str> {
    let name = model.split_once('@').map_or(model, |(name, _)| name);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let parts: Vec<&str> = name.split('/').collect();
    let fits =
        parts.len() == 2 && parts.iter().all(|part| !part.is_empty() && !part.starts_with('.'));
    let is_folder = Path::new(model).exists();
    (fits && name.chars().all(allowed) && !is_folder).then_some(name)
}

fn time(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0 => format!("{seconds:.0} s"),
        1..60 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card {
            name: "runs/a".to_string(),
            base_model: "owner/base@main".to_string(),
            train: DataSet { name: "a|b.csv".to_string(), rows: Some(90), images: Some(45) },
            eval: Some(DataSet { name: "e.csv".to_string(), rows: Some(10), images: Some(10) }),
            settings: vec![("learning_rate".to_string(), "5e-5".to_string())],
            steps: 300,
            epochs: 3.0,
            seconds: 4000.0,
            device: "the CPU".to_string(),
            scores: Some((Scores { items: 10, cer: 0.125, ..Scores::default() }, 200)),
            plot: Some("plot.svg".to_string()),
        }
    }

    #[test]
    fn a_card_tells_data_settings_and_scores() {
        let text = card().markdown();
        for words in [
            "---\nlibrary_name: transformers\npipeline_tag: image-to-text\ntags:\n",
            "base_model: \"owner/base\"\n",
            "    - type: cer\n      value: 0.125\n",
            "| training | `a\\|b.csv` | 90 | 45 |",
            "| evaluation | `e.csv` | 10 | 10 |",
            "Of step 200, on the 10 images",
            "CER            12.50 %",
            "300 steps, 3.00 epochs, 1 h 7 min on the CPU.",
            "![Loss and metrics over the steps](plot.svg)",
            "| learning_rate | 5e-5 |",
            "from_pretrained(\"runs/a\")",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let stream = DataSet { name: "pipe:make".to_string(), rows: None, images: None };
        let card = Card {
            base_model: "/models/base".to_string(),
            train: stream,
            eval: None,
            scores: None,
            plot: None,
            ..card()
        };
        let text = card.markdown();
        assert!(text.contains("| training | `pipe:make` | stream | stream |"), "{text}");
        assert!(text.contains("Not measured"), "{text}");
        assert!(!text.contains("base_model") && !text.contains("model-index"), "{text}");
    }

    #[test]
    fn times_and_names() {
        assert_eq!([12.4, 600.0, 7260.0].map(time), ["12 s", "10 min", "2 h 1 min"]);
        let table = [
            ("a/b", Some("a/b")),
            ("a/b@v1", Some("a/b")),
            ("../b", None),
            ("name", None),
            ("a/b/c", None),
            ("src/train", None),
        ];
        for (name, expected) in table {
            assert_eq!(hub_name(name), expected, "{name}");
        }
    }
}
