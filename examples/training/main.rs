//! How fast `vedm train` is beside the reference's training loop: the same model, images, batches, threads
//! and settings (f32), in turn, and the ratio of their samples a second with its spread.
//!
//! ```text
//! cargo run --release --example training -- --python PYTHON [CASE...]
//! ```
//!
//! PYTHON has torch and transformers. Without cases all are run. `--no-dropout` lets both draw nothing, so
//! that their losses can be compared; the largest difference is told.

mod cases;
#[path = "../common/spread.rs"]
mod spread;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;

use cases::{CASES, Case};
use spread::Spread;

/// Compares the speed of training with the reference's.
#[derive(Parser)]
struct Args {
    /// Cases to run
    cases: Vec<String>,
    /// A Python with torch and transformers
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Pairs of runs
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Steps of a run; the first three are not counted
    #[arg(long, default_value_t = 12)]
    steps: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where both sides compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Switch dropout off, and compare the losses
    #[arg(long)]
    no_dropout: bool,
}

/// Steps that warm caches and allocators up.
const WARM_UP: usize = 3;

/// Seconds and loss of each step.
type Steps = Vec<(f64, f64)>;

fn main() -> Result<()> {
    // The program under test is this one, called again.
    if let Some("init" | "train") = std::env::args().nth(1).as_deref() {
        vedm::native::tune_allocator();
        std::process::exit(vedm::cli::status(std::env::args_os()));
    }
    let args = Args::parse();
    ensure!(
        args.steps > WARM_UP && args.rounds > 0,
        "at least {} steps and one round",
        WARM_UP + 1
    );
    for name in &args.cases {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        ensure!(known.contains(&name.as_str()), "no case {name}; there are {}", known.join(", "));
    }
    let chosen = |case: &&Case| args.cases.is_empty() || args.cases.iter().any(|n| n == case.name);
    println!(
        "{:18} {:>5} {:>12} {:>12}   ratio (lowest to highest of {} pairs)",
        "case", "batch", "vedm", "reference", args.rounds
    );
    for case in CASES.iter().filter(chosen) {
        compare(case, &args)?;
    }
    Ok(())
}

fn compare(case: &Case, args: &Args) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("model");
    case.make(&model, args.no_dropout)?;
    let data = case.draw(folder.path(), args.steps)?;
    let (mut pairs, mut apart) = (Vec::new(), 0f64);
    for round in 0..args.rounds {
        let out = folder.path().join(format!("out-{round}"));
        let ours = || ours(case, &model, &data, &out, args);
        let theirs = || theirs(case, &model, &data, args);
        // Whoever comes first finds a cooler machine.
        let (a, b) = if round % 2 == 0 {
            let a = ours()?;
            (a, theirs()?)
        } else {
            let b = theirs()?;
            (ours()?, b)
        };
        ensure!(a.len() == args.steps && b.len() == args.steps, "a run ended early");
        for ((_, a), (_, b)) in a.iter().zip(&b) {
            apart = apart.max((a - b).abs() / b.abs());
        }
        let rate = |steps: &Steps| -> Result<f64> {
            Ok(case.batch as f64 / spread(steps[WARM_UP..].iter().map(|s| s.0))?.median)
        };
        pairs.push((rate(&a)?, rate(&b)?));
    }
    let Spread { median, least, greatest } = spread(pairs.iter().map(|(a, b)| a / b))?;
    println!(
        "{:18} {:>5} {:>8.2} im/s {:>8.2} im/s   {:.2} ({least:.2} to {greatest:.2}){}",
        case.name,
        case.batch,
        spread(pairs.iter().map(|pair| pair.0))?.median,
        spread(pairs.iter().map(|pair| pair.1))?.median,
        median,
        if args.no_dropout {
            format!("   losses differ by at most {apart:.1e}")
        } else {
            String::new()
        }
    );
    Ok(())
}

fn ours(case: &Case, model: &Path, data: &Path, out: &Path, args: &Args) -> Result<Steps> {
    let (batch, steps) = (case.batch.to_string(), args.steps.to_string());
    let threads = args.threads.to_string();
    vedm(&[
        "train".as_ref(),
        "--model".as_ref(),
        model,
        "--data".as_ref(),
        data,
        "--output".as_ref(),
        out,
        "--per-device-train-batch-size".as_ref(),
        batch.as_ref(),
        "--max-steps".as_ref(),
        steps.as_ref(),
        "--learning-rate".as_ref(),
        LEARNING_RATE.as_ref(),
        "--threads".as_ref(),
        threads.as_ref(),
        "--device".as_ref(),
        args.device.as_ref(),
        "--logging-steps=1".as_ref(),
        "--save-steps=never".as_ref(),
        "--quiet".as_ref(),
    ])?;
    let log = std::fs::read_to_string(out.join("metrics.jsonl"))?;
    let step = |line: &str| {
        let line: Value = serde_json::from_str(line)?;
        let rate = line["samples_per_second"].as_f64().context("no samples_per_second")?;
        Ok((case.batch as f64 / rate, line["loss"].as_f64().context("no loss")?))
    };
    log.lines().map(step).collect()
}

const LEARNING_RATE: &str = "1e-4";

/// This program as `vedm`.
fn vedm(args: &[&Path]) -> Result<()> {
    let ran = Command::new(std::env::current_exe()?).args(args).stdout(Stdio::null()).output()?;
    ensure!(ran.status.success(), "vedm {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(())
}

fn theirs(case: &Case, model: &Path, data: &Path, args: &Args) -> Result<Steps> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/training/reference.py");
    let ran = Command::new(&args.python)
        .arg(script)
        .args([model, data])
        .args([args.steps, case.batch, args.threads].map(|number| number.to_string()))
        .args([LEARNING_RATE, &args.device])
        .output()
        .with_context(|| format!("{:?} can't be run; pass --python", args.python))?;
    if !ran.status.success() {
        bail!("the reference failed: {}", String::from_utf8_lossy(&ran.stderr));
    }
    let step = |line: &str| {
        let line: Value = serde_json::from_str(line)?;
        let number = |name: &str| line[name].as_f64().with_context(|| format!("no {name}"));
        Ok((number("seconds")?, number("loss")?))
    };
    String::from_utf8(ran.stdout)?.lines().map(step).collect()
}

fn spread(values: impl Iterator<Item = f64>) -> Result<Spread> {
    Spread::of(&values.collect::<Vec<f64>>()).context("nothing was measured")
}
