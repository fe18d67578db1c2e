//! Reading ahead: a thread walks the inputs, rayon's workers read and decode, pictures come out in
//! the order of the inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result, anyhow};

use super::End;
use super::gate::{Gate, Limits};
use super::input::Input;
use super::prepare::{Preparer, Unit};

/// Pictures that are decoded and processed, or failed, in input order. Ends the work ahead when it
/// is dropped, without waiting for it.
pub(super) struct Ahead {
    /// A channel for each input, in order.
    inputs: Receiver<Receiver<Unit>>,
    head: Option<Receiver<Unit>>,
    gate: Arc<Gate>,
}

impl Ahead {
    pub(super) fn start(
        inputs: impl Iterator<Item = Input> + Send + 'static,
        preparer: Preparer,
        limits: Limits,
    ) -> Result<Self> {
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(limits.workers)
            .thread_name(|number| format!("decode-{number}"))
            .build()
            .context("can't start threads for decoding")?;
        let gate = Arc::new(Gate::new(limits));
        let (sender, receiver) = channel();
        let walker = Walker { gate: gate.clone(), preparer: Arc::new(preparer), workers };
        std::thread::Builder::new()
            .name("inputs".to_string())
            .spawn(move || walker.walk(inputs, &sender))
            .context("can't start a thread for the inputs")?;
        Ok(Ahead { inputs: receiver, head: None, gate })
    }
}

impl Iterator for Ahead {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        loop {
            let Some(head) = &self.head else {
                self.head = Some(self.inputs.recv().ok()?);
                continue;
            };
            if let Ok(unit) = head.recv() {
                self.gate.take(unit.bytes());
                return Some(unit);
            }
            self.head = None;
            self.gate.advance();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.gate.close();
    }
}

struct Walker {
    gate: Arc<Gate>,
    preparer: Arc<Preparer>,
    workers: rayon::ThreadPool,
}

impl Walker {
    fn walk(self, mut inputs: impl Iterator<Item = Input>, sender: &Sender<Receiver<Unit>>) {
        for number in 0.. {
            // A panic must not look like the end of the inputs.
            let next = catch_unwind(AssertUnwindSafe(|| inputs.next()));
            let panicked = next.is_err();
            let input = match next {
                Ok(Some(input)) => input,
                Ok(None) => break,
                Err(_) => Input::failed("inputs", "internal error while listing them"),
            };
            if !self.gate.admit() {
                break;
            }
            let (units, receiver) = channel();
            if sender.send(receiver).is_err() {
                break;
            }
            let (gate, preparer) = (self.gate.clone(), self.preparer.clone());
            self.workers.spawn_fifo(move || {
                work(&gate, number, &preparer, input, &units);
                gate.release();
            });
            if panicked {
                break;
            }
        }
    }
}

/// Sends all pictures of one input, each when it is known what ends with it.
fn work(gate: &Gate, number: u64, preparer: &Preparer, input: Input, units: &Sender<Unit>) {
    let send = |unit: Unit| gate.queue(number, unit.bytes()) && units.send(unit).is_ok();
    let mut held: Option<Unit> = None;
    let mut follow = |unit: Unit| {
        let page = unit.page;
        held.replace(unit).is_none_or(|before| {
            let end = if before.page == page { End::Line } else { End::Page };
            send(Unit { end, ..before })
        })
    };
    let mut room = |bytes| gate.decode(number, bytes);
    let whole = input.unit(None);
    let prepare = || preparer.prepare(&input, &mut room, &mut follow);
    if catch_unwind(AssertUnwindSafe(prepare)).is_err() {
        let error = anyhow!("damaged (its decoder gave up)");
        follow(Unit { outcome: Err(error), ..whole });
    }
    if let Some(last) = held {
        send(Unit { end: End::Input, ..last });
    }
}
