//! What the measuring process asks of a side and is told: one JSON object a line.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    /// A batch.
    pub(crate) images: Vec<PathBuf>,
    pub(crate) beams: i64,
    /// New tokens of each text, not one more or less.
    pub(crate) tokens: i64,
    /// Encoder and decode step by themselves as well.
    pub(crate) parts: bool,
}

/// What came out, times in milliseconds.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// From files to texts.
    pub(crate) whole_ms: f64,
    /// The encoder over the batch; 0 where it was not asked for.
    #[serde(default)]
    pub(crate) encoder_ms: f64,
    /// One more token for each sequence of the batch; 0 where it was not asked for.
    #[serde(default)]
    pub(crate) step_ms: f64,
    /// New tokens of each image's best text.
    pub(crate) ids: Vec<Vec<i64>>,
    /// Why there is nothing.
    #[serde(default)]
    pub(crate) error: Option<String>,
}

/// The first line of a side.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ready {
    /// What it is, with versions.
    pub(crate) version: String,
}

/// Says that the model is loaded, and answers requests until there are no more.
pub(crate) fn serve(
    version: String,
    requests: impl BufRead,
    mut answers: impl Write,
    mut answer: impl FnMut(&Request) -> Result<Answer>,
) -> Result<()> {
    writeln!(answers, "{}", serde_json::to_string(&Ready { version })?)?;
    answers.flush()?;
    for line in requests.lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let answer = answer(&request).unwrap_or_else(|error| Answer {
            error: Some(format!("{error:#}")),
            ..Answer::default()
        });
        writeln!(answers, "{}", serde_json::to_string(&answer)?)?;
        answers.flush()?;
    }
    Ok(())
}

/// A decode step, in milliseconds, where `decode` tells how long so many new tokens take.
pub(crate) fn step(tokens: i64, mut decode: impl FnMut(i64) -> Result<f64>) -> Result<f64> {
    // The first steps hold what is done once an image; the others differ by their tokens alone.
    let few = (tokens / 2).max(1);
    let (less, more) = (decode(few)?, decode(tokens)?);
    Ok((more - less) / (tokens - few).max(1) as f64)
}

pub(crate) fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// What precedes the peak on standard error, in KiB.
pub(crate) const PEAK: &str = "peak_kib ";

/// Tells this process's peak on standard error.
pub(crate) fn tell_peak() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    eprintln!("{PEAK}{}", kib.unwrap_or("0"));
}
