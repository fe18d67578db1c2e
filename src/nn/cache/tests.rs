//! The block against plain concatenation.

use fastrand::Rng;
use tch::{Device, Kind};

use super::*;
use crate::nn::attention::attend;
use crate::nn::one_token::New;

const HEADS: i64 = 2;
const SIZE: i64 = 3;
const LAYERS: usize = 3;

/// What a cache must hold, kept the plain way: layer, then keys and values, [N, A, T, d]; and the images.
struct Plain {
    layers: Vec<[Tensor; 2]>,
    images: Vec<i64>,
}

fn numbers(random: &mut Rng, size: [i64; 4]) -> Tensor {
    let count = size.iter().product::<i64>();
    let all: Vec<f32> = (0..count).map(|_| random.u32(..1 << 24) as f32).collect();
    Tensor::from_slice(&all).reshape(size)
}

fn below(random: &mut Rng, n: usize) -> usize {
    random.usize(..n)
}

/// One step of `t` tokens for both; `in_place`, attention asks for it.
fn step(
    cache: &mut Cache,
    plain: &mut Plain,
    (n, t): (i64, i64),
    in_place: bool,
    random: &mut Rng,
) {
    for (index, expected) in plain.layers.iter_mut().enumerate() {
        let key = numbers(random, [n, HEADS, t, SIZE]);
        let value = numbers(random, [n, HEADS, t, SIZE]);
        let q = numbers(random, [n, HEADS, t, SIZE]) / f64::from(1 << 24);
        let (layer, past) = cache.layer(index);
        layer.cross.get_or_insert_with(|| {
            let images = Tensor::from_slice(&plain.images).reshape([-1, 1, 1, 1]);
            Memory::Plain(KeyValue { key: images.copy(), value: images * 2 })
        });
        for (xs, new) in expected.iter_mut().zip([&key, &value]) {
            *xs = Tensor::cat(&[&*xs, new], 2);
        }
        if in_place {
            let scale = 3e-8;
            let new = New::Apart { q: &q, key: &key, value: &value };
            if let Some(found) = layer.attend_one(&new, scale) {
                assert_eq!(t, 1);
                let all = attend(&q, &expected[0], &expected[1], None, scale, 0.0);
                let all = all.transpose(1, 2).flatten(2, 3);
                assert!(found.allclose(&all, 1e-5, 1.0, false), "{found} for {all}");
                continue;
            }
            assert!(t > 1 || past == 0, "a token was not read in place");
        }
        let all = layer.append(key.copy(), value.copy());
        assert_eq!([&all.key, &all.value], [&expected[0], &expected[1]]);
    }
    cache.advance(t);
}

fn compare(cache: &Cache, plain: &Plain) {
    for (layer, expected) in cache.layers.iter().zip(&plain.layers) {
        let own = layer.kept().expect("tokens");
        assert_eq!([&own.key, &own.value], [&expected[0], &expected[1]]);
        let Some(Memory::Plain(cross)) = &layer.cross else { panic!("plain images") };
        let images = Tensor::from_slice(&plain.images).reshape([-1, 1, 1, 1]);
        assert_eq!(cross.key, images);
        assert_eq!(cross.value, images * 2);
    }
}

fn select(plain: &mut Plain, rows: &[i64]) {
    let rows = Tensor::from_slice(rows);
    for xs in plain.layers.iter_mut().flatten() {
        *xs = xs.index_select(0, &rows);
    }
}

fn fork(cache: &mut Cache, plain: &Plain) -> (Cache, Plain) {
    let layers = plain.layers.iter().map(|layer| layer.each_ref().map(Tensor::copy)).collect();
    (cache.fork(), Plain { layers, images: plain.images.clone() })
}

/// Some life of a cache: prompts, beams, images that leave, forks that go on.
fn live(random: &mut Rng, in_place: bool) {
    let images = 1 + below(random, 4);
    let mut cache = Cache::new(LAYERS);
    let empty = || Tensor::empty([images as i64, HEADS, 0, SIZE], (Kind::Float, Device::Cpu));
    let mut plain = Plain {
        layers: (0..LAYERS).map(|_| [empty(), empty()]).collect(),
        images: (10..10 + images as i64).collect(),
    };
    let mut n = images;
    let mut forks: Vec<(Cache, Plain)> = Vec::new();
    for round in 0..70 {
        let t = if below(random, 8) == 0 { 1 + below(random, 40) } else { 1 };
        step(&mut cache, &mut plain, (n as i64, t as i64), in_place, random);
        compare(&cache, &plain);
        let b = plain.images.len();
        match below(random, 12) {
            0 if round > 20 && b > 1 => {
                // One image leaves: the last takes its place, or all move up.
                let leaving = below(random, b);
                let mut stay: Vec<usize> = (0..b).filter(|image| *image != leaving).collect();
                if below(random, 2) == 0 && leaving < b - 1 {
                    stay = (0..b - 1).map(|at| if at == leaving { b - 1 } else { at }).collect();
                }
                let k = n / b;
                let rows = stay.iter().flat_map(|image| (0..k).map(move |_| *image));
                let rows: Vec<i64> =
                    rows.map(|image| (image * k + below(random, k)) as i64).collect();
                let stay_numbers: Vec<i64> = stay.iter().map(|image| *image as i64).collect();
                cache.keep(&stay_numbers, &rows);
                plain.images = stay.iter().map(|image| plain.images[*image]).collect();
                select(&mut plain, &rows);
                n = rows.len();
            }
            1 => forks.push(fork(&mut cache, &plain)),
            2 => {
                // Another number of rows an image.
                let (old, k) = (n / b, 1 + below(random, 4));
                let rows: Vec<i64> =
                    (0..b * k).map(|row| (row / k * old + below(random, old)) as i64).collect();
                cache.reorder(&rows);
                select(&mut plain, &rows);
                n = rows.len();
            }
            3..=8 => {
                let k = n / b;
                let rows: Vec<i64> =
                    (0..n).map(|row| (row / k * k + below(random, k)) as i64).collect();
                cache.reorder(&rows);
                select(&mut plain, &rows);
            }
            9 => {
                // The last tokens are forgotten.
                let past = cache.past() - below(random, 1 + (cache.past() as usize).min(3)) as i64;
                cache.rewind(past);
                for xs in plain.layers.iter_mut().flatten() {
                    *xs = xs.narrow(2, 0, past);
                }
            }
            _ => {}
        }
        compare(&cache, &plain);
        if let Some((fork, plain)) = forks.last_mut() {
            compare(fork, plain);
            if below(random, 3) == 0 {
                let n = plain.layers[0][0].size()[0];
                let rows: Vec<i64> =
                    (0..n).map(|row| if row % 2 == 1 { row - 1 } else { row }).collect();
                step(fork, plain, (n, 1), in_place, random);
                let k = n / plain.images.len() as i64;
                if k % 2 == 0 {
                    fork.reorder(&rows);
                    select(plain, &rows);
                }
                compare(fork, plain);
            }
        }
    }
    for (fork, plain) in &forks {
        compare(fork, plain);
    }
}

#[test]
fn a_cache_holds_what_concatenation_gives() {
    tch::set_num_threads(1); // The tensors are tiny.
    tch::no_grad(|| {
        for seed in 0..40 {
            live(&mut Rng::with_seed(seed), seed % 2 == 0);
        }
    });
}

#[test]
fn a_step_writes_where_room_is_and_moves_nothing() {
    let mut random = Rng::with_seed(7);
    let mut cache = Cache::new(1);
    let mut plain = Plain {
        layers: vec![[0, 1].map(|_| numbers(&mut random, [2, HEADS, 0, SIZE]))],
        images: vec![1, 2],
    };
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..200 {
        step(&mut cache, &mut plain, (2, 1), false, &mut random);
        cache.reorder(&[0, 1]);
        places.extend(cache.layers[0].kept().map(|own| own.key.data_ptr() as usize));
    }
    // The first token alone, then rooms that double: 33, 66, 132, 264 tokens.
    assert!(places.len() <= 5, "{}", places.len());
}

#[test]
fn gradients_flow_through_all_that_is_remembered() {
    let leaf = |value: f64| {
        Tensor::full([1, HEADS, 1, SIZE], value, (Kind::Float, Device::Cpu)).set_requires_grad(true)
    };
    let leaves: Vec<Tensor> = (0..4).map(|i| leaf(f64::from(i))).collect();
    let mut cache = Cache::new(1);
    for leaf in &leaves {
        let (layer, _) = cache.layer(0);
        layer.append(leaf.shallow_clone(), leaf * 2);
        cache.advance(1);
    }
    cache.reorder(&[0, 0]);
    let (layer, _) = cache.layer(0);
    let all = layer.append(
        Tensor::cat(&[&leaves[0], &leaves[0]], 0),
        Tensor::cat(&[&leaves[0], &leaves[0]], 0),
    );
    (&all.key + &all.value).sum(Kind::Float).backward();
    for (i, leaf) in leaves.iter().enumerate() {
        // Two rows, once as key and twice as value; the first a second time as new token.
        let expected = if i == 0 { 10.0 } else { 6.0 };
        assert_eq!(
            leaf.grad(),
            Tensor::full([1, HEADS, 1, SIZE], expected, (Kind::Float, Device::Cpu))
        );
    }
}

/// Other numbers than f32 on a CPU lie row by row, as before.
#[test]
fn others_are_not_read_in_place() {
    let mut cache = Cache::new(1);
    let mut step = |rows: i64| {
        let xs = Tensor::ones([rows, HEADS, 1, SIZE], (Kind::Double, Device::Cpu));
        let (layer, _) = cache.layer(0);
        let new = New::Apart { q: &xs, key: &xs, value: &xs };
        assert!(layer.attend_one(&new, 1.0).is_none());
        layer.append(xs.copy(), xs);
        cache.advance(1);
        cache.reorder(&[1, 0]);
        assert!(!cache.layers[0].is_scattered());
    };
    step(2);
    step(2);
    step(2);
}

/// Beams that change places cost no copy: the same tokens lie at the same places as before.
#[test]
fn beams_move_nothing_where_tokens_are_read_in_place() {
    let mut random = Rng::with_seed(3);
    let mut cache = Cache::new(1);
    let mut plain = Plain {
        layers: vec![[0, 1].map(|_| numbers(&mut random, [2, HEADS, 0, SIZE]))],
        images: vec![1, 2],
    };
    step(&mut cache, &mut plain, (2, 3), true, &mut random);
    cache.reorder(&[0, 0, 1, 1]);
    select(&mut plain, &[0, 0, 1, 1]);
    step(&mut cache, &mut plain, (4, 1), true, &mut random);
    let before = cache.block.as_ref().map(|block| block.narrow(3, 0, 4).copy());
    cache.reorder(&[1, 0, 3, 3]);
    select(&mut plain, &[1, 0, 3, 3]);
    assert!(cache.layers[0].is_scattered());
    assert_eq!(cache.block.as_ref().map(|block| block.narrow(3, 0, 4)), before);
    compare(&cache, &plain);
    // Several tokens at once are no case for it: all is brought together.
    step(&mut cache, &mut plain, (4, 2), true, &mut random);
    assert!(!cache.layers[0].is_scattered());
    compare(&cache, &plain);
}
