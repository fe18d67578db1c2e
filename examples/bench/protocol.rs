//! What the measuring process asks of a side and is told: one JSON object a line.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
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

/// A process with a loaded model that answers requests.
pub(crate) struct Side {
    pub(crate) version: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Side {
    /// Starts it and waits until its model is loaded.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("can't start {:?}", command.get_program()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = stdin.zip(stdout).context("a side has no pipes")?;
        let mut stdout = BufReader::new(stdout);
        let ready: Ready = next(&mut stdout).context("it ended before its model was loaded")?;
        Ok(Side { version: ready.version, child, stdin, stdout })
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer> {
        writeln!(self.stdin, "{}", serde_json::to_string(request)?)?;
        self.stdin.flush()?;
        let answer: Answer = next(&mut self.stdout).context("it ended while it was measured")?;
        match answer.error {
            Some(error) => bail!(error),
            None => Ok(answer),
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next<T: for<'de> Deserialize<'de>>(lines: &mut impl BufRead) -> Result<T> {
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            bail!("no answer");
        }
        // Libraries may print what they like between.
        if line.starts_with('{') {
            return Ok(serde_json::from_str(&line)?);
        }
    }
}
