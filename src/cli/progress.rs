//! What a run tells on standard error: a bar, failures, a summary.

use std::cell::Cell;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use crate::stderr::{self, visible};

/// `--progress` and `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// Where standard error is a terminal
    Auto,
    Always,
    Never,
}

/// Without a terminal, `--progress always` tells a line this often.
const PLAIN: Duration = Duration::from_secs(10);

/// Counts images and shows them.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// No terminal, but the user wants to see something: when the last line was.
    plain: Option<Cell<Instant>>,
    start: Instant,
    color: bool,
    quiet: bool,
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// Counted where inputs are listed, ahead of the model.
    skipped: Arc<AtomicU64>,
}

impl Progress {
    /// `total` tells the number of images, where it is known. It may have to walk all directories, so it
    /// is asked for a bar alone.
    pub(super) fn new(
        when: When,
        color: When,
        quiet: bool,
        total: impl FnOnce() -> Option<u64>,
        skipped: Arc<AtomicU64>,
    ) -> Result<Self> {
        let terminal = std::io::stderr().is_terminal();
        let wanted = !quiet && (when == When::Always || (when == When::Auto && terminal));
        let total = if wanted && terminal { total() } else { None };
        // One image is over before a bar says anything.
        let one = when == When::Auto && total == Some(1);
        let bar = (wanted && terminal && !one).then(|| bar(total)).transpose()?;
        let plain = (wanted && !terminal).then(|| Cell::new(Instant::now()));
        let color = colored(color, terminal);
        let start = Instant::now();
        Ok(Progress { bar, plain, start, color, quiet, ok: 0, failed: 0, skipped })
    }

    /// The model is there: from here on time counts.
    pub(super) fn begin(&mut self) {
        self.start = Instant::now();
    }

    fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// One image more was read or has failed.
    pub(super) fn count(&mut self, ok: bool) {
        if ok {
            self.ok += 1;
        } else {
            self.failed += 1;
        }
        if let Some(bar) = &self.bar {
            bar.set_message(if self.failed > 0 {
                format!("{} failed", self.failed)
            } else {
                String::new()
            });
            bar.set_position(self.ok + self.failed + self.skipped());
        }
        if let Some(last) = self.plain.as_ref().filter(|last| last.get().elapsed() >= PLAIN) {
            last.set(Instant::now());
            self.say(&self.summary());
        }
    }

    /// A failure, as `vedm: path: reason`. Told even when quiet.
    pub(super) fn failure(&self, image: &str, reason: &str) {
        let name = if self.color { "\u{1b}[31mvedm:\u{1b}[0m" } else { "vedm:" };
        let sentence = format!("{image}: {reason}").replace('\n', " ");
        self.above(&format!("{name} {}", visible(&sentence, false)));
    }

    /// Something worth knowing, unless quiet.
    pub(super) fn say(&self, sentence: &str) {
        if !self.quiet {
            self.above(&format!("vedm: {}", visible(sentence, false)));
        }
    }

    fn above(&self, line: &str) {
        stderr::line(self.bar.as_ref(), line);
    }

    /// Takes the bar away and says how it went, where there was more than one image.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.ok + self.skipped() + self.failed > 1 {
            self.say(&self.summary());
        }
    }

    /// `97 ok, 2 skipped, 1 failed, 12.3 images/s`
    fn summary(&self) -> String {
        let rate = (self.ok + self.failed) as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
        let (ok, skipped, failed) = (self.ok, self.skipped(), self.failed);
        format!("{ok} ok, {skipped} skipped, {failed} failed, {rate:.1} images/s")
    }
}

fn bar(total: Option<u64>) -> Result<ProgressBar> {
    let bar = match total {
        Some(total) => ProgressBar::new(total).with_style(ProgressStyle::with_template(
            "{wide_bar} {pos}/{len} images  {per_sec}  {eta} left  {msg}",
        )?),
        None => ProgressBar::no_length().with_style(ProgressStyle::with_template(
            "{spinner} {pos} images  {per_sec}  {elapsed}  {msg}",
        )?),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

/// The flag, then NO_COLOR and CLICOLOR_FORCE (<https://bixense.com/clicolors>), then the terminal.
fn colored(when: When, terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto if set("NO_COLOR") => false,
        When::Auto => std::env::var("CLICOLOR_FORCE").is_ok_and(|value| value != "0") || terminal,
    }
}
