//! Draws lines of printed text for training `vedm ocr` models, and writes them as a tar stream of
//! `KEY.png` and `KEY.txt` pairs (a WebDataset shard without an end).
//!
//! ```sh
//! vedm train --data 'pipe:lines --fonts /usr/share/fonts --prose texts --words dictionaries --skip {skip}' ...
//! ```
//!
//! Line number N depends on the seed and on N alone, so a stream can be taken up again anywhere.

mod canvas;
mod degrade;
mod draw;
mod fonts;
mod phrases;
#[path = "../common/shard.rs"]
mod shard;
mod text;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use image::DynamicImage;

use fonts::{FontSet, Fonts};
use shard::Format;
use text::Corpus;

#[derive(Parser)]
#[command(
    about = "Draws lines of printed text with their labels, as a tar stream on standard output"
)]
struct Args {
    /// Directories that are searched for .ttf and .otf fonts
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    fonts: Vec<PathBuf>,
    /// Files or directories of running text
    #[arg(long, num_args = 1.., value_name = "PATH")]
    prose: Vec<PathBuf>,
    /// Files or directories of words, one a line
    #[arg(long, num_args = 1.., value_name = "PATH")]
    words: Vec<PathBuf>,
    /// Families to draw with: a twelfth of them is held out for tests
    #[arg(long, default_value = "train")]
    font_set: FontSet,
    /// Every line is a function of this number and of its own
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of the first line
    #[arg(long, default_value_t = 0)]
    skip: u64,
    /// Lines to draw [default: no end]
    #[arg(long)]
    count: Option<u64>,
    /// Longest text
    #[arg(long, default_value_t = 96)]
    max_chars: usize,
    /// Share of lines as long as those of a book
    #[arg(long, default_value_t = 0.25)]
    long: f64,
    /// Draw clean black on white
    #[arg(long)]
    clean: bool,
    /// Format of the pictures
    #[arg(long, default_value = "pnm")]
    format: Format,
    /// Threads that draw [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!((0.0..=1.0).contains(&args.long), "--long {}: expected 0 to 1", args.long);
    ensure!(args.max_chars >= 4, "--max-chars {}: expected at least 4", args.max_chars);
    shard::limit_threads(args.threads)?;
    let corpus = Corpus::read(&args.prose, &args.words)?;
    let fonts = Fonts::find(&args.fonts, args.font_set)?;
    eprintln!("lines: {} faces of {} families; {corpus}", fonts.faces(), fonts.families());

    shard::write(args.skip, args.count, args.format, |number| line(number, &args, &corpus, &fonts))
}

/// One line: its picture and its label.
fn line(
    number: u64,
    args: &Args,
    corpus: &Corpus,
    fonts: &Fonts,
) -> Result<(DynamicImage, String)> {
    let mut rng = shard::rng(args.seed, number);
    loop {
        let long = rng.f64() < args.long;
        let label = corpus.line(&mut rng, long, args.max_chars);
        let face = fonts.pick(&mut rng);
        // A font without the characters, or a line that came out too small, is drawn anew.
        let Some(drawn) = draw::line(&label, face, corpus, args.clean, &mut rng) else { continue };
        let Some(picture) = degrade::finish(drawn, args.clean, &mut rng) else { continue };
        return Ok((picture, label));
    }
}
