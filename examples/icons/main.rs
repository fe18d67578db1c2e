//! Draws emoji, flags, icons and clip-art with their names, for training and testing models that caption
//! such pictures. `README.md` beside this file tells which sets, and how the shipped model was made.
//!
//! ```sh
//! icons --sets node_modules/@iconify-json/{noto,tabler} --names node_modules/emojibase-data > train.tar
//! ```
//!
//! Picture number N depends on the sets, on the seed and on N alone, so a stream can be taken up again
//! anywhere.

mod catalog;
mod draw;
mod names;
mod sets;
#[path = "../common/shard.rs"]
mod shard;
mod vary;
mod vocabulary;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use image::DynamicImage;
use rayon::prelude::*;

use catalog::{Catalog, Concept, Item, Part};
use names::Names;
use shard::Format;

#[derive(Parser)]
#[command(
    about = "Draws emoji, flags, icons and clip-art with their names, as a tar stream on standard output"
)]
struct Args {
    /// Unpacked @iconify-json packages
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    sets: Vec<PathBuf>,
    /// Unpacked emojibase-data package
    #[arg(long, value_name = "DIR")]
    names: PathBuf,
    /// Folder of .svg files with titles; those named like a concept are drawn too
    #[arg(long, value_name = "DIR")]
    clip_art: Option<PathBuf>,
    /// Which drawings; those of the test parts are drawn once each, and plain
    #[arg(long, default_value = "train")]
    set: Part,
    /// Every picture is a function of this number and of its own
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of the first picture
    #[arg(long, default_value_t = 0)]
    skip: u64,
    /// Pictures to draw [default: train no end, else all]
    #[arg(long)]
    count: Option<u64>,
    /// Width and height of a picture
    #[arg(long, default_value_t = 64)]
    side: u32,
    /// Format of the pictures
    #[arg(long, default_value = "pnm")]
    format: Format,
    /// Write .png files and labels.csv into this new folder instead of a stream
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Each keyword is one more right name: rows of labels.csv
    #[arg(long, requires = "folder")]
    keywords: bool,
    /// Learn a tokenizer of the names, write it into this folder, and draw nothing
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Tokens of the tokenizer
    #[arg(long, default_value_t = 3000, requires = "tokenizer")]
    vocab_size: usize,
    /// Threads that draw [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!((16..=1024).contains(&args.side), "--side {}: expected 16 to 1024", args.side);
    shard::limit_threads(args.threads)?;
    let names = Names::read(&args.names)?;
    let catalog = Catalog::read(&args.sets, args.clip_art.as_ref(), &names, args.set)?;
    let all = catalog.once(&mut fastrand::Rng::with_seed(args.seed));
    eprintln!("icons: {} concepts, {} drawings of them", catalog.concepts().count(), all.len());
    if let Some(folder) = &args.tokenizer {
        let labels = catalog.concepts().map(|concept| concept.label.as_str());
        return vocabulary::write(labels, args.vocab_size, folder);
    }
    if args.set == Part::Train {
        ensure!(args.folder.is_none(), "--folder: for the test sets; training reads the stream");
        return shard::write(args.skip, args.count, args.format, |number| {
            varied(&catalog, &args, number)
        });
    }
    let first = (args.skip as usize).min(all.len());
    let last = args.count.map_or(all.len(), |count| (first + count as usize).min(all.len()));
    match &args.folder {
        Some(folder) => write_folder(folder, &all[first..last], &args),
        None => {
            let count = (last - first) as u64;
            shard::write(first as u64, Some(count), args.format, |number| {
                let (concept, item) = all[number as usize];
                Ok((plain(item, &concept.label, args.side)?, concept.label.clone()))
            })
        }
    }
}

/// Picture number N of the training stream.
fn varied(catalog: &Catalog, args: &Args, number: u64) -> Result<(DynamicImage, String)> {
    let mut rng = shard::rng(args.seed, number);
    loop {
        let (concept, item) = catalog.pick(&mut rng);
        // An empty drawing, or one that resvg can't read, is passed over.
        if let Some(picture) = vary::varied(item, concept.limits, args.side, &mut rng)? {
            return Ok((picture, concept.label.clone()));
        }
    }
}

fn plain(item: &Item, label: &str, side: u32) -> Result<DynamicImage> {
    vary::plain(item, side)?.with_context(|| format!("the drawing of {label:?} is empty"))
}

/// Pictures and a table of their names, one row for each right name.
fn write_folder(folder: &Path, chosen: &[(&Concept, &Item)], args: &Args) -> Result<()> {
    std::fs::create_dir(folder).with_context(|| format!("{}: can't be made", folder.display()))?;
    chosen.par_iter().enumerate().try_for_each(|(number, (concept, item))| {
        let file = shard::encode(&plain(item, &concept.label, args.side)?, Format::Png)?;
        std::fs::write(folder.join(format!("{number:05}.png")), file)
            .context("can't write a picture")
    })?;
    let mut table = csv::Writer::from_path(folder.join("labels.csv"))?;
    table.write_record(["image", "text"])?;
    for (number, (concept, _)) in chosen.iter().enumerate() {
        let picture = format!("{number:05}.png");
        table.write_record([&picture, &concept.label])?;
        for keyword in concept.keywords.iter().filter(|_| args.keywords) {
            if *keyword != concept.label {
                table.write_record([&picture, keyword])?;
            }
        }
    }
    table.flush().context("can't write labels.csv")
}
