//! A process that is measured while it keeps its model.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::protocol::{Answer, Ready, Request};

/// A process with a loaded model that answers requests.
pub(crate) struct Side {
    pub(crate) version: String,
    /// It searches with one beam alone.
    pub(crate) greedy_only: bool,
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
        Ok(Side { version: ready.version, greedy_only: false, child, stdin, stdout })
    }

    /// Whether it can answer this.
    pub(crate) fn takes(&self, request: &Request) -> bool {
        request.beams == 1 || !self.greedy_only
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
