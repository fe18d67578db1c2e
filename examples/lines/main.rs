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
mod text;

use std::io::{BufWriter, Cursor, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use image::codecs::pnm::{PnmEncoder, PnmSubtype, SampleEncoding};
use image::{DynamicImage, ImageFormat};
use rayon::prelude::*;

use fonts::{FontSet, Fonts};
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Without compression: the fastest through a pipe
    Pnm,
    Png,
}

/// Lines drawn in parallel before they are written.
const CHUNK: u64 = 256;

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!((0.0..=1.0).contains(&args.long), "--long {}: expected 0 to 1", args.long);
    ensure!(args.max_chars >= 4, "--max-chars {}: expected at least 4", args.max_chars);
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let corpus = Corpus::read(&args.prose, &args.words)?;
    let fonts = Fonts::find(&args.fonts, args.font_set)?;
    eprintln!("lines: {} faces of {} families; {corpus}", fonts.faces(), fonts.families());

    let end = args.count.map_or(u64::MAX, |count| args.skip.saturating_add(count));
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, std::io::stdout()));
    let mut first = args.skip;
    while first < end {
        let last = end.min(first.saturating_add(CHUNK));
        let lines: Vec<Result<(Vec<u8>, String)>> = (first..last)
            .into_par_iter()
            .map(|number| line(number, &args, &corpus, &fonts))
            .collect();
        for (number, line) in (first..last).zip(lines) {
            let (picture, label) = line?;
            let extension = if args.format == Format::Pnm { "pnm" } else { "png" };
            let written = append(&mut tar, &format!("{number:09}.{extension}"), &picture)
                .and_then(|()| append(&mut tar, &format!("{number:09}.txt"), label.as_bytes()));
            match written {
                // Whoever reads has seen enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                other => other.context("can't write the stream")?,
            }
        }
        first = last;
    }
    tar.into_inner()?.flush().context("can't write the stream")
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, data: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, data)
}

/// One line: the file of its picture, and its label.
fn line(number: u64, args: &Args, corpus: &Corpus, fonts: &Fonts) -> Result<(Vec<u8>, String)> {
    // SplitMix64's step keeps neighbouring numbers from giving similar generators.
    let mixed = (number ^ args.seed.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut rng = fastrand::Rng::with_seed(mixed ^ (mixed >> 31));
    loop {
        let long = rng.f64() < args.long;
        let label = corpus.line(&mut rng, long, args.max_chars);
        let face = fonts.pick(&mut rng);
        // A font without the characters, or a line that came out too small, is drawn anew.
        let Some(drawn) = draw::line(&label, face, corpus, args.clean, &mut rng) else { continue };
        let Some(picture) = degrade::finish(drawn, args.clean, &mut rng) else { continue };
        return Ok((encode(picture, args.format)?, label));
    }
}

fn encode(picture: DynamicImage, format: Format) -> Result<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    let written = match format {
        Format::Png => picture.write_to(&mut file, ImageFormat::Png),
        Format::Pnm => {
            let binary = SampleEncoding::Binary;
            let subtype = match picture {
                DynamicImage::ImageLuma8(_) => PnmSubtype::Graymap(binary),
                _ => PnmSubtype::Pixmap(binary),
            };
            picture.write_with_encoder(PnmEncoder::new(&mut file).with_subtype(subtype))
        }
    };
    written.context("can't encode a picture")?;
    Ok(file.into_inner())
}
