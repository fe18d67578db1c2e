//! Products with the matrices of an image: one a head, in panels.
#![allow(clippy::needless_range_loop)] // plain loops over fixed sizes become vectors

use tch::{Kind, Tensor};

use super::few::{Few, Lines, Rows};
use super::number::{Aligned, Bf16, F16, Number};
use super::pack::{panels, write};
use super::panel::{Packing, Part, parts_for};
use crate::native::{self, Heads, Lanes, Matrix, Vectorized, across, exp};

/// A matrix [out, in] for each of A heads.
pub struct Stack {
    data: Data,
    heads: usize,
    inputs: usize,
    outputs: usize,
}

enum Data {
    F32(Aligned<f32>),
    Bf16(Aligned<Bf16>),
    F16(Aligned<F16>),
}

impl Stack {
    /// One stack an image. matrices [B, A, out, in] (f32, CPU, any strides)
    ///
    /// What belongs to an image has no scale of its own, so where weights are whole numbers of 8 bits this
    /// is f16.
    pub fn pack(matrices: &Tensor, packing: Packing) -> Vec<Stack> {
        let size: Vec<usize> = matrices.size().iter().map(|size| *size as usize).collect();
        let &[images, heads, outputs, inputs] = size.as_slice() else {
            panic!("[B, A, out, in], not {size:?}")
        };
        if images == 0 {
            return Vec::new();
        }
        let matrices = matrices.to_kind(Kind::Float);
        let stride = matrices.stride();
        let transposed = stride[3] != 1 && stride[2] == 1;
        let stored = if transposed { matrices.transpose(-2, -1) } else { matrices };
        let stored = if stored.stride()[3] == 1 { stored } else { stored.contiguous() };
        let all = Heads::of(&stored).expect("f32 on the CPU");
        let one = |image: usize| {
            let matrix = |head: usize| {
                let stored = all.head(image, head);
                if transposed { stored.turned() } else { stored }
            };
            let matrices: Vec<Matrix<f32>> = (0..heads).map(matrix).collect();
            let data = match packing {
                Packing::F32 => Data::F32(pack(matrices)),
                Packing::Bf16 => Data::Bf16(pack(matrices)),
                Packing::F16 | Packing::Int8 => Data::F16(pack(matrices)),
            };
            Stack { data, heads, inputs, outputs }
        };
        (0..images).map(one).collect()
    }

    /// Each head's rows times the transpose of its matrix, image by image.
    /// xs [B, R, A, in] -> [B, R, A, out], f32
    pub fn product<'a>(
        stacks: impl ExactSizeIterator<Item = &'a Stack> + Clone,
        xs: &Tensor,
    ) -> Tensor {
        let size = xs.size();
        let outputs = stacks.clone().next().map_or(0, |first| first.outputs as i64);
        debug_assert_eq!(size[0], stacks.len() as i64);
        let out = Tensor::empty([size[0], size[1], size[2], outputs], (Kind::Float, xs.device()));
        if out.numel() == 0 {
            return out;
        }
        let xs = xs.to_kind(Kind::Float).contiguous();
        let rows = size[1] as usize;
        let done = native::with_floats([&xs, &out], |[xs, out]| {
            let all = stacks.clone();
            match all.clone().next().map(|first| &first.data) {
                Some(Data::F32(_)) => spread(all, Data::f32, rows, xs, out),
                Some(Data::Bf16(_)) => spread(all, Data::bf16, rows, xs, out),
                Some(Data::F16(_)) => spread(all, Data::f16, rows, xs, out),
                None => {}
            }
        });
        done.expect("contiguous f32 on the CPU");
        out
    }
}

/// softmax(q kᵀ · scale) v for the rows of B images. keys, of [S, d], and values, of [d, S], a stack an image;
/// q [B, R, A, d] -> [B, R, A, d], f32
pub fn attend<'a>(
    images: impl ExactSizeIterator<Item = [&'a Stack; 2]> + Clone,
    q: &Tensor,
    scale: f64,
) -> Tensor {
    let size = q.size();
    debug_assert_eq!(size[0], images.len() as i64);
    let out = Tensor::empty(&size, (Kind::Float, q.device()));
    if out.numel() == 0 {
        return out;
    }
    let (q, scale) = (q.to_kind(Kind::Float).contiguous(), scale as f32);
    let rows = size[1] as usize;
    let done = native::with_floats([&q, &out], |[q, out]| {
        let all = images.clone();
        match all.clone().next().map(|[keys, _]| &keys.data) {
            Some(Data::F32(_)) => attend_to(all, Data::f32, rows, q, scale, out),
            Some(Data::Bf16(_)) => attend_to(all, Data::bf16, rows, q, scale, out),
            Some(Data::F16(_)) => attend_to(all, Data::f16, rows, q, scale, out),
            None => {}
        }
    });
    done.expect("contiguous f32 on the CPU");
    out
}

/// Divides the heads of all images among the threads.
fn attend_to<'a, T: Number + 'a>(
    images: impl Iterator<Item = [&'a Stack; 2]>,
    numbers: fn(&Data) -> &[T],
    rows: usize,
    q: &[f32],
    scale: f32,
    out: &mut [f32],
) {
    let (mut heads, mut bytes) = (Vec::new(), 0);
    let (mut q, mut out) = (q, out);
    for [keys, values] in images {
        let Stack { heads: count, inputs: d, outputs: tokens, .. } = *keys;
        let (own, rest) = q.split_at(rows * count * d);
        let (places, others) = std::mem::take(&mut out).split_at_mut(own.len());
        (q, out) = (rest, others);
        let first = heads.len();
        for (head, (keys, values)) in keys.each(numbers).zip(values.each(numbers)).enumerate() {
            bytes += size_of_val(keys) + size_of_val(values);
            let q = Lines { numbers: &own[head * d..], apart: count * d, inputs: d };
            let out = Vec::with_capacity(rows);
            heads.push(Queries { keys, values, q, tokens, scale, out });
        }
        for (number, place) in places.chunks_exact_mut(d).enumerate() {
            heads[first + number % count].out.push(place);
        }
    }
    in_shares(heads, bytes, Queries::attend);
}

impl Stack {
    /// The matrix of each head.
    fn each<'a, T: 'a>(&'a self, numbers: fn(&Data) -> &[T]) -> impl Iterator<Item = &'a [T]> {
        let numbers = numbers(&self.data);
        numbers.chunks_exact((numbers.len() / self.heads).max(1))
    }
}

impl Data {
    fn f32(&self) -> &[f32] {
        if let Data::F32(numbers) = self { numbers } else { &[] }
    }

    fn bf16(&self) -> &[Bf16] {
        if let Data::Bf16(numbers) = self { numbers } else { &[] }
    }

    fn f16(&self) -> &[F16] {
        if let Data::F16(numbers) = self { numbers } else { &[] }
    }
}

/// The matrices of an image, of one size, one after the other, each in panels.
fn pack<T: Number>(matrices: Vec<Matrix<f32>>) -> Aligned<T> {
    let size = |first: &Matrix<f32>| panels(first) * native::panel_width() * first.inner;
    let size = matrices.first().map_or(0, size);
    let mut packed = Aligned::zeros(matrices.len() * size);
    let tasks = matrices.into_iter().zip(packed.chunks_exact_mut(size.max(1))).collect();
    native::parallel(tasks, |(matrix, target): (Matrix<f32>, &mut [T])| write(matrix, target));
    packed
}

/// Divides the heads of all images among the threads.
fn spread<'a, T: Number + 'a>(
    stacks: impl Iterator<Item = &'a Stack>,
    numbers: fn(&Data) -> &[T],
    rows: usize,
    xs: &[f32],
    out: &mut [f32],
) {
    let mut heads = Vec::new();
    let (mut xs, mut out) = (xs, out);
    for stack in stacks {
        let Stack { heads: count, inputs, outputs, .. } = *stack;
        let (own, rest) = xs.split_at(rows * count * inputs);
        let (places, others) = std::mem::take(&mut out).split_at_mut(rows * count * outputs);
        (xs, out) = (rest, others);
        let first = heads.len();
        for (head, weights) in stack.each(numbers).enumerate() {
            let rows = Vec::with_capacity(rows);
            let part = Part { weights, scales: None, bias: None, inputs, rows };
            let numbers = &own[head * inputs..];
            heads.push((part, Lines { numbers, apart: count * inputs, inputs }));
        }
        for (number, place) in places.chunks_exact_mut(outputs).enumerate() {
            heads[first + number % count].0.rows.push(place);
        }
    }
    let bytes = heads.iter().map(|(part, _)| size_of_val(part.weights)).sum();
    in_shares(heads, bytes, |(part, xs)| multiply(part, xs));
}

/// Does `work` for each head, several of them in a task: so many bytes of matrices are read.
fn in_shares<T: Send>(mut heads: Vec<T>, bytes: usize, work: impl Fn(T) + Send + Sync) {
    let share = heads.len().div_ceil(parts_for(bytes)).max(1);
    let mut shares = Vec::new();
    while !heads.is_empty() {
        let rest = heads.split_off(share.min(heads.len()));
        shares.push(std::mem::replace(&mut heads, rest));
    }
    native::parallel(shares, |heads| heads.into_iter().for_each(&work));
}

/// Rows times the transpose of a matrix, in this thread.
fn multiply<T: Number>(part: Part<T>, xs: Lines) {
    let rows = Rows::new(xs, part.rows.len());
    native::vectorize(Few { part, rows: &rows });
}

/// The rows of a head of an image that attend to its keys.
struct Queries<'a, T> {
    /// [S, d], in panels
    keys: &'a [T],
    /// [d, S], in panels
    values: &'a [T],
    q: Lines<'a>,
    tokens: usize,
    scale: f32,
    /// [d] each
    out: Vec<&'a mut [f32]>,
}

impl<T: Number> Queries<'_, T> {
    fn attend(self) {
        let Queries { keys, values, q, tokens, scale, out } = self;
        let (inputs, apart) = (q.inputs, tokens.next_multiple_of(native::panel_width()));
        let mut scores = vec![0f32; out.len() * apart];
        let rows = scores.chunks_exact_mut(apart).collect();
        multiply(Part { weights: keys, scales: None, bias: None, inputs, rows }, q);
        native::vectorize(Softmax { scores: &mut scores, apart, tokens, scale });
        let weights = Lines { numbers: &scores, apart, inputs: tokens };
        let part = Part { weights: values, scales: None, bias: None, inputs: tokens, rows: out };
        multiply(part, weights);
    }
}

/// Makes of each row of scores its softmax, times `scale` before; rows are filled up to whole lines.
struct Softmax<'a> {
    scores: &'a mut [f32],
    apart: usize,
    tokens: usize,
    scale: f32,
}

impl Vectorized for Softmax<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Softmax { scores, apart, tokens, scale } = self;
        for row in scores.chunks_exact_mut(apart) {
            let mut most = [f32::NEG_INFINITY; P];
            row[tokens..].fill(f32::NEG_INFINITY);
            let lines = row.as_chunks_mut::<P>().0;
            // Copies of lines: in place the compiler would do some of it one by one.
            for place in &mut *lines {
                let mut line = *place;
                for i in 0..P {
                    line[i] *= scale;
                    most[i] = if most[i] > line[i] { most[i] } else { line[i] };
                }
                *place = line;
            }
            let most = across(most, f32::max);
            let mut sums = [0f32; P];
            for place in &mut *lines {
                let mut line = *place;
                for i in 0..P {
                    line[i] = exp::<L>(line[i] - most);
                    sums[i] += line[i];
                }
                *place = line;
            }
            let share = 1.0 / across(sums, |a, b| a + b);
            for place in lines {
                for i in 0..P {
                    place[i] *= share;
                }
            }
        }
    }
}
