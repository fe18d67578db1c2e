//! How well and how fast `vedm ocr` and tesseract read the same line images on the same cores: in turn, with
//! their error rates and the ratio of their lines a second with its spread.
//!
//! ```text
//! cargo run --release --example readers -- --data LABELS [--data LABELS...] [--ignore-case]
//! ```
//!
//! Starting and loading count on both sides. tesseract reads with `--psm 7`, one process a core, each with one
//! thread and a list of its share of the images; vedm reads the whole list in one process.

#[path = "../common/spread.rs"]
mod spread;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;

use spread::Spread;
use vedm::metrics::{self, Item};
use vedm::train::data::{ImageSource, Table, TableOptions};

/// Compares vedm with tesseract on labelled line images.
#[derive(Parser)]
struct Args {
    /// CSV, TSV or JSONL file, or folder, of images with their texts
    #[arg(long, required = true)]
    data: Vec<PathBuf>,
    /// Model of vedm [default: the shipped one]
    #[arg(long, default_value = "vedm-ocr-printed")]
    model: String,
    #[arg(long, default_value = "tesseract")]
    tesseract: PathBuf,
    /// Language of tesseract
    #[arg(long, default_value = "eng")]
    language: String,
    /// Threads of vedm, and processes of tesseract
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Compare without regard to case
    #[arg(long)]
    ignore_case: bool,
    /// Pairs of runs
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Texts in the order of the images, and how long they took.
struct Run {
    texts: Vec<String>,
    seconds: f64,
}

fn main() -> Result<()> {
    // The program under test is this one, called again.
    if std::env::args().nth(1).as_deref() == Some("ocr") {
        vedm::native::tune_allocator();
        std::process::exit(vedm::cli::status(std::env::args_os()));
    }
    let args = Args::parse();
    ensure!(args.rounds > 0 && args.threads > 0, "at least one round and one thread");
    println!("| lines | reader | CER | exact | lines/s |");
    println!("|---|---|---|---|---|");
    for data in &args.data {
        compare(data, &args)?;
    }
    Ok(())
}

fn compare(data: &Path, args: &Args) -> Result<()> {
    let options = TableOptions { image_column: None, text_column: None };
    let table = Table::read(data, &options)?;
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for row in &table.rows {
        let ImageSource::File(path) = &row.image else {
            anyhow::bail!("{data:?} is an archive; tesseract reads files");
        };
        images.push(path.canonicalize().with_context(|| format!("{path:?}"))?);
        labels.push(row.text.clone().with_context(|| format!("{:?}: a row without a text", data))?);
    }
    ensure!(images.len() >= args.threads, "{data:?}: fewer images than processes");
    let mut pairs = Vec::new();
    for round in 0..args.rounds {
        // Whoever comes first finds a cooler machine.
        pairs.push(if round % 2 == 0 {
            let ours = ours(&images, args)?;
            (ours, theirs(&images, args)?)
        } else {
            let theirs = theirs(&images, args)?;
            (ours(&images, args)?, theirs)
        });
    }
    let rate = |run: &Run| images.len() as f64 / run.seconds;
    let (ours, theirs) = &pairs[0];
    tell(data, "vedm", &labels, ours, pairs.iter().map(|pair| rate(&pair.0)), args)?;
    tell(data, "tesseract", &labels, theirs, pairs.iter().map(|pair| rate(&pair.1)), args)?;
    let ratios: Vec<f64> = pairs.iter().map(|(a, b)| rate(a) / rate(b)).collect();
    let Spread { median, least, greatest } = Spread::of(&ratios).context("no pairs")?;
    println!(
        "\n{}: {median:.2} times tesseract's lines a second ({least:.2} to {greatest:.2} of {} pairs)\n",
        data.display(),
        args.rounds
    );
    Ok(())
}

/// One row of the table.
fn tell(
    data: &Path,
    reader: &str,
    labels: &[String],
    run: &Run,
    rates: impl Iterator<Item = f64>,
    args: &Args,
) -> Result<()> {
    let item = |(label, text): (&String, &String)| Item {
        references: vec![label.clone()],
        hypothesis: text.clone(),
    };
    let items: Vec<Item> = labels.iter().zip(&run.texts).map(item).collect();
    let scores = metrics::score(&items, args.ignore_case);
    let rates: Vec<f64> = rates.collect();
    println!(
        "| {} ({}) | {reader} | {:.2} % | {:.1} % | {:.1} |",
        data.display(),
        labels.len(),
        scores.cer * 100.0,
        scores.exact_match * 100.0,
        Spread::of(&rates).context("no runs")?.median
    );
    Ok(())
}

/// `vedm ocr` over the whole list.
fn ours(images: &[PathBuf], args: &Args) -> Result<Run> {
    let start = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["ocr", "--model", &args.model, "--format", "jsonl", "--files-from", "-", "--quiet"])
        .args(["--device", "cpu", "--threads", &args.threads.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut list = child.stdin.take().context("no standard input")?;
    for image in images {
        writeln!(list, "{}", image.display())?;
    }
    drop(list);
    let output = child.wait_with_output()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut texts = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let record: Value = serde_json::from_str(line)?;
        // A picture that can't be read has an error and no text: nothing was read.
        texts.push(record["text"].as_str().unwrap_or_default().to_string());
    }
    ensure!(texts.len() == images.len(), "vedm gave {} texts", texts.len());
    Ok(Run { texts, seconds })
}

/// tesseract's processes, each over its share.
fn theirs(images: &[PathBuf], args: &Args) -> Result<Run> {
    let folder = tempfile::tempdir()?;
    let start = Instant::now();
    let share = images.len().div_ceil(args.threads);
    let children: Vec<(Child, usize)> = images
        .chunks(share)
        .enumerate()
        .map(|(number, images)| {
            let list = folder.path().join(format!("{number}.txt"));
            let lines: Vec<String> =
                images.iter().map(|image| format!("{}\n", image.display())).collect();
            std::fs::write(&list, lines.concat())?;
            let child = Command::new(&args.tesseract)
                .arg(&list)
                .args(["-", "--psm", "7", "-l", &args.language])
                .env("OMP_THREAD_LIMIT", "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("can't run {:?}", args.tesseract))?;
            Ok((child, images.len()))
        })
        .collect::<Result<_>>()?;
    let mut texts = Vec::new();
    for (child, count) in children {
        let output = child.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        // Each image ends with a form feed.
        let pages: Vec<&str> = text.split_terminator('\u{c}').collect();
        ensure!(pages.len() == count, "tesseract gave {} texts for {count} images", pages.len());
        texts
            .extend(pages.iter().map(|page| page.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    Ok(Run { texts, seconds: start.elapsed().as_secs_f64() })
}
