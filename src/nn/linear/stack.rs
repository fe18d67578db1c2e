//! Products with the matrices of an image: one a head, in panels.
#![allow(clippy::needless_range_loop)] // plain loops over fixed sizes become vectors

use tch::{Kind, Tensor};

use super::few::{Few, Lines, Rows};
use super::number::{Aligned, Number};
use super::pack::{size_of_matrix, write};
use super::packing::Packing;
use super::panel::{Part, parts_for};
use super::{other_kind, over_rows};
use crate::native::{self, Bf16, F16, Heads, Lanes, Matrix, Vectorized, across, exp};

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
    /// Whole numbers, whose scales are whoever's who asks.
    Int8(Aligned<i8>),
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

    /// Of whole numbers that lie in panels: [out, in] for each of A heads.
    pub(super) fn of_whole(numbers: Aligned<i8>, [heads, outputs, inputs]: [usize; 3]) -> Stack {
        debug_assert_eq!(numbers.len(), heads * size_of_matrix(outputs, inputs));
        Stack { data: Data::Int8(numbers), heads, inputs, outputs }
    }

    /// Each head's rows times the transpose of its matrix, image by image.
    /// xs [B, R, A, in] -> [B, R, A, out], f32
    pub fn product<'a>(
        stacks: impl ExactSizeIterator<Item = &'a Stack> + Clone,
        xs: &Tensor,
    ) -> Tensor {
        let rows = xs.size()[1] as usize;
        let Some(first) = stacks.clone().next() else { return xs.zeros_like() };
        debug_assert_eq!(xs.size()[0], stacks.len() as i64);
        over(xs, first.outputs, |xs, out| match first.data {
            Data::F32(_) => spread(stacks, Data::f32, rows, xs, out),
            Data::Bf16(_) => spread(stacks, Data::bf16, rows, xs, out),
            Data::F16(_) => spread(stacks, Data::f16, rows, xs, out),
            Data::Int8(_) => spread(stacks, Data::int8, rows, xs, out),
        })
    }
}

/// Lends `work` the numbers of xs and the places of the results. xs [.., in] -> [.., out], f32
fn over(xs: &Tensor, outputs: usize, work: impl FnOnce(&[f32], &mut [f32])) -> Tensor {
    let others = other_kind(xs);
    let xs = others.as_ref().unwrap_or(xs);
    let done = over_rows(xs, outputs, None, |xs, out, _| work(xs, out));
    done.expect("f32 on the CPU")
}

/// softmax(q kᵀ · scale) v for the rows of B images. keys, of [S, d], and values, of [d, S], a stack an image;
/// q [B, R, A, d] -> [B, R, A, d], f32
pub fn attend<'a>(
    images: impl ExactSizeIterator<Item = [&'a Stack; 2]> + Clone,
    q: &Tensor,
    scale: f64,
) -> Tensor {
    let (rows, scale) = (q.size()[1] as usize, scale as f32);
    let Some([keys, _]) = images.clone().next() else { return q.zeros_like() };
    debug_assert_eq!(q.size()[0], images.len() as i64);
    over(q, keys.inputs, |q, out| match keys.data {
        Data::F32(_) => attend_to(images, Data::f32, rows, q, scale, out),
        Data::Bf16(_) => attend_to(images, Data::bf16, rows, q, scale, out),
        Data::F16(_) => attend_to(images, Data::f16, rows, q, scale, out),
        Data::Int8(_) => attend_to(images, Data::int8, rows, q, scale, out),
    })
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
    let mut images = images.peekable();
    let Some([first, _]) = images.peek() else { return };
    let tokens = first.outputs;
    let rows = by_head(rows, first.heads, q, out, [first.inputs; 2]);
    let matrices = images.flat_map(|[keys, values]| keys.each(numbers).zip(values.each(numbers)));
    let heads = matrices.zip(rows).map(|((keys, values), (q, out))| Queries {
        keys,
        values,
        q,
        tokens,
        scale,
        out,
    });
    let heads: Vec<_> = heads.collect();
    let bytes = heads.iter().map(|head| size_of_val(head.keys) + size_of_val(head.values)).sum();
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

    fn int8(&self) -> &[i8] {
        if let Data::Int8(numbers) = self { numbers } else { &[] }
    }
}

/// The matrices of an image, of one size, one after the other, each in panels.
fn pack<T: Number>(matrices: Vec<Matrix<f32>>) -> Aligned<T> {
    let size = matrices.first().map_or(0, |first| size_of_matrix(first.rows, first.inner));
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
    let mut stacks = stacks.peekable();
    let Some(first) = stacks.peek() else { return };
    let inputs = first.inputs;
    let rows = by_head(rows, first.heads, xs, out, [inputs, first.outputs]);
    let matrices = stacks.flat_map(|stack| stack.each(numbers));
    let heads = matrices.zip(rows).map(|(weights, (xs, rows))| {
        (Part { weights, scales: None, bias: None, inputs, rows }, xs)
    });
    let heads: Vec<_> = heads.collect();
    let bytes = heads.iter().map(|(part, _)| size_of_val(part.weights)).sum();
    in_shares(heads, bytes, |(part, xs)| multiply(part, xs));
}

/// What each head of each image reads and writes: R rows. xs [B, R, A, in], out [B, R, A, out] -> [B·A]
fn by_head<'a>(
    rows: usize,
    heads: usize,
    xs: &'a [f32],
    out: &'a mut [f32],
    [inputs, outputs]: [usize; 2],
) -> Vec<(Lines<'a>, Vec<&'a mut [f32]>)> {
    let mut found = Vec::with_capacity(xs.len() / (rows * inputs).max(1));
    let images = xs.chunks_exact(rows * heads * inputs);
    for (xs, out) in images.zip(out.chunks_exact_mut(rows * heads * outputs)) {
        let first = found.len();
        for head in 0..heads {
            let xs = Lines { numbers: &xs[head * inputs..], apart: heads * inputs, inputs };
            found.push((xs, Vec::with_capacity(rows)));
        }
        for (number, place) in out.chunks_exact_mut(outputs).enumerate() {
            found[first + number % heads].1.push(place);
        }
    }
    found
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
