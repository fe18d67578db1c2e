//! Products of a few rows with a packed matrix: what a decoding step consists of.
//!
//! With one row a product reads every weight once and does next to nothing with it, so its time is that
//! of reading memory. The general product of libtorch re-arranges the matrix at every call as soon as
//! there are two rows, which costs a second pass over it. Here the matrix lies in panels, once and for all:
//! panel p holds columns p·P to p·P+P of Wᵀ as [in][P], so that a core reads memory from one end to the
//! other. Weights may be narrower than f32; they are widened on the way, so that inputs, sums and results
//! stay f32. `few` does as many rows for each weight read as there are registers for, `many` more rows by
//! the matrix unit of the CPU.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::number::{Aligned, Bf16, F16, Number};
use super::{Storage, few, int8_scales, many, over_rows};
use crate::native::{self, Lanes, Vectorized};

/// A matrix [out, in] in panels.
pub struct Panels {
    data: Data,
    inputs: usize,
    outputs: usize,
}

enum Data {
    F32(Aligned<f32>),
    Bf16(Aligned<Bf16>),
    F16(Aligned<F16>),
    /// A weight is the whole number times the scale of its output.
    Int8(Aligned<i8>, Vec<f32>),
}

/// What the weights of a packed matrix are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    F32,
    Bf16,
    F16,
    /// Whole numbers of 8 bits with a scale for each output.
    Int8,
}

impl Packing {
    /// The type that is fastest on this CPU of those that leave texts as they are in f32.
    ///
    /// f16 has 11 bits of a weight, and the matrix unit takes it as the sum of two bf16; on other CPUs it
    /// gains little, and packing takes longer.
    pub fn auto() -> Self {
        if many::is_served() { Packing::F16 } else { Packing::F32 }
    }

    /// An error, in a sentence, where this CPU or this build does not serve the type.
    pub fn check(self) -> Result<()> {
        if self == Packing::F32 {
            return Ok(());
        }
        ensure!(
            native::has_operators(),
            "this vedm was built without libtorch's headers, so a CPU is served in f32 alone; use \
             --dtype f32"
        );
        match self {
            Packing::Bf16 => ensure!(
                native::has_bf16(),
                "this CPU does not multiply bf16 itself (it lacks AVX512_BF16) and would be slower than \
                 in f32; use --dtype f16, int8 or f32"
            ),
            _ => ensure!(
                native::has_avx2(),
                "this CPU lacks AVX2, without which f16 and int8 are not served; use --dtype f32"
            ),
        }
        Ok(())
    }
}

/// Bytes of a matrix that are read at a time while it is packed.
const PIECE: usize = 32 << 20;

/// Bytes of weights below which a second thread costs more than it brings.
pub(super) const WORTH_A_THREAD: usize = 1 << 16;

impl Panels {
    /// Packs W [out, in] (f32, CPU, any strides).
    pub fn pack(weight: &Tensor, packing: Packing) -> Self {
        Panels::pack_in_pieces(weight, packing, || ())
    }

    /// The same, with `between` called whenever a piece of W has been read and will not be soon again.
    pub fn pack_in_pieces(weight: &Tensor, packing: Packing, between: impl Fn()) -> Self {
        let (outputs, inputs) = weight.size2().expect("a matrix");
        let (outputs, inputs) = (outputs as usize, inputs as usize);
        let (stored, storage) = Storage::of(weight);
        let transposed = storage == Storage::InOut;
        let stored = stored.contiguous().to_kind(Kind::Float);
        let scales = (packing == Packing::Int8).then(|| {
            let rows = PIECE / (inputs * size_of::<f32>()).max(1);
            // Stored as [in, out], rows do not lie together.
            let rows = if transposed { outputs } else { rows };
            let scales = weight.split(rows.max(1) as i64, 0).into_iter().map(|rows| {
                let scales = int8_scales(&rows).to_kind(Kind::Float);
                between();
                Vec::<f32>::try_from(scales).expect("a number for each output")
            });
            scales.collect::<Vec<_>>().concat()
        });
        let data = native::with_floats([&stored], |[values]| {
            let source = Source { values, inputs, outputs, transposed };
            match (packing, scales) {
                (Packing::Bf16, _) => Data::Bf16(source.pack(None, between)),
                (Packing::F16, _) => Data::F16(source.pack(None, between)),
                (Packing::Int8, Some(scales)) => {
                    Data::Int8(source.pack(Some(&scales), between), scales)
                }
                _ => Data::F32(source.pack(None, between)),
            }
        });
        Panels { data: data.expect("f32 on the CPU"), inputs, outputs }
    }

    pub fn inputs(&self) -> i64 {
        self.inputs as i64
    }

    pub fn outputs(&self) -> i64 {
        self.outputs as i64
    }

    /// x·Wᵀ + b. x [.., in], b [out] -> [.., out], f32
    pub fn forward(&self, xs: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let bias = bias.map(|bias| bias.to_kind(Kind::Float));
        let xs = xs.to_kind(Kind::Float);
        let done = over_rows(&xs, self.outputs, bias.as_ref(), |xs, out, bias| {
            self.product(xs, out, bias);
        });
        done.expect("f32 on the CPU")
    }

    fn product(&self, xs: &[f32], out: &mut [f32], bias: Option<&[f32]>) {
        match &self.data {
            Data::F32(weights) => self.spread(weights, None, xs, out, bias),
            Data::Bf16(weights) => self.spread(weights, None, xs, out, bias),
            Data::F16(weights) => self.spread(weights, None, xs, out, bias),
            Data::Int8(weights, scales) => self.spread(weights, Some(scales), xs, out, bias),
        }
    }

    /// Divides the panels among the threads.
    fn spread<T: Number>(
        &self,
        weights: &[T],
        scales: Option<&[f32]>,
        xs: &[f32],
        out: &mut [f32],
        bias: Option<&[f32]>,
    ) {
        let (inputs, outputs, width) = (self.inputs, self.outputs, native::panel_width());
        let panels = outputs.div_ceil(width);
        // Several parts a thread: one that another process holds up leaves its share to the others.
        let most = 4 * tch::get_num_threads().max(1) as usize;
        let parts = (size_of_val(weights) / WORTH_A_THREAD).clamp(1, most).min(panels);
        let border = |part: usize| (panels * part / parts * width).min(outputs);
        let mut tasks: Vec<Part<'_, T>> = (0..parts)
            .map(|part| {
                let columns = border(part)..border(part + 1);
                let from = columns.start * inputs;
                let to = columns.end.div_ceil(width) * width * inputs;
                Part {
                    weights: &weights[from..to],
                    scales: scales.map(|all| &all[columns.clone()]),
                    bias: bias.map(|all| &all[columns.clone()]),
                    inputs,
                    rows: Vec::with_capacity(xs.len() / inputs),
                }
            })
            .collect();
        for mut row in out.chunks_exact_mut(outputs) {
            for (part, task) in tasks.iter_mut().enumerate() {
                let (own, rest) = row.split_at_mut(border(part + 1) - border(part));
                task.rows.push(own);
                row = rest;
            }
        }
        if many::is_better(T::PARTS, xs.len() / inputs) {
            let rows = many::Rows::new(T::PARTS, xs, inputs);
            native::parallel(tasks, |part| native::vectorize(many::Many { part, rows: &rows }));
        } else {
            let rows = few::Rows::new(xs, inputs);
            native::parallel(tasks, |part| native::vectorize(few::Few { part, rows: &rows }));
        }
    }
}

/// What `pack` reads.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub values: &'a [f32],
    pub inputs: usize,
    pub outputs: usize,
    /// True: `values` is [in, out]. False: [out, in].
    pub transposed: bool,
}

impl Source<'_> {
    /// -> panels of [in][P], of numbers divided by the scale of their output; the last one is filled up with
    /// zeros.
    fn pack<T: Number>(&self, scales: Option<&[f32]>, between: impl Fn()) -> Aligned<T> {
        let size = native::panel_width() * self.inputs;
        let mut packed = Aligned::zeros(self.panels() * size);
        let mut panels: Vec<(usize, &mut [T])> = packed.chunks_mut(size).enumerate().collect();
        let piece = (PIECE / (size * size_of::<f32>())).max(1);
        while !panels.is_empty() {
            let rest = panels.split_off(piece.min(panels.len()));
            native::parallel(std::mem::replace(&mut panels, rest), |(panel, target)| {
                self.panel(panel, target, scales);
            });
            between();
        }
        packed
    }

    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(native::panel_width())
    }

    /// Writes a panel into `target` [in][P].
    pub(super) fn panel<T: Number>(&self, panel: usize, target: &mut [T], scales: Option<&[f32]>) {
        native::vectorize(Pack { source: *self, panel, target, scales });
    }
}

/// Writes a panel.
struct Pack<'a, T> {
    source: Source<'a>,
    panel: usize,
    target: &'a mut [T],
    scales: Option<&'a [f32]>,
}

impl<T: Number> Vectorized for Pack<'_, T> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Source { values, inputs, outputs, transposed } = self.source;
        let columns = self.panel * P..((self.panel + 1) * P).min(outputs);
        let mut scales = [1f32; P];
        if let Some(all) = self.scales {
            scales[..columns.len()].copy_from_slice(&all[columns.clone()]);
        }
        let mut line = [0f32; P];
        for (input, target) in self.target.as_chunks_mut::<P>().0.iter_mut().enumerate() {
            if transposed {
                let own = &values[input * outputs..][columns.clone()];
                line[..own.len()].copy_from_slice(own);
            } else {
                for (place, output) in line.iter_mut().zip(columns.clone()) {
                    *place = values[output * inputs + input];
                }
            }
            let mut scaled = line;
            if self.scales.is_some() {
                scaled.iter_mut().zip(&scales).for_each(|(x, scale)| *x /= scale);
            }
            *target = T::narrow::<L, P>(scaled);
        }
    }
}

/// The panels of one thread, and the places of its results.
pub(super) struct Part<'a, T> {
    pub weights: &'a [T],
    pub scales: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub inputs: usize,
    /// The part's columns of each row.
    pub rows: Vec<&'a mut [f32]>,
}

impl<T> Part<'_, T> {
    pub(super) fn panels<const P: usize>(&self) -> usize {
        self.weights.len() / (P * self.inputs)
    }

    /// Panel `panel`: a line for each input.
    #[inline(always)]
    pub(super) fn panel<const P: usize>(&self, panel: usize) -> &[[T; P]] {
        &self.weights.as_chunks::<P>().0[panel * self.inputs..][..self.inputs]
    }

    /// Puts the sums of a row over panel `panel` where they belong.
    #[inline(always)]
    pub(super) fn put<const P: usize>(&mut self, row: usize, panel: usize, sums: &[f32; P]) {
        let row = &mut self.rows[row];
        let columns = panel * P..((panel + 1) * P).min(row.len());
        for ((place, sum), column) in row[columns.clone()].iter_mut().zip(sums).zip(columns) {
            let scaled = self.scales.map_or(*sum, |scales| sum * scales[column]);
            *place = self.bias.map_or(scaled, |bias| scaled + bias[column]);
        }
    }
}

/// Bytes ahead of the one in use that the core is told to fetch: its own foresight ends at a page.
const AHEAD: usize = 2048;

/// Line `k` of a panel as f32, while one further on is fetched.
#[inline(always)]
pub(super) fn line<T: Number, L: Lanes, const P: usize>(lines: &[[T; P]], k: usize) -> [f32; P] {
    native::prefetch(lines, k + AHEAD / size_of::<[T; P]>());
    T::widen::<L, P>(&lines[k])
}
