//! Times the products that models consist of, in every form that vedm knows, at the sizes of real models.
//!
//!     cargo run --release --example kernels -- [ROWS,..] [IN]x[OUT],.. [THREADS]
//!
//! Copies of each matrix take turns, more than the caches hold, as the layers of a model do. A figure is the
//! best of several rounds, in milliseconds, and beside it the gigabytes of weights read in a second (few
//! rows) or the billions of operations (many).

use std::time::Instant;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};
use vedm::native::{Layout, PackedMatrix, Then, tune_allocator};
use vedm::nn::Packing;
use vedm::nn::linear::{Panels, int8_scales, whole_numbers};

/// Bytes that a form's copies take together.
const TOTAL: i64 = 240_000_000;

/// Rounds of which the best counts.
const ROUNDS: usize = 7;

/// One product with one matrix.
type Run = Box<dyn Fn(&Tensor)>;

/// One way to compute a product: a name, bytes a weight, and a run over copy i.
struct Form {
    name: &'static str,
    bytes: i64,
    copies: Vec<Run>,
}

fn main() -> Result<()> {
    tune_allocator();
    let mut args = std::env::args().skip(1);
    let rows = args.next().unwrap_or("1,2,4,8,16,32,64,197,577".to_string());
    let rows: Vec<i64> = numbers(&rows, ',')?;
    let sizes = args.next().unwrap_or("768x768,768x3072,3072x768,256x1024,768x50257".to_string());
    let sizes: Vec<Vec<i64>> =
        sizes.split(',').map(|size| numbers(size, 'x')).collect::<Result<_>>()?;
    if let Some(threads) = args.next() {
        tch::set_num_threads(threads.parse().context("a number of threads")?);
    }
    let _guard = tch::no_grad_guard();
    for size in sizes {
        let &[inputs, outputs] = size.as_slice() else { anyhow::bail!("a size is INxOUT") };
        let forms = forms(inputs, outputs);
        for &rows in &rows {
            let xs = Tensor::randn([rows, inputs], (Kind::Float, Device::Cpu));
            print!("{inputs}x{outputs} rows {rows}:");
            for (form, best) in forms.iter().zip(measure(&forms, &xs)) {
                let weights = (inputs * outputs) as f64;
                let rate = if rows < 32 {
                    weights * form.bytes as f64
                } else {
                    2.0 * weights * rows as f64
                };
                print!("  {} {:.3} ({:.0})", form.name, best * 1e3, rate / best / 1e9);
            }
            println!();
        }
    }
    Ok(())
}

fn numbers(text: &str, separator: char) -> Result<Vec<i64>> {
    text.split(separator).map(|part| part.parse().with_context(|| format!("{part:?}"))).collect()
}

/// The forms take turns within a round, so that all of them see the same noise.
fn measure(forms: &[Form], xs: &Tensor) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; forms.len()];
    for _ in 0..ROUNDS {
        for (form, best) in forms.iter().zip(&mut best) {
            let start = Instant::now();
            form.copies.iter().for_each(|run| run(xs));
            *best = best.min(start.elapsed().as_secs_f64() / form.copies.len() as f64);
        }
    }
    best
}

fn forms(inputs: i64, outputs: i64) -> Vec<Form> {
    let draw = || Tensor::randn([outputs, inputs], (Kind::Float, Device::Cpu)) * 0.02;
    let mut forms = Vec::new();
    let mut add = |name, bytes: i64, make: &dyn Fn(Tensor) -> Result<Run>| {
        let count = (TOTAL / (inputs * outputs * bytes)).max(1);
        match (0..count).map(|_| make(draw())).collect() {
            Ok(copies) => forms.push(Form { name, bytes, copies }),
            Err(error) => eprintln!("{name}: {error}"),
        }
    };
    add("linear", 4, &|weight| Ok(Box::new(move |xs| drop(xs.linear(&weight, None::<&Tensor>)))));
    add("mm", 4, &|weight| {
        let weight = weight.tr().contiguous();
        Ok(Box::new(move |xs| drop(xs.matmul(&weight))))
    });
    for (name, bytes, packing) in [
        ("panels-f32", 4, Packing::F32),
        ("panels-bf16", 2, Packing::Bf16),
        ("panels-f16", 2, Packing::F16),
        ("panels-int8", 1, Packing::Int8),
    ] {
        add(name, bytes, &|weight| {
            let panels = Panels::pack(&weight, packing);
            Ok(Box::new(move |xs| drop(panels.forward(xs, None))))
        });
    }
    for (name, bytes, layout) in [
        ("onednn-bf16", 2, Layout::OneDnn),
        ("fbgemm-f16", 2, Layout::F16),
        ("fbgemm-int8", 1, Layout::Int8Fbgemm),
        ("onednn-int8", 1, Layout::Int8OneDnn),
    ] {
        let kind = if layout == Layout::OneDnn { Kind::BFloat16 } else { Kind::Float };
        add(name, bytes, &|weight| {
            let scales = int8_scales(&weight);
            let numbers = match layout {
                Layout::Int8Fbgemm | Layout::Int8OneDnn => whole_numbers(&weight, &scales),
                _ => weight.to_kind(kind),
            };
            let packed = PackedMatrix::pack(layout, &numbers, Some(&scales), None)?;
            let ones = Tensor::ones([1, inputs], (kind, Device::Cpu));
            drop(packed.product(&ones, Then::Nothing)?);
            Ok(Box::new(move |xs| {
                let product = packed.product(&xs.to_kind(kind), Then::Nothing);
                drop(product.expect("it ran before").to_kind(Kind::Float));
            }))
        });
    }
    forms
}
