//! What the machine can do, and how near the products come to it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, no_grad};
use vedm::device::Dtype;
use vedm::native::{Layout, PackedMatrix, Then, has_operators};
use vedm::nn::linear::{int8_scales, whole_numbers};
use vedm::nn::{Init, Linear, Params, Store};
use vedm::ved;

use crate::spread::Spread;
use crate::worker::touch;

/// Inputs and outputs of products that take most of a decode step: GPT-2's and TrOCR's feed-forward and
/// output layers.
const SHAPES: [(i64, i64); 4] = [(768, 3072), (768, 50257), (1024, 4096), (1024, 50265)];

/// Rows of one step: images times beams.
const ROWS: [i64; 4] = [1, 4, 8, 32];

/// Inputs and outputs of the encoder's products (ViT-base), and its rows: a picture of 224, one of 384, four.
const ENCODER_SHAPES: [(i64, i64); 2] = [(768, 768), (768, 3072)];
const ENCODER_ROWS: [i64; 3] = [197, 577, 2308];

/// How long one figure is measured.
const PATIENCE: Duration = Duration::from_millis(150);

/// One product.
struct Product {
    dtype: String,
    rows: i64,
    inputs: i64,
    outputs: i64,
    /// Milliseconds of the layer, and of libtorch's own `linear` in f32.
    own: Spread,
    plain: Spread,
}

/// The machine's figures and those of the products.
pub(crate) struct Kernels {
    /// Numbers that are read and added up, GB/s.
    read: f64,
    /// Rows and columns of the square products.
    side: i64,
    /// Square products by number type, GFLOP/s.
    products: Vec<(&'static str, f64)>,
    layers: Vec<Product>,
}

/// Measures with `threads` threads; products of layers on the CPU alone, where they are vedm's own.
pub(crate) fn measure(dtypes: &[String], threads: usize, device: Device) -> Result<Kernels> {
    tch::set_num_threads(i32::try_from(threads)?);
    no_grad(|| {
        let floats = Tensor::rand([1 << 27], (Kind::Float, device));
        let seconds = time(|| touch(&floats.sum(Kind::Float))).least / 1e3;
        let read = floats.numel() as f64 * 4.0 / seconds / 1e9;
        drop(floats);
        let side = if device.is_cuda() { SIDE_OF_GPU } else { SIDE };
        let kinds = [("f32", Kind::Float), ("bf16", Kind::BFloat16), ("f16", Kind::Half)];
        let mut products = kinds.map(|(name, kind)| (name, square(side, (kind, device)))).to_vec();
        if device.is_cuda() {
            return Ok(Kernels { read, side, products, layers: Vec::new() });
        }
        if has_operators() {
            products.push(("int8", square_int8()?));
        }
        let mut layers = Vec::new();
        let decoder = SHAPES.map(|shape| (shape, ROWS.as_slice(), false));
        let encoder = ENCODER_SHAPES.map(|shape| (shape, ENCODER_ROWS.as_slice(), true));
        for ((inputs, outputs), sizes, many) in decoder.into_iter().chain(encoder) {
            let plain = Tensor::randn([outputs, inputs], (Kind::Float, Device::Cpu));
            for dtype in dtypes {
                let layer = layer(dtype, inputs, outputs, many)?;
                for &rows in sizes {
                    let xs = Tensor::randn([rows, inputs], (Kind::Float, Device::Cpu));
                    layers.push(Product {
                        dtype: dtype.clone(),
                        rows,
                        inputs,
                        outputs,
                        own: time(|| drop(layer.forward(&xs))),
                        plain: time(|| drop(xs.linear(&plain, None::<&Tensor>))),
                    });
                }
            }
        }
        Ok(Kernels { read, side, products, layers })
    })
}

/// A dense layer of a decoder, or (of `many` rows) of an encoder, as a model of this type has it.
fn layer(dtype: &str, inputs: i64, outputs: i64, many: bool) -> Result<Linear> {
    let dtype = Dtype::from_str(dtype, true).map_err(|reason| anyhow!("--dtype: {reason}"))?;
    let packing = ved::cpu_packing(dtype)?;
    let store = Rc::new(Store::fresh(Device::Cpu, Kind::Float).packing(packing));
    let root = Params::root(store);
    let place = if many { root.for_many_rows() } else { root };
    place.linear("layer", inputs, outputs, Init::Normal(0.02))
}

const SIDE: i64 = 1024;
const SIDE_OF_GPU: i64 = 8192;

/// GFLOP/s of a square product.
fn square(side: i64, (kind, device): (Kind, Device)) -> f64 {
    let matrix = || Tensor::randn([side, side], (Kind::Float, device)).to_kind(kind);
    let (a, b) = (matrix(), matrix());
    gflops(side, time(|| touch(&a.matmul(&b))))
}

/// The same of whole numbers of 8 bits, with the rounding of the one matrix that is not packed.
fn square_int8() -> Result<f64> {
    let side = || Tensor::randn([SIDE, SIDE], (Kind::Float, Device::Cpu));
    let (a, b) = (side(), side());
    let scales = int8_scales(&b);
    let numbers = whole_numbers(&b, &scales);
    let packed = PackedMatrix::pack(Layout::int8(), &numbers, Some(&scales), None)?;
    drop(packed.product(&a, Then::Nothing)?);
    Ok(gflops(SIDE, time(|| drop(packed.product(&a, Then::Nothing)))))
}

fn gflops(side: i64, time: Spread) -> f64 {
    2.0 * (side as f64).powi(3) / time.least / 1e6
}

/// Milliseconds of `work`, again and again for a while.
fn time(mut work: impl FnMut()) -> Spread {
    work();
    let start = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < 3 || start.elapsed() < PATIENCE {
        let start = Instant::now();
        work();
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let nothing = Spread { median: f64::NAN, least: f64::NAN, greatest: f64::NAN };
    Spread::of(&samples).unwrap_or(nothing)
}

impl Product {
    /// Times faster than plain f32.
    fn ratio(&self) -> f64 {
        self.plain.median / self.own.median
    }
}

impl Kernels {
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!("memory: {:.1} GB/s read", self.read)];
        for (name, speed) in &self.products {
            let side = self.side;
            lines.push(format!("products of {side} x {side} matrices, {name}: {speed:.0} GFLOP/s"));
        }
        if self.layers.is_empty() {
            return lines.join("\n");
        }
        lines.push(format!(
            "{:<18}{:>6}{:>6}{:>12}{:>16}{:>14}",
            "layer", "dtype", "rows", "ms", "plain f32, ms", "times better"
        ));
        for layer in &self.layers {
            lines.push(format!(
                "{:<18}{:>6}{:>6}{:>12.3}{:>16.3}{:>14.2}",
                format!("{} -> {}", layer.inputs, layer.outputs),
                layer.dtype,
                layer.rows,
                layer.own.median,
                layer.plain.median,
                layer.ratio()
            ));
        }
        lines.join("\n")
    }

    pub(crate) fn to_json(&self) -> Value {
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "inputs": layer.inputs, "outputs": layer.outputs, "dtype": layer.dtype,
                    "rows": layer.rows, "ms": layer.own.median, "ms_min": layer.own.least,
                    "plain_f32_ms": layer.plain.median, "times_better": layer.ratio(),
                })
            })
            .collect();
        let products: Vec<Value> = self
            .products
            .iter()
            .map(|(dtype, speed)| json!({ "dtype": dtype, "gflops": speed }))
            .collect();
        json!({ "read_gb_per_s": self.read, "products": products, "layers": layers })
    }
}
