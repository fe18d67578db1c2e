//! The rounds: every side in turn, the same request for all.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use vedm::device::DeviceChoice;

use crate::material::{Model, PICTURES, batch};
use crate::protocol::{Answer, Request};
use crate::report::{Column, Row, Table};
use crate::side::Side;
use crate::sides::{Once, Other, Program};

/// What is measured of one model.
pub(crate) struct Plan<'a> {
    pub(crate) model: &'static Model,
    pub(crate) dtypes: &'a [String],
    /// Images of a batch, and beams.
    pub(crate) cases: &'a [(usize, i64)],
    pub(crate) rounds: usize,
}

/// Of larger batches only images a second are measured.
const LARGEST_IN_PARTS: usize = 8;

/// Makes the checkpoint and measures it.
pub(crate) fn model(plan: &Plan, program: &Program, dir: &Path) -> Result<Table> {
    let checkpoint = plan.model.checkpoint(dir, |words| program.init(words))?;
    let pictures = plan.model.pictures(dir, PICTURES)?;
    let weights = checkpoint.join("model.safetensors");
    let bytes = weights.metadata().with_context(|| format!("{weights:?}"))?.len();
    let mut table = Table::new(plan.model.name, bytes / 4, plan.model.tokens);
    for other in program.others(plan.model) {
        table.columns.push(Column::new(other.name()));
        if other == Other::OnnxRuntime {
            tell(plan, "export to ONNX");
            program.exported(&checkpoint)?;
        }
    }
    for dtype in plan.dtypes {
        table.columns.push(Column::new(&format!("vedm {dtype}")));
    }
    from_start(plan, program, &checkpoint, &pictures[0], &mut table);
    loaded(plan, program, &checkpoint, &pictures, &mut table);
    Ok(table)
}

/// One text from process start, with the most beams.
fn from_start(plan: &Plan, program: &Program, model: &Path, image: &Path, table: &mut Table) {
    let beams = plan.cases.iter().map(|(_, beams)| *beams).max().unwrap_or(1);
    let columns = table.columns.len();
    let mut seconds = Row::new(format!("first text, {beams} beams"), "s", columns);
    let mut peak = Row::new("peak memory of it".to_string(), "MiB", columns);
    // One more in the beginning, which warms the file cache and is not counted.
    for round in 0..=plan.rounds {
        tell(plan, &format!("first text, round {round} of {}", plan.rounds));
        let tokens = plan.model.tokens;
        let others = program.others(plan.model).into_iter();
        let others = others.map(|other| match other.greedy_only() && beams > 1 {
            true => None,
            false => Some(program.other_once(other, model, image, beams, tokens)),
        });
        let dtypes = plan.dtypes.iter();
        let vedm = dtypes.map(|dtype| Some(program.vedm_once(model, dtype, image, beams, tokens)));
        for (column, once) in others.chain(vedm).enumerate() {
            match once {
                Some(Ok(Once { seconds: time, peak: most })) if round > 0 => {
                    seconds.samples[column].push(time);
                    peak.samples[column].push(most);
                }
                Some(Ok(_)) | None => {}
                Some(Err(error)) => table.columns[column].fails(&error),
            }
        }
    }
    table.rows.extend([seconds, peak]);
}

/// Encoder, decode step and images a second, with models that are loaded.
fn loaded(plan: &Plan, program: &Program, model: &Path, pictures: &[PathBuf], table: &mut Table) {
    let mut sides: Vec<Option<Side>> = Vec::new();
    let mut starts: Vec<Box<dyn Fn() -> Result<Side> + '_>> = Vec::new();
    for other in program.others(plan.model) {
        starts.push(Box::new(move || program.other_worker(other, model)));
    }
    for dtype in plan.dtypes {
        starts.push(Box::new(|| program.worker(model, dtype, &pictures[0])));
    }
    for (column, start) in starts.iter().enumerate() {
        // What did not come to a text is not tried again.
        let side = match table.columns[column].failed() {
            true => None,
            false => start().map_err(|error| table.columns[column].fails(&error)).ok(),
        };
        if let Some(side) = &side {
            table.columns[column].version.clone_from(&side.version);
        }
        sides.push(side);
    }
    let tokens = plan.model.tokens;
    let mut agreement = Row::new("same tokens, greedy".to_string(), "%", sides.len());
    let first = Request { images: batch(pictures, 1), beams: 1, tokens, parts: false };
    // vedm writes drafts after some texts, and the next is slower, as what they compute with is made.
    for _ in 0..WARM_UPS {
        ask(&mut sides, &first, table);
    }
    let loads_kernels = program.device != DeviceChoice::Cpu;
    let (mut encoders, mut steps, mut rates) = (Vec::<Row>::new(), Vec::new(), Vec::new());
    for &(size, beams) in plan.cases {
        let images = if size == 1 { "1 image".to_string() } else { format!("{size} images") };
        let searched = if beams == 1 { "1 beam".to_string() } else { format!("{beams} beams") };
        let case = format!("{images}, {searched}");
        let mut encoder = Row::new(format!("encoder, {images}"), "ms", sides.len());
        let mut step = Row::new(format!("decode step, {case}"), "ms", sides.len());
        let mut rate = Row::rate(format!("images a second, {case}"), sides.len());
        tell(plan, &case);
        let parts = size <= LARGEST_IN_PARTS;
        let request = Request { images: batch(pictures, size), beams, tokens, parts };
        if loads_kernels {
            // A GPU's libraries choose and load kernels when sizes are met first.
            ask(&mut sides, &request, table);
        }
        for _ in 0..plan.rounds {
            let answers = ask(&mut sides, &request, table);
            let base = answers.iter().flatten().next().map(|answer| answer.ids.clone());
            for (column, answer) in answers.iter().enumerate() {
                let Some(answer) = answer else { continue };
                rate.samples[column].push(size as f64 * 1e3 / answer.whole_ms);
                if parts {
                    encoder.samples[column].push(answer.encoder_ms);
                    step.samples[column].push(answer.step_ms);
                }
                if let Some(base) = base.as_ref().filter(|_| beams == 1) {
                    agreement.samples[column].push(same(base, &answer.ids));
                }
            }
        }
        steps.push(step);
        rates.push(rate);
        // Beams are nothing to an encoder: the first case of a size tells its time.
        if encoders.iter().all(|row| row.name != encoder.name) {
            encoders.push(encoder);
        }
    }
    table.rows.extend(encoders.into_iter().chain(steps).chain(rates));
    table.rows.push(agreement);
}

/// Texts of one picture that every side writes before it is measured.
const WARM_UPS: usize = 3;

/// What is going on, where somebody watches.
fn tell(plan: &Plan, what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{}: {what}", plan.model.name);
    }
}

/// Before a side is asked: threads of the one before may still wait for work by spinning.
const REST: Duration = Duration::from_millis(100);

/// The same of every side that is still there and can do it, one after the other.
pub(crate) fn ask(
    sides: &mut [Option<Side>],
    request: &Request,
    table: &mut Table,
) -> Vec<Option<Answer>> {
    let mut answers = Vec::new();
    for (column, slot) in sides.iter_mut().enumerate() {
        let asked = slot.as_mut().filter(|side| side.takes(request));
        let answer = asked.map(|side| {
            sleep(REST);
            side.ask(request)
        });
        answers.push(match answer {
            Some(Err(error)) => {
                table.columns[column].fails(&error);
                *slot = None;
                None
            }
            other => other.and_then(Result::ok),
        });
    }
    answers
}

/// Percent of the tokens that are equal.
pub(crate) fn same(base: &[Vec<i64>], other: &[Vec<i64>]) -> f64 {
    let pairs = base.iter().zip(other);
    let (mut equal, mut all) = (0, 0);
    for (base, other) in pairs {
        all += base.len();
        equal += base.iter().zip(other).filter(|(base, other)| base == other).count();
    }
    equal as f64 * 100.0 / all.max(1) as f64
}
