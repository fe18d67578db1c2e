//! The side of vedm: the reader of the command line, measured.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use tch::{Kind, Tensor, no_grad};
use vedm::image::{Pixels, decode};
use vedm::pipeline::{Input, Reader, stack};
use vedm::ved::generation::{GenerationConfig, Hooks, generate};

use crate::protocol::{self, Answer, Request, ms};

/// Opens the model of a command line of `vedm caption` and answers requests until there are no more.
pub(crate) fn serve(
    args: Vec<OsString>,
    requests: impl BufRead,
    answers: impl Write,
) -> Result<()> {
    let mut reader = vedm::cli::reader(args)?;
    let version = format!("vedm {}", env!("CARGO_PKG_VERSION"));
    protocol::serve(version, requests, answers, |request| measure(&mut reader, request))
}

fn measure(reader: &mut Reader, request: &Request) -> Result<Answer> {
    reader.batch_size = request.images.len();
    let usual = reader.generation.clone();
    reader.generation = with_tokens(&usual, request.tokens, request.beams);
    let mut ids = Vec::new();
    let inputs: Vec<Input> = request.images.iter().cloned().map(Input::file).collect();
    let start = Instant::now();
    reader.run(inputs.into_iter(), |record| {
        let best = record.outcome?.sequences.into_iter().next().context("no text")?;
        ids.push(best.token_ids);
        Ok(())
    })?;
    let whole_ms = ms(start);
    let mut answer = Answer { whole_ms, ids, ..Answer::default() };
    if request.parts {
        (answer.encoder_ms, answer.step_ms) = parts(reader, request)?;
    }
    reader.generation = usual;
    Ok(answer)
}

/// (the encoder over the batch, one decode step), in milliseconds.
fn parts(reader: &Reader, request: &Request) -> Result<(f64, f64)> {
    let pixels =
        request.images.iter().map(|path| pixels(reader, path)).collect::<Result<Vec<_>>>()?;
    let model = &reader.model;
    let pixel_values = stack(&pixels.iter().collect::<Vec<_>>()); // [B, C, H, W]
    let pixel_values = pixel_values.to_device(model.device()).to_kind(model.kind());
    let start = Instant::now();
    let states = no_grad(|| model.project(&model.encode(&pixel_values, false))); // [B, S, Dd]
    touch(&states);
    let encoder = ms(start);

    let prompt = Tensor::from_slice(&reader.prompt).to_device(model.device());
    let prompt = prompt.unsqueeze(0).repeat([pixels.len() as i64, 1]);
    let decode = |tokens: i64| -> Result<f64> {
        let config = with_tokens(&reader.generation, tokens, request.beams);
        let hooks = Hooks { drafts: model.drafts, ..Hooks::default() };
        let start = Instant::now();
        generate(model.decoder.as_ref(), &states, &prompt, &config, &hooks)?;
        Ok(ms(start))
    };
    Ok((encoder, protocol::step(request.tokens, decode)?))
}

/// Waits for the device, until there is one number of these.
pub(crate) fn touch(numbers: &Tensor) {
    let _ = numbers.flatten(0, -1).narrow(0, 0, 1).sum(Kind::Float).double_value(&[]);
}

/// As the model sees the picture.
pub(crate) fn pixels(reader: &Reader, path: &Path) -> Result<Pixels> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {path:?}"))?;
    reader.processor.image_processor.process(&decode(&bytes, &reader.decode)?.image)
}

fn with_tokens(config: &GenerationConfig, tokens: i64, beams: i64) -> GenerationConfig {
    GenerationConfig {
        num_beams: beams,
        max_new_tokens: Some(tokens),
        min_new_tokens: Some(tokens),
        ..config.clone()
    }
}
