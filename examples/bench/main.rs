//! Measures vedm beside transformers: same checkpoints, same pictures, same threads, as many new tokens,
//! in turn.
//!
//! ```sh
//! cargo run --release --example bench -- --python PATH_OF_PYTHON
//! ```
//!
//! The measuring process starts the others: `bench vedm ...` is the command line of vedm, `bench worker ...`
//! its reader with the model loaded, `reference.py` the same of transformers.

mod kernels;
mod material;
mod measure;
mod past;
mod protocol;
mod report;
mod sides;
#[path = "../common/spread.rs"]
mod spread;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod vocabulary;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;

use measure::Plan;
use sides::Program;

/// Measures vedm beside transformers on checkpoints with random weights, which it makes: first text from
/// process start, encoder, decode step, images a second, peak memory; then products and the machine.
///
/// The reference needs a Python with torch, transformers and pillow; without --python, vedm is measured
/// alone. Sides take turns within a round, and a ratio is taken within a round: the spread of the ratios
/// tells how steady the machine was. Other engines are not measured: of ONNX Runtime, optimum exports these
/// models to graphs whose generation loop is transformers' own; candle has an example of TrOCR alone.
///
/// As given, it takes about 8 minutes on two cores with the reference and one number type (2 without the
/// reference), and 6 GB of memory. --full takes an hour.
#[derive(Parser)]
#[command(name = "bench")]
pub(crate) struct Args {
    /// Python of the reference [default: vedm alone]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Number type of the reference: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    reference_dtype: String,
    /// Models: vit-gpt2, trocr-small, trocr-base, donut-base
    #[arg(long, value_delimiter = ',', default_value = "vit-gpt2,trocr-small,trocr-base")]
    models: Vec<String>,
    /// Number types of vedm, as its --dtype takes them
    #[arg(long, value_delimiter = ',', default_value = "f32")]
    dtype: Vec<String>,
    /// Images of a batch
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    batches: Vec<usize>,
    /// Beams
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    beams: Vec<i64>,
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

fn main() -> Result<()> {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    match words.first().and_then(|word| word.to_str()) {
        Some("vedm") => {
            vedm::native::tune_allocator();
            let status = vedm::cli::status(words);
            sides::tell_peak();
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
        args.dtype = words("f32 bf16 f16 int8");
        (args.batches, args.rounds) = (vec![1, 8, 32], 5);
    }
    ensure!(args.rounds > 0, "--rounds 0 measures nothing");
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("vedm-bench"));
    let program = Program {
        bench: std::env::current_exe().context("where this program lies is unknown")?,
        python: args.python.clone(),
        reference_dtype: args.reference_dtype.clone(),
        threads,
    };
    let mut whole =
        json!({ "machine": report::machine(threads), "models": [], "kernels": null, "past": null });
    println!("{}", report::headline(&whole["machine"]));
    if !args.no_models {
        for name in &args.models {
            let plan = Plan {
                model: material::find(name)?,
                dtypes: &args.dtype,
                batches: &args.batches,
                beams: &args.beams,
                rounds: args.rounds,
            };
            let table = measure::model(&plan, &program, &dir)?;
            println!("\n{}", if args.markdown { table.markdown() } else { table.text() });
            if let Some(models) = whole["models"].as_array_mut() {
                models.push(table.to_json());
            }
        }
    }
    if !args.no_kernels {
        let kernels = kernels::measure(&args.dtype, threads)?;
        println!("\n{}", kernels.text());
        whole["kernels"] = kernels.to_json();
        let steps = past::measure();
        println!("\n{}", past::Step::text(&steps));
        whole["past"] = steps.iter().map(past::Step::to_json).collect();
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&whole)? + "\n";
        std::fs::write(path, text).with_context(|| format!("can't write {path:?}"))?;
    }
    Ok(())
}
