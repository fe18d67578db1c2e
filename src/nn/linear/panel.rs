//! Products with a packed matrix, first of all of a few rows: what a decoding step consists of.
//!
//! With one row a product reads every weight once and does next to nothing with it, so its time is that
//! of reading memory. The general product of libtorch re-arranges the matrix at every call as soon as
//! there are two rows, which costs a second pass over it. Here the matrix lies in panels, once and for all:
//! panel p holds columns p·P to p·P+P of Wᵀ as [in][P], so that a core reads memory from one end to the
//! other. Weights may be narrower than f32; they are widened on the way, so that inputs, sums and results
//! stay f32. `few` does as many rows for each weight read as there are registers for, `many` more rows by
//! the matrix unit of the CPU, `tiled` as many as encoders have.

use std::sync::OnceLock;

use tch::{Kind, Tensor};

use super::bytes::{self, Bytes, MOST_INPUTS};
use super::digits::Inputs;
use super::number::{Aligned, Number};
use super::pack::pack;
use super::packing::Packing;
use super::paneled::Paneled;
use super::pieces::{Piece, edges, pieces};
use super::rounded::rounded;
use super::rows::Share;
use super::tiled::{self, Finish};
use super::unpack::{self, Whole};
use super::{Storage, few, many, other_kind, over_rows};
use crate::native::{
    self, Bf16, ByteProducts, F16, Lanes, Matrix, PairedBf16, Parts, TILE_INPUTS, Then,
};
use crate::nn::draft::is_draft;
use crate::nn::gelu::gelu;

/// A matrix [out, in] in panels.
pub struct Panels {
    data: Data,
    parts: Parts,
    /// What `Data::Bytes` takes.
    of_inputs: Inputs,
    inputs: usize,
    outputs: usize,
    /// Rounded to 8 bits, once somebody asked for that.
    rounded: OnceLock<Box<Panels>>,
}

enum Data {
    F32(Aligned<f32>),
    Bf16(Aligned<Bf16>),
    /// The same for many rows.
    PairedBf16(Aligned<PairedBf16>),
    F16(Aligned<F16>),
    /// A weight is the whole number times the scale of its output.
    Int8(Aligned<i8>, Vec<f32>),
    /// The same, where the CPU has products of such numbers and no matrix unit.
    Bytes(Bytes),
}

/// Rows from which on what is cut of the panels serves several blocks of them: more than three pairs.
const TILED: usize = 97;

/// Bytes of weights below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 16;

/// Bytes of a part where there are more parts than threads: at the beginning of each memory is slow to come.
const PART: usize = 1 << 18;

/// Into how many parts so many bytes of weights are divided. Several a thread: one that another process holds
/// up leaves its share to the others.
pub(super) fn parts_for(bytes: usize) -> usize {
    let threads = native::thread_count();
    let each = (bytes / WORTH_A_THREAD).clamp(1, threads);
    (bytes / PART).clamp(each, 4 * threads)
}

impl Data {
    /// What a product of several rows takes of the weights and of the inputs.
    fn parts(&self) -> Parts {
        match self {
            Data::F32(_) => f32::PARTS,
            Data::Bf16(_) | Data::PairedBf16(_) => Bf16::PARTS,
            Data::F16(_) => F16::PARTS,
            Data::Int8(..) | Data::Bytes(_) => i8::PARTS,
        }
    }

    /// Of panels of whole numbers and their scales.
    fn whole(numbers: Aligned<i8>, scales: Vec<f32>, inputs: usize) -> Data {
        match ByteProducts::here() {
            Some(unit) if !native::has_matrix_unit() && inputs <= MOST_INPUTS => {
                Data::Bytes(Bytes::new(unit, numbers, inputs, scales))
            }
            _ => Data::Int8(numbers, scales),
        }
    }
}

impl Panels {
    /// Packs W [out, in] (f32, CPU, any strides).
    pub fn pack(weight: &Tensor, packing: Packing) -> Self {
        Panels::pack_in_pieces(weight, packing, || ())
    }

    /// The same, with `between` called whenever a piece of W has been read and will not be soon again.
    pub fn pack_in_pieces(weight: &Tensor, packing: Packing, between: impl Fn()) -> Self {
        Panels::packed(weight, packing, false, between)
    }

    /// The same for more rows than a step of a decoder has.
    pub(super) fn pack_for_many(weight: &Tensor, packing: Packing, between: impl Fn()) -> Self {
        Panels::packed(weight, packing, true, between).for_many()
    }

    fn packed(weight: &Tensor, packing: Packing, many: bool, between: impl Fn()) -> Self {
        let (outputs, inputs) = weight.size2().expect("a matrix");
        let (outputs, inputs) = (outputs as usize, inputs as usize);
        let (stored, storage) = Storage::of(weight);
        let transposed = storage == Storage::InOut;
        let stored = stored.contiguous().to_kind(Kind::Float);
        let data = native::with_floats([&stored], |[values]| {
            let matrix = Matrix::dense(values, outputs, inputs, transposed);
            match packing {
                Packing::F32 => Data::F32(pack(matrix, None, between)),
                // Whole steps are read where they lie.
                Packing::Bf16
                    if many
                        && inputs.is_multiple_of(TILE_INPUTS)
                        && Parts::Single.here() == Parts::Single =>
                {
                    Data::PairedBf16(pack(matrix, None, between))
                }
                Packing::Bf16 => Data::Bf16(pack(matrix, None, between)),
                Packing::F16 => Data::F16(pack(matrix, None, between)),
                Packing::Int8 => {
                    let mut scales = vec![0.0; outputs];
                    Data::whole(pack(matrix, Some(&mut scales), between), scales, inputs)
                }
            }
        });
        let data = data.expect("f32 on the CPU");
        Panels::new(data, inputs, outputs)
    }

    fn new(data: Data, inputs: usize, outputs: usize) -> Self {
        let (parts, of_inputs) = (data.parts().here(), Inputs::Bits16);
        Panels { parts, of_inputs, data, inputs, outputs, rounded: OnceLock::new() }
    }

    /// What a draft computes with: itself, where its weights have 8 bits.
    fn rounded(&self) -> &Panels {
        let Panels { inputs, outputs, .. } = *self;
        let round: &dyn Fn() -> (Aligned<i8>, Vec<f32>) = match &self.data {
            Data::Int8(..) | Data::Bytes(_) => return self,
            Data::F32(weights) => &|| rounded(weights, inputs, outputs),
            Data::Bf16(weights) => &|| rounded(weights, inputs, outputs),
            Data::PairedBf16(weights) => &|| rounded(weights, inputs, outputs),
            Data::F16(weights) => &|| rounded(weights, inputs, outputs),
        };
        self.rounded.get_or_init(|| {
            let (numbers, scales) = round();
            Box::new(Panels::new(Data::whole(numbers, scales, inputs), inputs, outputs))
        })
    }

    /// For many rows: where bf16 holds whole numbers, the matrix unit takes no more of the inputs either.
    pub(super) fn for_many(self) -> Self {
        let parts = match self.data.parts() {
            Parts::Bf16 => Parts::Single.here(),
            parts => parts.here(),
        };
        Panels { parts, of_inputs: Inputs::Bits8, ..self }
    }

    /// What a product of many rows takes of numbers.
    pub(super) fn parts(&self) -> Parts {
        self.parts
    }

    /// What is kept, [out, in] in f32; None where that is whole numbers.
    pub(super) fn matrix(&self) -> Option<Tensor> {
        let size = [self.inputs, self.outputs];
        Some(match &self.data {
            Data::F32(weights) => unpack::panels(weights, size),
            Data::Bf16(weights) => unpack::panels(weights, size),
            Data::PairedBf16(weights) => unpack::panels(weights, size),
            Data::F16(weights) => unpack::panels(weights, size),
            Data::Int8(..) | Data::Bytes(_) => return None,
        })
    }

    /// The whole numbers that are kept.
    pub(super) fn whole(&self) -> Option<Whole<'_>> {
        match &self.data {
            Data::Int8(numbers, scales) => Some(Whole::Panels(numbers, scales, self.inputs)),
            Data::Bytes(bytes) => Some(Whole::Bytes(bytes)),
            _ => None,
        }
    }

    pub fn inputs(&self) -> i64 {
        self.inputs as i64
    }

    pub fn outputs(&self) -> i64 {
        self.outputs as i64
    }

    /// x·Wᵀ + b. x [.., in], b [out] -> [.., out], f32
    pub fn forward(&self, xs: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.then(xs, bias, Then::Nothing)
    }

    /// The same, and then `then`.
    pub(super) fn then(&self, xs: &Tensor, bias: Option<&Tensor>, then: Then) -> Tensor {
        let panels = if is_draft() { self.rounded() } else { self };
        let (others, of_bias) = (other_kind(xs), bias.and_then(other_kind));
        let (xs, bias) = (others.as_ref().unwrap_or(xs), of_bias.as_ref().or(bias));
        let done = over_rows(xs, self.outputs, bias, |xs, out, bias| {
            panels.product(xs, out, Finish { scales: None, bias, then }, false);
        });
        let done = done.expect("f32 on the CPU");
        let in_one = match panels.data {
            Data::Bytes(_) => true,
            _ => panels.is_for_tiles(xs.numel() / self.inputs),
        };
        if then == Then::Nothing || in_one {
            return done;
        }
        // Of few rows it is done apart.
        gelu(&done, then).unwrap_or(done)
    }

    /// True where a product divides so many rows among the threads, and does with it what follows. Not with a
    /// matrix unit, to which weights are cut anew in each task: its tasks are the larger the better.
    pub(super) fn divides_rows(&self, rows: usize) -> bool {
        let enough = match self.data {
            Data::Bytes(_) => rows >= TILED,
            _ => self.is_for_tiles(rows),
        };
        enough && !native::has_matrix_unit() && !is_draft()
    }

    /// How it divides them where so many numbers a row are kept between products.
    pub(super) fn share(&self, between: usize) -> Share {
        match self.data {
            Data::Bytes(_) => bytes::share(between),
            _ => tiled::SHARE,
        }
    }

    /// x·Wᵀ + b and `then`, by this thread alone, of some rows of as many as `Linear::for_rows` was told.
    /// xs [M, in], bias [out] -> out [M, out]
    pub fn alone(&self, xs: &[f32], bias: &[f32], then: Then, out: &mut [f32]) {
        self.product(xs, out, Finish { scales: None, bias: Some(bias), then }, true);
    }

    fn is_for_tiles(&self, rows: usize) -> bool {
        rows >= TILED && many::is_better(self.parts, rows)
    }

    /// `alone`: this thread does it all.
    fn product(&self, xs: &[f32], out: &mut [f32], finish: Finish, alone: bool) {
        match &self.data {
            Data::F32(weights) => self.by_rows(weights, xs, out, finish, alone),
            Data::Bf16(weights) => self.by_rows(weights, xs, out, finish, alone),
            Data::PairedBf16(weights) => self.by_rows(weights, xs, out, finish, alone),
            Data::F16(weights) => self.by_rows(weights, xs, out, finish, alone),
            Data::Int8(weights, scales) => {
                let finish = Finish { scales: Some(scales), ..finish };
                self.by_rows(weights, xs, out, finish, alone);
            }
            Data::Bytes(bytes) if alone => bytes.alone(self.of_inputs, xs, out, finish),
            Data::Bytes(bytes) => bytes.product(self.of_inputs, xs, out, finish),
        }
    }

    fn by_rows<T: Number>(
        &self,
        weights: &[T],
        xs: &[f32],
        out: &mut [f32],
        finish: Finish,
        alone: bool,
    ) {
        let Panels { parts, inputs, outputs, .. } = *self;
        let rows = xs.len() / inputs;
        let matrix = Matrix::dense(xs, rows, inputs, false);
        let panels = Paneled { weights, inputs, outputs };
        if alone {
            tiled::alone(matrix, panels, parts, finish, out);
        } else if self.is_for_tiles(rows) {
            tiled::product(matrix, panels, parts, finish, out);
        } else {
            self.spread(weights, finish.scales, xs, out, finish.bias);
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
        let parts = parts_for(size_of_val(weights)).min(panels);
        let pieces = pieces(out, &[0, xs.len() / inputs], &edges(outputs, width, parts));
        let part = |Piece { columns, out: rows, .. }| {
            let from = columns.start * inputs;
            let to = columns.end.div_ceil(width) * width * inputs;
            let scales = scales.map(|all| &all[columns.clone()]);
            let bias = bias.map(|all| &all[columns]);
            Part { weights: &weights[from..to], scales, bias, inputs, rows }
        };
        let tasks: Vec<Part<'_, T>> = pieces.into_iter().map(part).collect();
        if many::is_better(self.parts, xs.len() / inputs) {
            let rows = many::Rows::new(self.parts, xs, inputs);
            native::parallel(tasks, |part| native::vectorize(many::Many { part, rows: &rows }));
        } else {
            let lines = few::Lines { numbers: xs, apart: inputs, inputs };
            let rows = few::Rows::new(lines, xs.len() / inputs);
            native::parallel(tasks, |part| native::vectorize(few::Few { part, rows: &rows }));
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

/// The line that is fetched while line `k` is read.
#[inline(always)]
pub(super) const fn ahead<T, const P: usize>(k: usize) -> usize {
    k + native::AHEAD / size_of::<[T; P]>()
}

/// Line `k` of a panel as f32, while line `next`, perhaps behind its end, is fetched.
#[inline(always)]
pub(super) fn line<T: Number, L: Lanes, const P: usize>(
    lines: &[[T; P]],
    k: usize,
    next: usize,
) -> [f32; P] {
    native::prefetch(lines, next);
    T::line::<L, P>(lines, k)
}
