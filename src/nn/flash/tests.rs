#![allow(clippy::unwrap_used)]

use tch::{Kind, Tensor};

use super::states::division;
use super::*;
use crate::nn::attention::tests::waves;

const SCALE: f64 = 0.2;

/// Rows, heads, queries, keys, width of a head.
const SIZES: [[i64; 5]; 5] = [
    [1, 1, 96, 96, 64],
    [2, 3, 310, 337, 20],
    [1, 2, 230, 190, 33],
    [3, 1, 96, 578, 64],
    [1, 4, 197, 197, 96],
];

/// Query, key and value as parts of one tensor, as a joined layer gives them, where they are as many.
fn given([n, heads, tokens, keys, d]: [i64; 5]) -> [Tensor; 3] {
    if tokens == keys {
        let all = waves([n, tokens, heads * 3, d], 0.317);
        return all
            .chunk(3, 2)
            .into_iter()
            .map(|xs| xs.transpose(1, 2))
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
    }
    [
        waves([n, tokens, heads, d], 0.317).transpose(1, 2),
        waves([n, heads, keys, d], 0.223),
        waves([n, keys, heads, d], 0.131).transpose(1, 2),
    ]
}

/// As the formula says.
fn plain([q, k, v]: [&Tensor; 3]) -> Tensor {
    (q.matmul(&k.transpose(-2, -1)) * SCALE).softmax(-1, None).matmul(v)
}

fn error(found: &Tensor, exact: &Tensor) -> f64 {
    assert_eq!(found.size(), exact.size());
    f64::try_from((found.to_kind(Kind::Double) - exact).abs().max()).unwrap()
}

/// Images one by one and together, more queries than a task has, and sizes that fill no tile.
#[test]
fn states_are_attended_to_as_their_own_keys_and_values() {
    if !native::has_tiles() {
        let states = Tensor::ones([1, 2, 3], (Kind::Float, Device::Cpu));
        assert!(States::cut(&states, Parts::F32, 1).is_none());
        return;
    }
    for [images, rows, tokens, d] in [[1, 1, 1, 1], [2, 12, 197, 96], [3, 37, 45, 33]] {
        let all = waves([images, 1, tokens, d], 0.317);
        let q = waves([images, 1, rows, d], 0.223);
        let exact = [&q, &all, &all].map(|xs| xs.to_kind(Kind::Double));
        let exact = plain(exact.each_ref()).squeeze_dim(1);
        // As a projection may leave them: not side by side.
        let states = all.squeeze_dim(1).transpose(1, 2).contiguous().transpose(1, 2);
        for (parts, bound) in [(Parts::F32, 2e-6), (Parts::F16, 3e-5), (Parts::Single, 3e-2)] {
            // Whole, and in pieces of 64 tokens or more.
            for division in [(16, 1), (8, 1), (16, 2), (8, 5)] {
                let cut = States::divided(&states, parts.here(), division).unwrap();
                let found = States::attend(&cut, &q.squeeze_dim(1), SCALE);
                let far = error(&found, &exact);
                let case = format!("{images}x{rows}x{tokens}x{d}, {parts:?}, {division:?}");
                assert!(far < bound, "{case}: {far:e}");
                let last = q.squeeze_dim(1).narrow(0, images - 1, 1);
                let alone = States::attend(&cut[cut.len() - 1..], &last, SCALE);
                let together = found.narrow(0, images - 1, 1);
                if division.1 == 1 {
                    assert_eq!(alone, together, "{case}");
                } else {
                    // Pieces are put together by libtorch, whose vectors end elsewhere.
                    assert!(error(&alone, &together.to_kind(Kind::Double)) < 1e-6, "{case}");
                }
            }
        }
    }
    let learning = Tensor::ones([1, 2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    assert!(States::cut(&learning, Parts::F32.here(), 1).is_none());
    assert!(
        States::attend(&[], &Tensor::ones([0, 2, 3], (Kind::Float, Device::Cpu)), 1.0).numel() == 0
    );
}

/// Each thread has a task, of no fewer than 8 queries.
#[test]
fn states_are_divided_among_all_threads() {
    let half = if native::has_matrix_unit() { 16 } else { 8 };
    for ((images, queries, threads), expected) in [
        ((1, 16, 1), (16, 1)),
        ((1, 8, 16), (half, 16)),
        ((1, 16, 2), (half, if half == 8 { 1 } else { 2 })),
        ((2, 16, 2), (16, 1)),
        ((8, 12, 2), (16, 1)),
        ((0, 8, 16), (half, 16)),
    ] {
        assert_eq!(division(images, queries, threads), expected, "{images} on {threads}");
    }
}

#[test]
fn results_are_those_of_the_formula() {
    if !native::has_tiles() {
        return; // libtorch does it
    }
    for size in SIZES {
        let given = given(size);
        let exact = plain(given.each_ref().map(|xs| xs.to_kind(Kind::Double)).each_ref());
        for (parts, bound) in [(Parts::F32, 2e-6), (Parts::F16, 3e-5)] {
            let [q, k, v] = &given;
            let found = flash(q, k, v, SCALE, parts.here()).unwrap();
            let error = error(&found, &exact);
            assert!(error < bound, "{size:?}, {parts:?}: {error:e}");
        }
    }
}

/// As libtorch has it of f64.
#[test]
fn gradients_are_those_of_the_formula() {
    if !native::has_tiles() || !native::has_operators() {
        return; // libtorch does it
    }
    for size in SIZES {
        let learn = |kind: Kind, attend: &dyn Fn([&Tensor; 3]) -> Tensor| {
            let given = given(size).map(|xs| xs.to_kind(kind).set_requires_grad(true));
            let out = attend(given.each_ref());
            let loss = (out.to_kind(Kind::Double) * waves_like(&out)).sum(Kind::Double);
            Tensor::run_backward(&[loss], &given, false, false)
        };
        let exact = learn(Kind::Double, &plain);
        let found =
            learn(Kind::Float, &|[q, k, v]| flash(q, k, v, SCALE, Parts::F32.here()).unwrap());
        for ((name, found), exact) in ["query", "key", "value"].iter().zip(&found).zip(&exact) {
            let (error, most) = (error(found, exact), f64::try_from(exact.abs().max()).unwrap());
            // A score of 50 is rounded to 2e-6, which its exponential has as a share.
            assert!(error < 1e-5 * most.max(1.0), "{size:?}, {name}: {error:e} of {most}");
        }
    }
}

/// Another number at each place.
fn waves_like(xs: &Tensor) -> Tensor {
    let size = xs.size();
    waves([size[0], size[1], size[2], size[3]], 0.771).to_kind(Kind::Double)
}

/// A token's numbers are the same whatever is beside its row, and into however many tasks its head is divided.
#[test]
fn a_row_is_the_same_alone() {
    if !native::has_tiles() {
        return;
    }
    let [q, k, v] = given([4, 2, 300, 300, 64]);
    let all = flash(&q, &k, &v, SCALE, Parts::F32.here()).unwrap();
    for row in 0..4 {
        let [q, k, v] = [&q, &k, &v].map(|xs| xs.narrow(0, row, 1));
        assert_eq!(flash(&q, &k, &v, SCALE, Parts::F32.here()).unwrap(), all.narrow(0, row, 1));
    }
}

#[test]
fn others_are_left_to_libtorch() {
    let [q, k, v] = given([1, 2, 192, 192, 32]);
    let few = q.narrow(2, 0, 191);
    assert!(flash(&few, &k, &v, SCALE, Parts::F32.here()).is_none());
    let double = |xs: &Tensor| xs.to_kind(Kind::Double);
    assert!(flash(&double(&q), &double(&k), &double(&v), SCALE, Parts::F32.here()).is_none());
    let turned = q.transpose(2, 3).contiguous().transpose(2, 3);
    assert!(flash(&turned, &k, &v, SCALE, Parts::F32.here()).is_none());
    let narrow = k.narrow(3, 0, 16);
    assert!(flash(&q, &narrow, &v, SCALE, Parts::F32.here()).is_none());
    assert!(flash(&q, &k, &v.narrow(2, 0, 191), SCALE, Parts::F32.here()).is_none());
}
