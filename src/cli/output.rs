//! Records become lines of text or JSON, written as each image ends.

use std::borrow::Cow;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::args::{Format, OutputArgs};
use crate::pipeline::{Reading, Record, Sequence};
use crate::ved::generation::Finish;

/// Where the results go, and in which form.
pub(super) struct Writer {
    form: Form,
    /// True if a person looks on: control characters would act on the terminal.
    terminal: bool,
    to: BufWriter<Box<dyn Write>>,
}

enum Form {
    /// A single image: nothing but its text.
    Bare,
    /// path TAB text
    Lines,
    Jsonl(Details),
}

/// What `--details` adds to every record.
struct Details {
    wanted: bool,
    model: String,
    revision: Option<String>,
    /// With several sequences an image, all of them are told.
    several: bool,
}

impl Writer {
    /// `inputs` is the number of images named; `several` tells that each gives more than one text.
    pub(super) fn new(
        args: &OutputArgs,
        inputs: usize,
        model: &str,
        revision: Option<&str>,
        several: bool,
    ) -> Result<Self> {
        let file = args.output.as_deref().filter(|path| path.as_os_str() != "-");
        let format = args.format.unwrap_or_else(|| by_name(file));
        let details = Details {
            wanted: args.details,
            model: model.to_string(),
            revision: revision.map(str::to_string),
            several,
        };
        let form = match format {
            Format::Jsonl => Form::Jsonl(details),
            Format::Text if inputs == 1 && !several => Form::Bare,
            Format::Text => Form::Lines,
        };
        let to: Box<dyn Write> = match file {
            Some(path) => Box::new(
                std::fs::File::create(path).with_context(|| format!("can't write {path:?}"))?,
            ),
            None => Box::new(std::io::stdout()),
        };
        let terminal = file.is_none() && std::io::stdout().is_terminal();
        Ok(Writer { form, terminal, to: BufWriter::new(to) })
    }

    fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.terminal { visible(text).into() } else { text.into() }
    }

    /// One record; a failed input appears in JSON only (standard error tells it in any case).
    pub(super) fn write(&mut self, record: &Record) -> Result<()> {
        match (&self.form, &record.outcome) {
            (Form::Jsonl(details), outcome) => {
                let json = match outcome {
                    Ok(reading) => details.record(&record.image, reading),
                    Err(error) => json!({"image": record.image, "error": format!("{error:#}")}),
                };
                serde_json::to_writer(&mut self.to, &json)?;
                self.to.write_all(b"\n")?;
            }
            (_, Err(_)) => {}
            (Form::Bare, Ok(reading)) => {
                for sequence in &reading.sequences {
                    writeln!(self.to, "{}", self.shown(&sequence.text))?;
                }
            }
            (Form::Lines, Ok(reading)) => {
                for sequence in &reading.sequences {
                    let (image, text) = (escape(&record.image), escape(&sequence.text));
                    writeln!(self.to, "{}\t{}", self.shown(&image), self.shown(&text))?;
                }
            }
        }
        self.to.flush()?;
        Ok(())
    }
}

/// Control characters as their pictures (U+2400 ..), but for line ends.
fn visible(text: &str) -> String {
    let picture = |c: char| match u32::from(c) {
        0x0A => c,
        code @ 0x00..0x20 => char::from_u32(0x2400 + code).unwrap_or(c),
        0x7F => '\u{2421}',
        0x80..0xA0 => char::REPLACEMENT_CHARACTER,
        _ => c,
    };
    text.chars().map(picture).collect()
}

fn by_name(file: Option<&Path>) -> Format {
    match file.and_then(Path::extension).and_then(|extension| extension.to_str()) {
        Some("jsonl" | "json" | "ndjson") => Format::Jsonl,
        _ => Format::Text,
    }
}

/// Backslash, newline, carriage return and tab would break the line's form.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos => "eos",
        Finish::Length => "length",
        Finish::Stop => "stop",
        Finish::Time => "time",
        Finish::Repetition => "repetition",
    }
}

/// Six digits say all that an f32 knows, and keep the lines readable.
fn rounded(number: f64) -> Value {
    let rounded = (number * 1e6).round() / 1e6;
    if rounded.is_finite() { json!(rounded) } else { Value::Null }
}

impl Details {
    fn record(&self, image: &str, reading: &Reading) -> Value {
        let mut record = Map::new();
        record.insert("image".into(), json!(image));
        if let Some(best) = reading.sequences.first() {
            self.sequence(best, &mut record);
        }
        record.insert("ms".into(), json!((reading.ms * 10.0).round() / 10.0));
        if self.several {
            let all = reading.sequences.iter().map(|sequence| {
                let mut map = Map::new();
                self.sequence(sequence, &mut map);
                Value::Object(map)
            });
            record.insert("sequences".into(), all.collect());
        }
        if reading.orientation != 1 {
            record.insert("orientation".into(), json!(reading.orientation));
        }
        if self.wanted {
            record.insert("model".into(), json!(self.model));
            if let Some(revision) = &self.revision {
                record.insert("revision".into(), json!(revision));
            }
            record.insert("width".into(), json!(reading.width));
            record.insert("height".into(), json!(reading.height));
        }
        Value::Object(record)
    }

    fn sequence(&self, sequence: &Sequence, map: &mut Map<String, Value>) {
        map.insert("text".into(), json!(sequence.text));
        map.insert("confidence".into(), rounded(sequence.confidence));
        map.insert("finish_reason".into(), json!(finish_reason(sequence.finish)));
        map.insert("new_tokens".into(), json!(sequence.token_ids.len()));
        if self.wanted {
            map.insert("token_ids".into(), json!(sequence.token_ids));
            map.insert("tokens".into(), json!(sequence.tokens));
            let logprobs = sequence.token_logprobs.iter().map(|logprob| rounded(*logprob));
            map.insert("token_logprobs".into(), logprobs.collect());
            if let Some(score) = sequence.sequences_score {
                map.insert("sequences_score".into(), json!(score));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_form() {
        let table = [("plain", "plain"), ("a\tb\nc\\d\r", "a\\tb\\nc\\\\d\\r")];
        for (text, expected) in table {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn control_characters_get_pictures() {
        assert_eq!(visible("a\u{1b}[31m\tb\u{7f}\nü"), "a\u{241b}[31m\u{2409}b\u{2421}\nü");
    }

    #[test]
    fn the_format_follows_the_name() {
        let table = [("a.jsonl", Format::Jsonl), ("a.txt", Format::Text), ("a", Format::Text)];
        for (name, expected) in table {
            assert_eq!(by_name(Some(Path::new(name))), expected, "{name}");
        }
        assert_eq!(by_name(None), Format::Text);
    }
}
