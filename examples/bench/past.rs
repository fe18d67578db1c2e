//! What remembering costs a decode step, as the tokens grow: the cache beside plain concatenation.

use std::time::Instant;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, no_grad};
use vedm::nn::{Cache, KeyValue, Memory};

use crate::spread::Spread;

/// GPT-2's layers and the rows of one image with four beams.
const LAYERS: usize = 12;
const ROWS: i64 = 4;
const HEADS: i64 = 12;
const SIZE: i64 = 64;

/// Tokens that are out already.
const PASTS: [i64; 4] = [32, 128, 512, 1024];

/// Steps that are measured after each past.
const STEPS: usize = 24;

/// Milliseconds of one step, without attention itself: a new token's keys and values are remembered by all
/// layers, then beams change places.
pub(crate) struct Step {
    past: i64,
    own: Spread,
    plain: Spread,
}

/// Every past in turn, one thread's worth of work.
pub(crate) fn measure() -> Vec<Step> {
    no_grad(|| {
        let steps = PASTS.iter().filter_map(|past| {
            Some(Step {
                past: *past,
                own: Spread::of(&own(*past))?,
                plain: Spread::of(&plain(*past))?,
            })
        });
        steps.collect()
    })
}

/// One and the same token of all layers, keys or values: [N, A, t, d]
fn tokens(t: i64) -> Tensor {
    Tensor::rand([ROWS, HEADS, t, SIZE], (Kind::Float, Device::Cpu))
}

/// Beams as they mostly go on: two of the four from one parent.
fn parents(step: usize) -> [i64; ROWS as usize] {
    if step.is_multiple_of(2) { [0, 0, 1, 2] } else { [1, 0, 2, 3] }
}

fn own(past: i64) -> Vec<f64> {
    let mut cache = Cache::new(LAYERS);
    let remember = |cache: &mut Cache, xs: &Tensor| {
        for index in 0..LAYERS {
            let (layer, _) = cache.layer(index);
            // The image, whose beams these are.
            layer.cross.get_or_insert_with(|| {
                let image = || Tensor::zeros([1, HEADS, 1, SIZE], (Kind::Float, Device::Cpu));
                Memory::Plain(KeyValue { key: image(), value: image() })
            });
            layer.append(xs.shallow_clone(), xs.shallow_clone());
        }
        cache.advance(xs.size()[2]);
    };
    remember(&mut cache, &tokens(past));
    let new = tokens(1);
    // Room is made, and all beams come from one.
    for step in 0..8 {
        remember(&mut cache, &new);
        cache.reorder(&parents(step));
    }
    let step = |step: usize| {
        let start = Instant::now();
        remember(&mut cache, &new);
        cache.reorder(&parents(step));
        start.elapsed().as_secs_f64() * 1e3
    };
    (0..STEPS).map(step).collect()
}

fn plain(past: i64) -> Vec<f64> {
    let mut layers: Vec<Tensor> = (0..2 * LAYERS).map(|_| tokens(past)).collect();
    let new = tokens(1);
    let mut step = |step: usize| {
        let start = Instant::now();
        let rows = Tensor::from_slice(&parents(step));
        for xs in &mut layers {
            *xs = Tensor::cat(&[&*xs, &new], 2).index_select(0, &rows);
        }
        start.elapsed().as_secs_f64() * 1e3
    };
    step(0);
    (0..STEPS).map(step).collect()
}

impl Step {
    pub(crate) fn text(steps: &[Step]) -> String {
        let mut lines = vec![format!(
            "{:<24}{:>12}{:>16}{:>14}",
            "keys and values, past", "ms a step", "joined anew, ms", "times better"
        )];
        for Step { past, own, plain } in steps {
            let better = plain.median / own.median;
            lines.push(format!(
                "{past:<24}{:>12.3}{:>16.3}{better:>14.2}",
                own.median, plain.median
            ));
        }
        lines.join("\n")
    }

    pub(crate) fn to_json(&self) -> Value {
        let Step { past, own, plain } = self;
        json!({
            "past": past, "ms": own.median, "ms_min": own.least, "joined_anew_ms": plain.median,
        })
    }
}
