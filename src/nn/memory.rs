//! What cross-attention keeps of the images: their keys and values.

use std::rc::Rc;

use tch::{Device, Tensor};

use super::attention::attend;
use super::cache::KeyValue;
use super::flash::States;
use super::linear::{Absorbed, Packing, Stack, attend_packed};

/// Keys and values of B images. Their rows, of beams and of several tokens, line up as R queries an image.
pub enum Memory {
    /// [B, A, S, d] each. Nobody else may hold these tensors: they are changed in place when images leave.
    Plain(KeyValue),
    /// In the form that few queries are fastest with, and as narrow as the weights. Gradients do not pass.
    Packed(Vec<Rc<Image>>),
    /// The states themselves, and the projections that are absorbed.
    Absorbed(Vec<Rc<States>>, Rc<Absorbed>),
}

/// Keys and values of one image.
pub struct Image {
    /// [A, S, d]
    keys: Stack,
    /// [A, d, S]
    values: Stack,
}

impl Memory {
    /// Keys and values [B, A, S, d] each, packed if `packing` says how.
    pub fn new(key: &Tensor, value: &Tensor, packing: Option<Packing>) -> Self {
        match packing {
            Some(packing) if key.device() == Device::Cpu => {
                let keys = Stack::pack(key, packing);
                let values = Stack::pack(&value.transpose(-2, -1), packing);
                let image = |(keys, values)| Rc::new(Image { keys, values });
                Memory::Packed(keys.into_iter().zip(values).map(image).collect())
            }
            _ => Memory::Plain(KeyValue { key: key.contiguous(), value: value.contiguous() }),
        }
    }

    /// B
    pub fn images(&self) -> i64 {
        match self {
            Memory::Plain(all) => all.key.size()[0],
            Memory::Packed(images) => images.len() as i64,
            Memory::Absorbed(images, _) => images.len() as i64,
        }
    }

    /// The same images for a second cache.
    pub fn share(&self) -> Self {
        match self {
            Memory::Plain(all) => Memory::Plain(all.share()),
            Memory::Packed(images) => Memory::Packed(images.clone()),
            Memory::Absorbed(images, weights) => Memory::Absorbed(images.clone(), weights.clone()),
        }
    }

    /// Keeps `images`, in this order. `lent`: another cache reads the same tensors.
    pub fn keep(&mut self, images: &[i64], lent: bool) {
        match self {
            Memory::Plain(all) => all.keep(images, lent),
            Memory::Packed(all) => *all = kept(all, images),
            Memory::Absorbed(all, _) => *all = kept(all, images),
        }
    }

    /// softmax(q kᵀ · scale) v. q [B, R, A, d] -> [B, R, A, d]
    pub fn attend(&self, q: &Tensor, scale: f64, dropout: f64) -> Tensor {
        match self {
            Memory::Plain(all) => {
                attend(&q.transpose(1, 2), &all.key, &all.value, None, scale, dropout)
                    .transpose(1, 2)
            }
            Memory::Packed(images) => {
                let images = images.iter().map(|image| [&image.keys, &image.values]);
                attend_packed(images, q, scale).to_kind(q.kind())
            }
            Memory::Absorbed(images, weights) => {
                let size = q.size();
                let (b, rows, heads) = (size[0], size[1], size[2]);
                let together = [1, b * rows, heads, -1];
                let queries = weights.queries(&q.reshape(together)).reshape([b, rows * heads, -1]);
                let context = States::attend(images, &queries, scale); // [B, R·A, De]
                weights.values(&context.reshape(together)).reshape(size)
            }
        }
    }

    /// What `attend` weighs the values by: softmax(q kᵀ · scale). q [B, R, A, d] -> [B, R, A, S], f32
    ///
    /// # Panics
    /// Where projections are absorbed: nobody looks on there.
    pub fn probabilities(&self, q: &Tensor, scale: f64) -> Tensor {
        use tch::Kind::Float;
        let scores = match self {
            Memory::Plain(all) => {
                let q = q.to_kind(Float).transpose(1, 2);
                (q.matmul(&all.key.to_kind(Float).transpose(2, 3)) * scale).transpose(1, 2)
            }
            Memory::Packed(images) => {
                Stack::product(images.iter().map(|image| &image.keys), &(q * scale))
            }
            Memory::Absorbed(..) => unreachable!("keys are made for those who look on"),
        };
        scores.softmax(-1, Float)
    }
}

/// Those of `all` that `images` names.
fn kept<T>(all: &[Rc<T>], images: &[i64]) -> Vec<Rc<T>> {
    images.iter().map(|image| all[*image as usize].clone()).collect()
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::nn::attention::tests::waves;

    /// Packed keys and values give what plain ones of their number type give, for one query and many.
    #[test]
    fn packed_images_are_attended_to_like_plain_ones() {
        let types = [
            (Packing::F32, Kind::Float),
            (Packing::Bf16, Kind::BFloat16),
            (Packing::F16, Kind::Half),
            (Packing::Int8, Kind::Half),
        ];
        for (packing, kind) in types {
            for (b, heads, s, d, rows) in [(1, 1, 1, 1, 1), (3, 2, 37, 8, 4), (2, 12, 197, 64, 13)]
            {
                // As they come out of a projection: heads beside each other.
                let part = |step| waves([b, s, heads, d], step).transpose(1, 2);
                let (key, value) = (part(0.37), part(0.73));
                let kept = |xs: &Tensor| xs.to_kind(kind).to_kind(Kind::Float);
                let plain = Memory::new(&kept(&key), &kept(&value), None);
                let packed = Memory::new(&key, &value, Some(packing));
                assert_eq!(packed.images(), b);
                let q = waves([b, rows, heads, d], 0.19);
                let scale = (d as f64).powf(-0.5);
                let near = |found: Tensor, expected: Tensor| {
                    let error = f64::try_from((found - expected).abs().max()).expect("a number");
                    assert!(error < 2e-6, "{packing:?} {s}x{d}, {rows} rows: {error}");
                };
                near(packed.attend(&q, scale, 0.0), plain.attend(&q, scale, 0.0));
                near(packed.probabilities(&q, scale), plain.probabilities(&q, scale));
            }
        }
    }

    #[test]
    fn images_leave_and_change_places() {
        let (key, value) = (waves([4, 2, 5, 3], 0.3), waves([4, 2, 5, 3], 0.7));
        let q = waves([4, 2, 2, 3], 0.9); // [B, R, A, d]
        let all = Memory::new(&key, &value, Some(Packing::F32));
        let expected = all.attend(&q, 0.5, 0.0);
        let mut some = all.share();
        some.keep(&[3, 1], true);
        assert_eq!((some.images(), all.images()), (2, 4));
        let index = Tensor::from_slice(&[3i64, 1]);
        let found = some.attend(&q.index_select(0, &index), 0.5, 0.0);
        assert_eq!(found, expected.index_select(0, &index));
        some.keep(&[], false);
        assert_eq!(some.attend(&q.narrow(0, 0, 0), 0.5, 0.0).size(), [0, 2, 2, 3]);
    }
}
