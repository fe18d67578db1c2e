use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::joined::together;
use super::*;
use crate::native::Parts;
use crate::nn::Store;
use crate::nn::draft::Draft;
use crate::nn::precision::Autocast;
use crate::nn::store::Missing;

/// Numbers of all sizes and both signs, the same at every run.
pub(in crate::nn) fn waves(size: &[i64], step: f64) -> Tensor {
    let count = size.iter().product::<i64>();
    let numbers = (Tensor::arange(count, (Kind::Double, Device::Cpu)) + 1.0) * step;
    numbers.sin().reshape(size).to_kind(Kind::Float)
}

pub(in crate::nn) fn largest(xs: &Tensor) -> f64 {
    f64::try_from(xs.abs().max()).expect("a number")
}

/// W as the packing keeps it, in libtorch's arithmetic.
pub(super) fn kept(weight: &Tensor, packing: Packing) -> Tensor {
    match packing {
        Packing::F32 => weight.shallow_clone(),
        Packing::Bf16 => weight.to_kind(Kind::BFloat16).to_kind(Kind::Float),
        Packing::F16 => weight.to_kind(Kind::Half).to_kind(Kind::Float),
        Packing::Int8 => {
            let scales = weight.abs().amax([1], true) / 127.0;
            (weight / &scales).round() * scales
        }
    }
}

#[test]
fn panels_give_the_product_of_what_they_keep() {
    // Widths around those of a panel, one part and several, more rows than are done at once.
    let sizes = [(1, 1), (3, 15), (40, 32), (33, 100), (256, 1000), (768, 257)];
    for packing in [Packing::F32, Packing::Bf16, Packing::F16, Packing::Int8] {
        for (inputs, outputs) in sizes {
            let weight = waves(&[outputs, inputs], 0.37) * 0.5;
            let bias = waves(&[outputs], 1.3);
            let exact = kept(&weight, packing).to_kind(Kind::Double);
            // The same matrix as `nn.Linear` and as GPT-2's `Conv1D` store it.
            for stored in [weight.shallow_clone(), weight.tr().contiguous().tr()] {
                let panels = Panels::pack(&stored, packing);
                assert_eq!((panels.inputs(), panels.outputs()), (inputs, outputs));
                for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 21, 37, 81, 130] {
                    let xs = waves(&[rows, inputs], 0.11);
                    let expected = xs.to_kind(Kind::Double).matmul(&exact.tr());
                    let found = panels.forward(&xs, None);
                    assert_eq!(found.size(), [rows, outputs]);
                    let rounding = 1e-6 * (inputs as f64).sqrt().max(1.0) * 2.0;
                    // Products of tiles keep 17 bits of an input, but in f32, and in bf16 as many as of a weight.
                    let inputs_kept = match packing {
                        _ if rows < 13 || !native::has_tiles() => 0.0,
                        Packing::F32 => 0.0,
                        Packing::Bf16 => 2f64.powi(-8),
                        Packing::F16 | Packing::Int8 => 2f64.powi(-17),
                    };
                    let largest_sum =
                        largest(&xs.to_kind(Kind::Double).abs().matmul(&exact.abs().tr()));
                    let mut scale = rounding + inputs_kept * largest_sum;
                    if packing == Packing::Int8 {
                        // Whole numbers of 16 bits may stand for inputs, by the largest of a row.
                        let reach = exact.abs().sum_dim_intlist(1, false, Kind::Double);
                        scale += 2f64.powi(-16) * largest(&reach);
                    }
                    let error = largest(&(&found - &expected));
                    assert!(error < scale, "{packing:?} {inputs}x{outputs} M{rows}: {error}");
                    if rows < 13 {
                        // Whatever is computed beside it.
                        let alone = panels.forward(&xs.narrow(0, rows - 1, 1), None);
                        assert_eq!(found.narrow(0, rows - 1, 1), alone, "{packing:?} M{rows}");
                    }
                    let added = panels.forward(&xs, Some(&bias));
                    assert!(largest(&(added - expected - &bias)) < scale, "{packing:?} bias");
                }
            }
        }
    }
}

#[test]
fn a_draft_computes_with_8_bits_of_what_is_kept() {
    for packing in [Packing::F32, Packing::Bf16, Packing::F16, Packing::Int8] {
        for (inputs, outputs) in [(1, 1), (3, 15), (33, 100), (256, 1000)] {
            let weight = waves(&[outputs, inputs], 0.37) * 0.5;
            let _ = weight.get(outputs / 2).zero_();
            let panels = Panels::pack(&weight, packing);
            let rounded =
                Panels::pack(&kept(&weight, packing).nan_to_num(0.0, 0.0, 0.0), Packing::Int8);
            let bias = waves(&[outputs], 1.3);
            for rows in [1, 5] {
                let xs = waves(&[rows, inputs], 0.11);
                let whole = panels.forward(&xs, Some(&bias));
                let draft = Draft::begin();
                let found = panels.forward(&xs, Some(&bias));
                drop(draft);
                if packing != Packing::Int8 {
                    assert_eq!(found, rounded.forward(&xs, Some(&bias)), "{packing:?}");
                }
                assert_eq!(panels.forward(&xs, Some(&bias)), whole);
                if inputs > 1 {
                    assert_eq!(found == whole, packing == Packing::Int8, "{packing:?}");
                }
            }
        }
    }
}

/// A matrix of 68 MB is read in pieces, between which its memory may be given back.
#[test]
fn a_large_matrix_is_packed_in_pieces() {
    let weight = waves(&[17001, 1000], 0.37);
    let xs = waves(&[2, 1000], 0.11);
    for packing in [Packing::F32, Packing::Int8] {
        let calls = std::cell::Cell::new(0);
        let panels = Panels::pack_in_pieces(&weight, packing, || calls.set(calls.get() + 1));
        assert_eq!(calls.get(), 2);
        let expected = xs.matmul(&kept(&weight, packing).tr());
        assert!(largest(&(panels.forward(&xs, None) - expected)) < 1e-3);
    }
}

#[test]
fn panels_keep_leading_sizes_and_take_views() {
    let weight = waves(&[48, 20], 0.7);
    let panels = Panels::pack(&weight, Packing::F32);
    let xs = waves(&[2, 20, 3], 0.3).transpose(1, 2); // [2, 3, 20], not contiguous
    let found = panels.forward(&xs, None);
    assert_eq!(found.size(), [2, 3, 48]);
    assert!(largest(&(found - xs.matmul(&weight.tr()))) < 1e-5);
    assert_eq!(panels.forward(&xs.narrow(0, 0, 0), None).size(), [0, 3, 48]);
}

/// A store over the tensors of another, by name.
pub(in crate::nn) fn again(first: &Rc<Store>, packing: Packing) -> Rc<Store> {
    let variables = first.variables();
    let keys = variables.iter().map(|variable| variable.name.clone()).collect();
    let lookup = move |key: &str| {
        let found = variables.iter().find(|variable| variable.name == key).expect("a known key");
        Ok(found.tensor.shallow_clone())
    };
    let store = Store::new(keys, Box::new(lookup), Missing::Refuse, Device::Cpu, Kind::Float);
    Rc::new(store.packing(packing))
}

/// A layer of each kind. -> results of all of them for `xs` [.., 24], and for the head
fn layers(store: &Rc<Store>, xs: &Tensor) -> Vec<Tensor> {
    let p = Params::root(store.clone());
    let init = Init::Normal(0.3);
    let (embedding, head) = p.tied("embed", "head", &[40, 24], init, true).expect("tied");
    let apart = p.var("apart", &[40, 24], init).expect("a matrix");
    let qkv = p.joined(&[("q", true), ("k", false), ("v", true)], 24, 24, init).expect("joined");
    let many =
        p.for_many_rows().joined(&[("mk", true), ("mv", true)], 24, 8, init).expect("joined");
    let dense = [
        p.linear_drawn("drawn", 24, 24, init, init),
        p.linear_if("bare", 24, 7, false, init),
        p.conv1d("conv1d", 24, 72, init),
        p.for_many_rows().linear("many", 24, 5, init),
    ];
    let mut results: Vec<Tensor> =
        dense.map(|layer| layer.expect("a layer").forward(xs)).into_iter().collect();
    results.extend(qkv.forward::<3>(xs));
    results.extend(many.forward::<2>(xs));
    results.push(p.head("head", head, None).expect("a head").forward(xs));
    results.push(p.head("apart", apart, None).expect("a head").forward(xs));
    results.push(embedding);
    results
}

#[test]
fn a_packed_store_computes_the_same_and_keeps_no_matrix() {
    let _guard = tch::no_grad_guard();
    let plain = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
    let xs = waves(&[2, 3, 24], 0.9);
    let expected = layers(&plain, &xs);
    for (packing, bound) in
        [(Packing::F32, 1e-5), (Packing::Bf16, 2e-2), (Packing::F16, 4e-3), (Packing::Int8, 4e-2)]
    {
        if packing.check().is_err() {
            continue; // a CPU that would be refused with a sentence
        }
        let store = again(&plain, packing);
        let found = layers(&store, &xs);
        assert_eq!(found.len(), expected.len());
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = largest(&(found - expected)) / largest(expected);
            assert!(error < bound, "{packing:?} {place}: {error}");
        }
        assert!(store.check().is_ok() && store.left_over().is_empty());
        let names: Vec<String> =
            store.variables().into_iter().map(|variable| variable.name).collect();
        // What an embedding shares stays; of the others the biases do.
        let weights: Vec<&String> = names.iter().filter(|name| !name.ends_with("bias")).collect();
        assert_eq!(weights, ["embed"]);
        assert!(names.contains(&"drawn.bias".to_string()));
    }
}

fn layer(bias: bool, trained: bool) -> Linear {
    let draw =
        |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu)).set_requires_grad(trained);
    Linear {
        weights: Weights::Plain(draw(&[3, 4]), Storage::OutIn),
        bias: bias.then(|| draw(&[3])),
    }
}

/// What layers give, and the gradients of their weights and of what they read.
fn learn(layers: &[Linear], xs: &Tensor, found: Vec<Tensor>) -> Vec<Tensor> {
    let weight = |layer: &Linear| match &layer.weights {
        Weights::Plain(weight, _) => weight.shallow_clone(),
        _ => unreachable!("layers in training are plain"),
    };
    let weights: Vec<Tensor> = layers.iter().map(weight).collect();
    let biases = layers.iter().filter_map(|layer| layer.bias.as_ref());
    let inputs: Vec<&Tensor> = weights.iter().chain(biases).chain([xs]).collect();
    // Every layer's result weighs differently.
    let parts = found.iter().zip(1..).map(|(part, n)| part.square().sum(None::<Kind>) * n);
    let loss: Tensor = parts.sum();
    let mut all = Tensor::run_backward(&[&loss], &inputs, false, false);
    all.extend(found);
    all
}

/// In f64, which no cast touches.
#[test]
fn one_product_for_three_layers_teaches_them_the_same() {
    let _mixed = Autocast::new(Some(Kind::BFloat16));
    tch::manual_seed(5);
    for bias in [true, false] {
        let layers = [(); 3].map(|()| layer(bias, true));
        let xs = Tensor::randn([2, 5, 4], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let joined = together(&layers, &xs).expect("layers alike");
        let apart = layers.iter().map(|layer| layer.forward(&xs)).collect();
        let (joined, apart) = (learn(&layers, &xs, joined), learn(&layers, &xs, apart));
        for (joined, apart) in joined.iter().zip(&apart) {
            assert!((joined - apart).abs().max().double_value(&[]) < 1e-12);
        }
    }
}

#[test]
fn layers_that_differ_or_rest_stay_apart() {
    let xs = Tensor::ones([1, 4], (Kind::Double, Device::Cpu));
    let alike = [layer(true, true), layer(true, true)];
    assert!(together(&alike, &xs).is_none());
    let _mixed = Autocast::new(Some(Kind::BFloat16));
    assert!(together(&alike, &xs).is_some());
    for pair in [
        [layer(true, true), layer(false, true)],
        [layer(true, false), layer(true, false)],
        [layer(true, true), layer(true, false)],
    ] {
        assert!(together(&pair, &xs).is_none());
    }
}

/// Sizes around those of a block, a group and a chunk; both ways a matrix is stored.
#[test]
fn matrices_as_they_lie_give_the_product() {
    if !native::has_tiles() {
        return;
    }
    let sizes =
        [(1, 1, 1), (33, 1, 40), (64, 32, 32), (197, 100, 257), (70, 769, 300), (1100, 40, 33)];
    for (rows, inputs, outputs) in sizes {
        let xs = waves(&[rows, inputs], 0.11);
        let weight = waves(&[outputs, inputs], 0.37);
        let bias = waves(&[outputs], 1.3);
        let exact = xs.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).tr());
        for stored in [weight.shallow_clone(), weight.tr().contiguous().tr()] {
            for bias in [None, Some(&bias)] {
                let found = flat::linear(&xs, &stored, bias, Then::Nothing).expect("f32 on a CPU");
                let plain = xs.linear(&stored, bias);
                let expected = bias.map_or(exact.shallow_clone(), |bias| &exact + bias);
                let (own, other) = (largest(&(&found - &expected)), largest(&(plain - &expected)));
                assert!(
                    own <= 2.0 * other + 1e-6,
                    "{rows}x{inputs}x{outputs}: {own:e} for {other:e}"
                );
            }
        }
    }
}

#[test]
fn scales_are_those_of_the_largest_weights() {
    for (outputs, inputs) in [(1, 1), (700, 45), (33, 1000)] {
        let weight = waves(&[outputs, inputs], 0.37);
        let expected = weight.abs().amax([1], false).to_kind(Kind::Double) / 127.0;
        let every_other = Tensor::zeros([outputs, 2 * inputs], (Kind::Float, Device::Cpu));
        let strided = every_other.slice(1, 0, None, 2);
        strided.shallow_clone().copy_(&weight);
        for stored in [weight.shallow_clone(), weight.tr().contiguous().tr(), strided] {
            let scales = int8_scales(&stored);
            assert_eq!(scales, expected);
            let numbers = whole_numbers(&stored, &scales);
            assert_eq!((numbers.kind(), numbers.size()), (Kind::Int8, vec![outputs, inputs]));
            let back = numbers.to_kind(Kind::Double) * scales.unsqueeze(1);
            let apart = (back - &weight).abs() / scales.unsqueeze(1);
            assert!(apart.max().double_value(&[]) <= 0.5 + 1e-5);
        }
    }
    let nothing = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    assert_eq!(int8_scales(&nothing), Tensor::ones([2], (Kind::Double, Device::Cpu)));
}

/// Where there is no matrix unit, libtorch's engines serve many rows; here they are asked wherever they run.
#[test]
fn engines_give_the_product_of_what_they_keep() {
    let (weight, bias) = (waves(&[70, 96], 0.37) * 0.5, waves(&[70], 1.3));
    let xs = waves(&[3, 40, 96], 0.11);
    // Inputs are rounded too: to bf16, and to 8 bits by one scale.
    for (packing, bound) in [(Packing::Bf16, 2e-2), (Packing::F16, 1e-5), (Packing::Int8, 2e-2)] {
        if packing.check().is_err() {
            continue; // a CPU that would be refused with a sentence
        }
        for stored in [weight.shallow_clone(), weight.tr().contiguous().tr()] {
            let weights = for_many(&stored, Some(&bias), packing).expect("an engine");
            let layer = Linear { weights, bias: Some(bias.shallow_clone()) };
            assert_eq!((layer.inputs(), layer.outputs()), (96, 70));
            let plain = xs.linear(&kept(&weight, packing), Some(&bias));
            let error = largest(&(layer.forward(&xs) - &plain)) / largest(&plain);
            assert!(error < bound, "{packing:?}: {error}");
            let activated = layer.activated(&xs, Activation::Gelu).to_kind(Kind::Float);
            let error = largest(&(activated - plain.gelu("none"))) / largest(&plain);
            assert!(error < bound, "{packing:?}, GELU: {error}");
        }
    }
}

/// GELU in the product is GELU of the product, for few rows, more and many; within 10⁻⁴ where the next product
/// rounds it to 9 bits or fewer.
#[test]
fn an_activation_in_the_product_is_that_of_its_results() {
    let (weight, bias) = (waves(&[70, 300], 0.37) * 0.5, waves(&[70], 1.3));
    for packing in [Packing::F32, Packing::Bf16, Packing::F16, Packing::Int8] {
        for many in [false, true] {
            let panels = Panels::pack(&weight, packing);
            let panels = if many { panels.for_many() } else { panels };
            let rounds = panels.parts() == Parts::Single || (many && packing == Packing::Int8);
            let layer =
                Linear { weights: Weights::Panels(panels), bias: Some(bias.shallow_clone()) };
            for rows in [2, 60, 200] {
                let xs = waves(&[rows, 300], 0.11);
                for activation in [Activation::Gelu, Activation::GeluNew, Activation::Relu] {
                    let expected = activation.forward(&layer.forward(&xs));
                    let far = largest(&(layer.activated(&xs, activation) - expected));
                    let bound = if rounds { 1e-4 } else { 0.0 };
                    assert!(far <= bound, "{packing:?}, {rows} rows, {activation:?}: {far:e}");
                }
            }
        }
    }
    let plain = Linear { weights: Weights::Plain(weight, Storage::OutIn), bias: Some(bias) };
    let xs = waves(&[200, 300], 0.11);
    let expected = Activation::Gelu.forward(&plain.forward(&xs));
    assert_eq!(plain.activated(&xs, Activation::Gelu), expected);
}

/// bf16 for many rows lies in another order, and is the same weights: in products of few, more and many rows.
#[test]
fn paired_lines_are_the_same_weights() {
    if Packing::Bf16.check().is_err() {
        return; // a CPU that would be refused with a sentence
    }
    for inputs in [96, 100] {
        let weight = waves(&[70, inputs], 0.37) * 0.5;
        for stored in [weight.shallow_clone(), weight.tr().contiguous().tr()] {
            let plain = Panels::pack(&stored, Packing::Bf16).for_many();
            let paired = Panels::pack_for_many(&stored, Packing::Bf16, || ());
            assert!(paired.matrix().is_some() && paired.matrix() == plain.matrix());
            for rows in [1, 2, 5, 40, 200] {
                let xs = waves(&[rows, inputs], 0.11);
                assert_eq!(paired.forward(&xs, None), plain.forward(&xs, None), "{rows}x{inputs}");
            }
        }
    }
}
