//! Cross-attention to the states themselves: the projection of the keys is absorbed into the queries, and that of
//! the values into the result (DeepSeek-AI 2024, DeepSeek-V2, section 2.1.2).
//!
//! A head's score of a state s is q·(W_K s) = (W_Kᵀ q)·s, and what it makes of the states Σ p·(W_V s) = W_V Σ p·s.
//! The bias of the keys adds the same to all scores of a query, which changes no probability.

use std::rc::Rc;

use tch::Tensor;

use super::number::Aligned;
use super::pack::size_of_matrix;
use super::unpack::Whole;
use super::{Joined, Packing, Stack};
use crate::native;

/// The projections of keys and values of A heads.
pub struct Absorbed {
    /// W_Kᵀ, [De, d] a head
    key: Stack,
    /// W_V, [d, De] a head
    value: Stack,
    /// What the whole numbers of either stand for, [A, d] each, where they are such.
    scales: Option<[Tensor; 2]>,
    /// [A, d]
    bias: Option<Tensor>,
}

impl Joined {
    /// The same layers, of keys and values, to be absorbed; made at the first call. None where their weights are
    /// kept in a form of libtorch's own.
    pub fn absorbed(&self, heads: i64, packing: Packing) -> Option<Rc<Absorbed>> {
        let made = self.absorbed.get_or_init(|| Absorbed::of(self, heads, packing).map(Rc::new));
        made.clone()
    }
}

impl Absorbed {
    fn of(layers: &Joined, heads: i64, packing: Packing) -> Option<Self> {
        debug_assert_eq!(layers.parts, 2, "keys and values");
        let (first, last) = (layers.layers.first()?, layers.layers.last()?);
        // In one matrix values follow keys.
        let is_one = layers.layers.len() == 1;
        let bias = last
            .bias
            .as_ref()
            .map(|bias| if is_one { half(bias, 1) } else { bias.shallow_clone() });
        let bias = bias.map(|bias| bias.unflatten(0, [heads, -1]));
        if let (Some(key), Some(value)) = (first.whole(), last.whole()) {
            let (inputs, outputs) = (last.inputs() as usize, last.outputs() as usize);
            let outputs = if is_one { outputs / 2 } else { outputs };
            let layers = [(key, 0), (value, if is_one { outputs } else { 0 })];
            return Some(Absorbed::of_whole(layers, [heads as usize, outputs, inputs], bias));
        }
        let (key, value) = (first.matrix()?, last.matrix()?);
        let [key, value] = if is_one { [half(&key, 0), half(&value, 1)] } else { [key, value] };
        let by_head = |xs: &Tensor| xs.unflatten(0, [heads, -1]).unsqueeze(0); // [1, A, d, De]
        let key = Stack::pack(&by_head(&key).transpose(-2, -1), packing).pop()?;
        let value = Stack::pack(&by_head(&value), packing).pop()?;
        Some(Absorbed { key, value, scales: None, bias })
    }

    /// Of the whole numbers [A·d, De] of keys and of values, each from some row on. As they are: the scales of keys
    /// go to the queries, those of values to the result.
    fn of_whole(
        [keys, values]: [(Whole, usize); 2],
        [heads, outputs, states]: [usize; 3],
        bias: Option<Tensor>,
    ) -> Self {
        let (d, width) = (outputs / heads, native::panel_width());
        let of_key = size_of_matrix(states, d);
        let of_value = size_of_matrix(d, states);
        let mut key = Aligned::lasting(heads * of_key);
        let mut value = Aligned::lasting(heads * of_value);
        let mut scales = [vec![0f32; outputs], vec![0f32; outputs]];
        let [key_scales, value_scales] = &mut scales;
        let targets = key.chunks_exact_mut(of_key).zip(value.chunks_exact_mut(of_value));
        let scales_of = key_scales.chunks_exact_mut(d).zip(value_scales.chunks_exact_mut(d));
        let tasks = targets.zip(scales_of).enumerate().collect();
        native::parallel(tasks, |(head, ((key, value), scales))| {
            let mut row = vec![0i8; states];
            for (j, (of_key, of_value)) in scales.0.iter_mut().zip(scales.1).enumerate() {
                let output = head * d + j;
                *of_key = keys.0.row(keys.1 + output, &mut row);
                for (panel, line) in row.chunks(width).enumerate() {
                    key[(panel * d + j) * width..][..line.len()].copy_from_slice(line);
                }
                *of_value = values.0.row(values.1 + output, &mut row);
                let place = j / width * states * width + j % width;
                for (place, number) in value[place..].iter_mut().step_by(width).zip(&row) {
                    *place = *number;
                }
            }
        });
        Absorbed {
            key: Stack::of_whole(key, [heads, states, d]),
            value: Stack::of_whole(value, [heads, d, states]),
            scales: Some(
                scales.map(|scales| Tensor::from_slice(&scales).reshape([heads as i64, d as i64])),
            ),
            bias,
        }
    }

    /// What attends to states: q [1, N, A, d] -> [1, N, A, De], f32
    pub fn queries(&self, q: &Tensor) -> Tensor {
        let product = |q: &Tensor| Stack::product([&self.key].into_iter(), q);
        match &self.scales {
            Some([scales, _]) => product(&(q * scales)),
            None => product(q),
        }
    }

    /// What is made of the states that were attended to: context [1, N, A, De] -> [1, N, A, d], f32
    pub fn values(&self, context: &Tensor) -> Tensor {
        let values = Stack::product([&self.value].into_iter(), context);
        match (&self.scales, &self.bias) {
            (None, None) => values,
            (None, Some(bias)) => values + bias,
            (Some([_, scales]), None) => values * scales,
            (Some([_, scales]), Some(bias)) => bias.addcmul(&values, scales),
        }
    }
}

/// One of two halves of its rows.
fn half(xs: &Tensor, which: i64) -> Tensor {
    let rows = xs.size()[0] / 2;
    xs.narrow(0, which * rows, rows)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::super::tests::{kept, largest, waves};
    use super::super::{Linear, Panels, Storage, Weights};
    use super::*;
    use crate::nn::params::Init;
    use crate::nn::{Params, Store};

    const HEADS: i64 = 3;
    const SIZE: i64 = 8;
    const WIDTH: i64 = 37;

    /// W [2·A·d, De] as each packing keeps it, in one layer and in two.
    fn joined(weight: &Tensor, bias: Option<&Tensor>, packing: Packing) -> [Joined; 2] {
        let layer = |weights: Weights, bias: Option<Tensor>| Linear { weights, bias };
        let packed = |weight: &Tensor| Weights::Panels(Panels::pack(weight, packing).for_many());
        let one = layer(packed(weight), bias.map(Tensor::shallow_clone));
        let weights = weight.chunk(2, 0);
        let biases = bias.map(|bias| bias.chunk(2, 0));
        let half = |i: usize| {
            let bias = biases.as_ref().map(|biases| biases[i].shallow_clone());
            layer(Weights::Plain(kept(&weights[i], packing), Storage::OutIn), bias)
        };
        [Joined::one(one, 2), Joined::new(vec![half(0), half(1)], 2)]
    }

    #[test]
    fn queries_and_values_are_those_of_the_projections() {
        let weight = waves(&[2 * HEADS * SIZE, WIDTH], 0.37);
        let bias = waves(&[2 * HEADS * SIZE], 0.7);
        let q = waves(&[1, 5, HEADS, SIZE], 0.3);
        let context = waves(&[1, 5, HEADS, WIDTH], 0.2);
        for packing in [Packing::F32, Packing::Bf16, Packing::F16, Packing::Int8] {
            let [key, value]: [Tensor; 2] = kept(&weight, packing)
                .unflatten(0, [2, HEADS, SIZE])
                .unbind(0)
                .try_into()
                .expect("two"); // [A, d, De]
            let queries = Tensor::einsum("bnad,ade->bnae", &[&q, &key], None::<i64>);
            let values = Tensor::einsum("bnae,ade->bnad", &[&context, &value], None::<i64>);
            for bias in [None, Some(&bias)] {
                let values = match bias {
                    None => values.shallow_clone(),
                    Some(bias) => &values + bias.unflatten(0, [2, HEADS, SIZE]).get(1),
                };
                for layers in joined(&weight, bias, packing) {
                    let absorbed = layers.absorbed(HEADS, packing).expect("weights of our own");
                    // Of a plain matrix there are no whole numbers: it is kept in f16 then.
                    let in_f16 = packing == Packing::Int8 && absorbed.scales.is_none();
                    let bound = if in_f16 { 5e-3 } else { 1e-5 };
                    assert_eq!(in_f16, packing == Packing::Int8 && layers.layers.len() == 2);
                    assert!(largest(&(absorbed.queries(&q) - &queries)) < bound, "{packing:?}");
                    assert!(largest(&(absorbed.values(&context) - &values)) < bound, "{packing:?}");
                }
            }
        }
    }

    /// What whole numbers stand for, output by output.
    fn rows(whole: &Whole, weight: &Tensor) -> Tensor {
        let mut row = vec![0i8; weight.size()[1] as usize];
        let row = |output| {
            let scale = whole.row(output as usize, &mut row);
            Tensor::from_slice(&row).to_kind(Kind::Float) * f64::from(scale)
        };
        Tensor::stack(&(0..weight.size()[0]).map(row).collect::<Vec<_>>(), 0)
    }

    /// Of one panel and several, and of widths that fill none.
    #[test]
    fn packed_matrices_are_told_as_they_are_kept() {
        for packing in [Packing::F32, Packing::Bf16, Packing::F16, Packing::Int8] {
            for (inputs, outputs) in [(1, 1), (7, 31), (64, 96), (301, 200)] {
                let weight = waves(&[outputs, inputs], 0.37);
                let panels = Panels::pack(&weight, packing);
                let found = panels
                    .matrix()
                    .unwrap_or_else(|| rows(&panels.whole().expect("whole numbers"), &weight));
                assert_eq!(found.size(), weight.size());
                let error = largest(&(found - kept(&weight, packing)));
                let bound = if packing == Packing::Int8 { 1e-6 } else { 0.0 };
                assert!(error <= bound, "{packing:?} {inputs}x{outputs}: {error:e}");
            }
        }
    }

    #[test]
    fn variables_are_absorbed_as_they_are() {
        let store = Store::fresh(Device::Cpu, Kind::Float);
        let p = Params::root(std::rc::Rc::new(store));
        let layers = [("k_proj", true), ("v_proj", true)];
        let layers =
            p.joined(&layers, WIDTH, HEADS * SIZE, Init::Normal(0.1)).expect("drawn layers");
        let absorbed = layers.absorbed(HEADS, Packing::F32).expect("plain weights");
        let q = waves(&[1, 1, HEADS, SIZE], 0.3);
        let states = waves(&[4, WIDTH], 0.9);
        let [key, _]: [Tensor; 2] = layers.forward(&states);
        let by_keys = (q.flatten(0, 3) * key).unflatten(1, [HEADS, SIZE]).sum_dim_intlist(
            [2i64].as_slice(),
            false,
            Kind::Float,
        ); // [S, A]
        let scores = states.matmul(&absorbed.queries(&q).flatten(0, 2).tr());
        assert!(largest(&(scores - by_keys)) < 1e-5, "drawn biases are zero");
    }
}
