//! Measures vedm beside transformers: same checkpoints, same pictures, same threads, as many new tokens,
//! in turn.
//!
//! ```sh
//! cargo run --release --example bench -- --python PATH_OF_PYTHON
//! ```
//!
//! The measuring process starts the others: `bench vedm ...` is the command line of vedm, `bench worker ...`
//! its reader with the model loaded, `reference.py` the same of transformers, the package in `candle/` the
//! same of candle.

mod agreement;
mod kernels;
mod material;
mod measure;
mod past;
mod protocol;
mod report;
mod side;
mod sides;
#[path = "../common/spread.rs"]
mod spread;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod vocabulary;
mod worker;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use vedm::device::DeviceChoice;

use agreement::Material;
use measure::Plan;
use sides::Program;

/// Measures vedm beside transformers on checkpoints with random weights, which it makes: first text from
/// process start, encoder, decode step, images a second, peak memory; then products and the machine.
///
/// The reference needs a Python with torch, transformers and pillow; without --python, vedm is measured
/// alone. Sides take turns within a round, and a ratio is taken within a round: the spread of the ratios
/// tells how steady the machine was. All sides hold their models at once: count 8 GB with four number types.
///
/// --agreement measures something else: how far narrower number types change greedy texts, with random
/// weights on noise, and with the model that vedm ships on real lines.
#[derive(Parser)]
#[command(name = "bench")]
pub(crate) struct Args {
    /// Python of the reference [default: vedm alone]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Python with optimum-onnx and onnxruntime, which is measured as well, in f32 [default: not measured]
    #[arg(long, value_name = "PATH")]
    onnx: Option<PathBuf>,
    /// What examples/bench/candle builds, measured as well, in f32 on the CPU, where its models allow it: TrOCR with a
    /// ViT, greedy [default: not measured]
    #[arg(long, value_name = "PROGRAM")]
    candle: Option<PathBuf>,
    /// Number type of the reference: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    reference_dtype: String,
    /// Models: vit-gpt2, trocr-small, trocr-base, donut-base
    #[arg(long, value_delimiter = ',', default_value = "vit-gpt2,trocr-small,trocr-base")]
    models: Vec<String>,
    /// Where both sides compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Number types of vedm, as its --dtype takes them
    #[arg(long, value_delimiter = ',', default_value = "f32")]
    dtype: Vec<String>,
    /// Images of a batch
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    batches: Vec<usize>,
    /// Beams
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    beams: Vec<i64>,
    /// Instead of --models, --batches and --beams: single cases, as in vit-gpt2:1x4 (images x beams)
    #[arg(long = "case", value_name = "MODEL:NxK", value_delimiter = ',')]
    cases: Vec<Case>,
    /// Every measurement is made so often
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of one operation [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// All models, all number types, batches of 1, 8 and 32, 5 rounds
    #[arg(long)]
    full: bool,
    /// Write everything as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the models' tables as Markdown
    #[arg(long)]
    markdown: bool,
    /// Measure how far number types change greedy texts, in place of times
    #[arg(long)]
    agreement: bool,
    /// With --agreement: folders of text lines with a labels.csv
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    lines: Vec<PathBuf>,
    /// Where the checkpoints are made, and found by the next run
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the models out
    #[arg(long)]
    no_models: bool,
    /// Leave out the products, the keys and values, and the machine
    #[arg(long)]
    no_kernels: bool,
}

// As the program itself begins.
#[cfg(not(test))]
vedm::before_libraries!(foresee);

/// What the command line of vedm has done before its libraries are ready.
#[cfg_attr(test, allow(dead_code))]
fn foresee(mut words: Vec<OsString>) -> Option<Box<dyn FnOnce()>> {
    let of_vedm = words.get(1).is_some_and(|word| word == "vedm");
    of_vedm.then(|| vedm::cli::foresee(words.split_off(1))).flatten()
}

fn main() -> Result<()> {
    vedm::native::wait_for_foresight();
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    match words.first().and_then(|word| word.to_str()) {
        Some("vedm") => {
            vedm::native::tune_allocator();
            let status = vedm::cli::status(words);
            protocol::tell_peak();
            vedm::native::exit_at_once(status)
        }
        Some("worker") => {
            vedm::native::tune_allocator();
            let words = words.into_iter().skip(1).collect();
            worker::serve(words, std::io::stdin().lock(), std::io::stdout().lock())
        }
        _ => run(Args::parse_from(std::iter::once(program).chain(words))),
    }
}

fn run(mut args: Args) -> Result<()> {
    if args.full {
        let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        args.models = words("vit-gpt2 trocr-small trocr-base donut-base");
        let types =
            if args.device == DeviceChoice::Cpu { "f32 bf16 f16 int8" } else { "f32 bf16 f16" };
        args.dtype = words(types);
        (args.batches, args.rounds) = (vec![1, 8, 32], 5);
    }
    ensure!(args.rounds > 0, "--rounds 0 measures nothing");
    ensure!(args.device != DeviceChoice::Auto, "--device auto could be two devices; name one");
    ensure!(
        args.candle.is_none() || args.device == DeviceChoice::Cpu,
        "candle is measured on the CPU alone; leave out --candle or --device"
    );
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("vedm-bench"));
    let program = Program {
        bench: std::env::current_exe().context("where this program lies is unknown")?,
        python: args.python.clone(),
        onnx: args.onnx.clone(),
        candle: args.candle.clone(),
        reference_dtype: args.reference_dtype.clone(),
        device: args.device,
        threads,
    };
    let machine = report::machine(threads, args.device);
    let mut whole = json!({ "machine": machine, "models": [], "kernels": null, "past": null });
    println!("{}", report::headline(&whole["machine"]));
    if args.agreement {
        let rows = agree(&args, &program, &dir)?;
        println!("\n{}", agreement::markdown(&rows));
        whole["agreement"] = agreement::to_json(&rows);
    } else {
        times(&args, &program, &dir, &mut whole)?;
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&whole)? + "\n";
        std::fs::write(path, text).with_context(|| format!("can't write {path:?}"))?;
    }
    Ok(())
}

/// Models, then products; what is measured is printed at once.
fn times(args: &Args, program: &Program, dir: &Path, whole: &mut Value) -> Result<()> {
    if !args.no_models {
        for (name, cases) in cases(args) {
            let plan = Plan {
                model: material::find(&name)?,
                dtypes: &args.dtype,
                cases: &cases,
                rounds: args.rounds,
            };
            let table = measure::model(&plan, program, dir)?;
            println!("\n{}", if args.markdown { table.markdown() } else { table.text() });
            if let Some(models) = whole["models"].as_array_mut() {
                models.push(table.to_json());
            }
        }
    }
    if !args.no_kernels {
        let kernels = kernels::measure(&args.dtype, program.threads, args.device.resolve()?)?;
        println!("\n{}", kernels.text());
        whole["kernels"] = kernels.to_json();
        let steps = past::measure();
        println!("\n{}", past::Step::text(&steps));
        whole["past"] = steps.iter().map(past::Step::to_json).collect();
    }
    Ok(())
}

/// The models in the order in which they are named, each with its (images, beams).
fn cases(args: &Args) -> Vec<(String, Vec<(usize, i64)>)> {
    let mut models: Vec<(String, Vec<(usize, i64)>)> = Vec::new();
    if args.cases.is_empty() {
        let each =
            |size: &usize| args.beams.iter().map(|beams| (*size, *beams)).collect::<Vec<_>>();
        let all: Vec<(usize, i64)> = args.batches.iter().flat_map(each).collect();
        models.extend(args.models.iter().map(|name| (name.clone(), all.clone())));
    }
    for Case { model, images, beams } in &args.cases {
        match models.iter_mut().find(|(name, _)| name == model) {
            Some((_, cases)) => cases.push((*images, *beams)),
            None => models.push((model.clone(), vec![(*images, *beams)])),
        }
    }
    models
}

/// Pictures of a model with random weights, for agreement.
const NOISE: usize = 24;

fn agree(args: &Args, program: &Program, dir: &Path) -> Result<Vec<agreement::Row>> {
    let mut rows = Vec::new();
    for folder in &args.lines {
        rows.extend(Material::lines(folder)?.compare(&args.dtype, program)?);
    }
    for name in args.models.iter().filter(|_| !args.no_models) {
        let model = material::find(name)?;
        let checkpoint = model.checkpoint(dir, |words| program.init(words))?;
        let pictures = model.pictures(dir, NOISE)?;
        let material = Material::random(name, checkpoint, pictures, model.tokens);
        rows.extend(material.compare(&args.dtype, program)?);
    }
    Ok(rows)
}

/// MODEL:NxK
#[derive(Clone)]
struct Case {
    model: String,
    images: usize,
    beams: i64,
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once(':').and_then(|(model, size)| {
            let (images, beams) = size.split_once('x')?;
            let (images, beams) = (images.parse().ok()?, beams.parse().ok()?);
            Some(Case { model: model.to_string(), images, beams })
        });
        let case = parts.filter(|case| case.images > 0 && case.beams > 0);
        case.with_context(|| format!("{text:?} is no case, as vit-gpt2:8x4 is (8 images, 4 beams)"))
    }
}
