//! Products with the matrices of an image: one a head, in panels.

use tch::{Kind, Tensor};

use super::few::{Few, Lines, Rows};
use super::number::{Aligned, Bf16, F16, Number};
use super::pack::{panels, write};
use super::panel::{Packing, Part, parts_for};
use crate::native::{self, Heads, Matrix};

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
        let numbers = numbers(&stack.data);
        for (head, weights) in numbers.chunks_exact(numbers.len() / count).enumerate() {
            let rows = Vec::with_capacity(rows);
            let part = Part { weights, scales: None, bias: None, inputs, rows };
            heads.push((part, Lines { numbers: own, first: head, apart: count, inputs }));
        }
        for (number, place) in places.chunks_exact_mut(outputs).enumerate() {
            heads[first + number % count].0.rows.push(place);
        }
    }
    let bytes: usize = heads.iter().map(|(part, _)| size_of_val(part.weights)).sum();
    let share = heads.len().div_ceil(parts_for(bytes));
    let mut shares = Vec::new();
    while !heads.is_empty() {
        let rest = heads.split_off(share.min(heads.len()));
        shares.push(std::mem::replace(&mut heads, rest));
    }
    native::parallel(shares, |heads| {
        for (part, xs) in heads {
            let rows = Rows::new(xs, part.rows.len());
            native::vectorize(Few { part, rows: &rows });
        }
    });
}
