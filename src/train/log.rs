//! What a run says: a bar on a terminal, lines elsewhere, and metrics.jsonl.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::stderr;

/// The file of the log in the output directory: one JSON object a line.
pub const METRICS: &str = "metrics.jsonl";

/// Lines about work before the first step come at most so often.
const BETWEEN_LINES: Duration = Duration::from_secs(20);

/// Where a run talks to.
pub struct Talk {
    quiet: bool,
    bar: Option<ProgressBar>,
    path: PathBuf,
    file: Option<File>,
}

impl Talk {
    /// Nothing is written before the first line.
    pub fn new(out: &Path, quiet: bool) -> Self {
        Talk { quiet, bar: None, path: out.join(METRICS), file: None }
    }

    /// Shows progress from `done` of `steps` on, if somebody watches.
    pub fn start(&mut self, done: u64, steps: u64) {
        if self.quiet || !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new(steps).with_position(done);
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:24} step {pos}/{len}  {msg}  {elapsed} gone, {eta} left",
        ) {
            bar.set_style(style);
        }
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(500));
        self.bar = Some(bar);
    }

    /// The bar after a step.
    pub fn step(&self, done: u64, loss: f64, learning_rate: f64, rate: f64) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("loss {loss:.4}  lr {learning_rate:.2e}  {rate:.1} samples/s"));
            bar.set_position(done);
        }
    }

    /// Progress of work on images before the first step: a bar on a terminal, else a line now and then.
    pub fn counting(&self, what: &str) -> Counting {
        let bar = (!self.quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0).with_message(what.to_string());
            let style = "{msg}: {bar:24} {pos}/{len} images, {eta} left";
            match ProgressStyle::with_template(style) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let told = (!self.quiet && bar.is_none()).then(|| Mutex::new(Instant::now()));
        Counting { what: what.to_string(), bar, told }
    }

    /// The bar while something else than steps goes on.
    pub fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_string());
        }
    }

    /// True if a line is better left out because a bar shows the same.
    pub fn has_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// A line for people.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            self.write(line);
        }
    }

    /// A line that even `--quiet` shows.
    pub fn warn(&self, sentence: &str) {
        self.write(&format!("vedm: warning: {sentence}"));
    }

    fn write(&self, line: &str) {
        // Texts of a model and of the data are among the lines.
        stderr::line(self.bar.as_ref(), &stderr::visible(line, true));
    }

    /// Removes the bar.
    pub fn stop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Starts metrics.jsonl anew with the lines of a resumed run.
    pub fn restart(&mut self, history: &[Value]) -> Result<()> {
        let mut text = String::new();
        for line in history {
            text.push_str(&serde_json::to_string(line)?);
            text.push('\n');
        }
        crate::checkpoint::write_file(&self.path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&self.path);
        self.file = Some(file.with_context(|| format!("can't write {:?}", self.path))?);
        Ok(())
    }

    /// One line of metrics.jsonl.
    pub fn metrics(&mut self, line: &Value) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        if let Some(file) = &mut self.file {
            let written = file.write_all(text.as_bytes());
            written.with_context(|| format!("can't write {:?}", self.path))?;
        }
        Ok(())
    }
}

/// See [`Talk::counting`].
pub struct Counting {
    what: String,
    bar: Option<ProgressBar>,
    /// When the last line was written, where lines are.
    told: Option<Mutex<Instant>>,
}

impl Counting {
    /// So many of all are done. May be called from any thread.
    pub fn done(&self, done: usize, all: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
        let Some(Ok(mut told)) = self.told.as_ref().map(Mutex::try_lock) else { return };
        if told.elapsed() >= BETWEEN_LINES {
            *told = Instant::now();
            stderr::line(None, &format!("{}: {done} of {all} images", self.what));
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Seconds as people say them: `42 s`, `3 min`, `1 h 20 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", (whole + 30) / 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_roughly() {
        let table = [(0.4, "0 s"), (119.0, "119 s"), (150.0, "3 min"), (7320.0, "2 h 2 min")];
        for (seconds, expected) in table {
            assert_eq!(duration(seconds), expected);
        }
    }
}
