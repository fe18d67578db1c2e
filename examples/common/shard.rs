//! What the generators of training data share: numbered samples, drawn in parallel and written in order
//! as a tar stream of `KEY.png` and `KEY.txt` pairs (a WebDataset shard).

use std::io::{BufWriter, Cursor, ErrorKind, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use image::codecs::pnm::{PnmEncoder, PnmSubtype, SampleEncoding};
use image::{DynamicImage, ImageFormat};
use rayon::prelude::*;

/// How pictures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Without compression: the fastest through a pipe
    Pnm,
    Png,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Format::Pnm => "pnm",
            Format::Png => "png",
        }
    }
}

/// Samples drawn in parallel before they are written.
const CHUNK: u64 = 256;

/// Draws with so many threads instead of one a core.
pub(crate) fn limit_threads(threads: Option<usize>) -> Result<()> {
    match threads {
        Some(threads) => Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?),
        None => Ok(()),
    }
}

/// The generator of one sample: a function of the seed and of the sample's number.
pub(crate) fn rng(seed: u64, number: u64) -> fastrand::Rng {
    // SplitMix64's step keeps neighbouring numbers from giving similar generators.
    let mixed = (number ^ seed.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    fastrand::Rng::with_seed(mixed ^ (mixed >> 31))
}

/// Writes the samples from `skip` on, `count` of them or without end, to standard output. Ends quietly
/// when nobody reads on.
pub(crate) fn write(
    skip: u64,
    count: Option<u64>,
    format: Format,
    sample: impl Fn(u64) -> Result<(DynamicImage, String)> + Sync,
) -> Result<()> {
    let end = count.map_or(u64::MAX, |count| skip.saturating_add(count));
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, std::io::stdout()));
    let mut first = skip;
    while first < end {
        let last = end.min(first.saturating_add(CHUNK));
        let samples: Vec<Result<(Vec<u8>, String)>> = (first..last)
            .into_par_iter()
            .map(|number| {
                let (picture, label) = sample(number)?;
                Ok((encode(&picture, format)?, label))
            })
            .collect();
        for (number, sample) in (first..last).zip(samples) {
            let (picture, label) = sample?;
            let written =
                append(&mut tar, &format!("{number:09}.{}", format.extension()), &picture)
                    .and_then(|()| append(&mut tar, &format!("{number:09}.txt"), label.as_bytes()));
            match written {
                // Whoever reads has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
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

/// The file of a picture.
pub(crate) fn encode(picture: &DynamicImage, format: Format) -> Result<Vec<u8>> {
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
