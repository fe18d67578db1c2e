//! Models by name, and what their download shows on standard error.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::hub::{Event, Settings};
use crate::models::{self, Access, Need};
use crate::stderr;

/// A wait shorter than this is nothing to speak of.
const WORTH_TELLING: Duration = Duration::from_secs(2);

#[derive(Args)]
#[command(next_help_heading = "Model")]
pub(super) struct HubArgs {
    /// Ask nothing of the Hugging Face Hub: use the files that are in its cache
    #[arg(long, env = "VEDM_OFFLINE", hide_env = true, hide_short_help = true)]
    pub offline: bool,
}

/// The directory of a model, downloaded if need be, with a progress bar where standard error is a terminal.
pub(super) fn find(
    name: &str,
    need: Need,
    revision: Option<&str>,
    hub: &HubArgs,
    quiet: bool,
) -> Result<PathBuf> {
    let shown = Shown { quiet, bar: RefCell::new(None) };
    let tell = |event: Event<'_>| shown.tell(event);
    models::find(name, need, &Access { revision, offline: hub.offline, tell: &tell })
}

/// The bar of the file that is coming.
struct Shown {
    quiet: bool,
    bar: RefCell<Option<ProgressBar>>,
}

impl Shown {
    fn tell(&self, event: Event<'_>) {
        if self.quiet {
            return;
        }
        match event {
            Event::Starts { name, size, present } => {
                self.clear();
                let drawn = std::io::stderr().is_terminal() && Settings::from_env(true).bars;
                *self.bar.borrow_mut() = drawn.then(|| bar(name, size, present));
            }
            Event::Bytes(count) => {
                if let Some(bar) = &*self.bar.borrow() {
                    bar.inc(count);
                }
            }
            Event::Ends => self.clear(),
            Event::Queues { name } => {
                self.say(&format!("another process downloads {name:?}; waiting for it"));
            }
            Event::Waits { reason, wait } if wait >= WORTH_TELLING => {
                self.say(&format!("{reason}; trying again in {} s", wait.as_secs()));
            }
            Event::Waits { .. } => {}
            Event::Damaged { name, reason } => {
                self.say(&format!("{name:?} came damaged ({reason}); fetching it anew"));
            }
            Event::Unreachable { repository, reason } => self.say(&format!(
                "the Hub can't be reached ({reason}); using the copy of {repository:?} in the cache"
            )),
            Event::Unknown { repository, name } => self.say(&format!(
                "{name:?} of {repository:?} is not in the cache, and only the Hub knows whether there is one; \
                 results may differ until a run asks it"
            )),
        }
    }

    fn clear(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, sentence: &str) {
        stderr::line(self.bar.borrow().as_ref(), &format!("vedm: warning: {sentence}"));
    }
}

fn bar(name: &str, size: Option<u64>, present: u64) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => {
            (ProgressBar::new(size), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        }
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {bytes} {bytes_per_sec}"),
    };
    let style = ProgressStyle::with_template(template);
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(name.to_string());
    bar.set_position(present);
    // The rate is that of this run.
    bar.reset_eta();
    bar
}
