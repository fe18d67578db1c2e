//! candle's TrOCR as a side of the benchmark: greedy, in f32, on the CPU.
//!
//! ```text
//! bench-candle serve MODEL                             answers requests, a JSON object a line
//! bench-candle once MODEL IMAGE --beams 1 --tokens N   one text, then the peak memory on stderr
//! ```
//!
//! MODEL is a folder with config.json, model.safetensors, preprocessor_config.json and tokenizer.json.
//! RAYON_NUM_THREADS is the number of threads.

mod picture;
#[path = "../../protocol.rs"]
mod protocol;
mod reader;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;

use protocol::{Answer, Request};
use reader::Reader;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", model] => serve(Path::new(model)),
        ["once", model, image, "--beams", beams, "--tokens", tokens] => {
            let request = Request {
                images: vec![PathBuf::from(image)],
                beams: beams.parse().context("--beams")?,
                tokens: tokens.parse().context("--tokens")?,
                parts: false,
            };
            once(Path::new(model), &request)
        }
        _ => bail!("bench-candle serve MODEL | once MODEL IMAGE --beams 1 --tokens N"),
    }
}

fn serve(model: &Path) -> Result<()> {
    let mut reader = in_pool(|| Reader::open(model))?;
    let products = if candle_core::utils::has_mkl() { "MKL" } else { "gemm" };
    let version = format!(
        "candle {} with {products}, {} threads",
        env!("CARGO_PKG_VERSION"),
        candle_core::utils::get_num_threads()
    );
    let (requests, answers) = (std::io::stdin().lock(), std::io::stdout().lock());
    protocol::serve(version, requests, answers, |request| in_pool(|| answer(&mut reader, request)))
}

fn once(model: &Path, request: &Request) -> Result<()> {
    greedy_only(request)?;
    let text = in_pool(|| {
        let mut reader = Reader::open(model)?;
        let states = reader.encode(&request.images)?;
        let ids = reader.greedy(&states, request.tokens)?;
        reader.texts(&ids)?.pop().context("no text")
    })?;
    println!("{text}");
    std::io::stdout().flush()?;
    protocol::tell_peak();
    Ok(())
}

/// The threads that candle keeps for whole passes through a model.
fn in_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    Device::Cpu.with_context(work)
}

fn greedy_only(request: &Request) -> Result<()> {
    ensure!(request.beams == 1, "candle has no beam search");
    Ok(())
}

fn answer(reader: &mut Reader, request: &Request) -> Result<Answer> {
    greedy_only(request)?;
    let start = std::time::Instant::now();
    let states = reader.encode(&request.images)?;
    let ids = reader.greedy(&states, request.tokens)?;
    reader.texts(&ids)?;
    let whole_ms = protocol::ms(start);
    let ids = ids.into_iter().map(|ids| ids.into_iter().map(i64::from).collect()).collect();
    let mut answer = Answer { whole_ms, ids, ..Answer::default() };
    if request.parts {
        let pixels = reader.pixels(&request.images)?;
        let start = std::time::Instant::now();
        let states = reader.states(&pixels)?;
        answer.encoder_ms = protocol::ms(start);
        answer.step_ms = protocol::step(request.tokens, |tokens| {
            let start = std::time::Instant::now();
            reader.greedy(&states, tokens)?;
            Ok(protocol::ms(start))
        })?;
    }
    Ok(answer)
}
