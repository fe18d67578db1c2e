//! Gradient checkpointing (Chen et al. 2016): a layer's activations are forgotten after the forward pass
//! and computed anew when its gradient is due. Memory holds the input of every layer and the inside of
//! one.
//!
//! While `record` runs, each layer is a segment: it is computed without a graph, and a tape notes its
//! inputs and its result, which is a leaf of the graph around it. `Tape::backward` goes back over the
//! tape: the gradient of a result becomes gradients of parameters and inputs by way of the segment's own
//! small graph. (libtorch offers no function of its own for this outside of C++ and Python.) Draws of
//! dropout repeat themselves because every segment seeds the generator by its place.

use std::cell::RefCell;
use std::rc::Rc;

use tch::{Tensor, no_grad};

use super::cache::LayerCache;
use crate::splitmix;

thread_local! {
    static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

type Compute = Box<dyn Fn(&[Tensor]) -> Tensor>;

/// What `record` noted, in the order of the forward pass.
pub struct Tape {
    seed: u64,
    entries: Vec<Entry>,
}

/// A leaf, and where its gradient goes.
struct Entry {
    leaf: Tensor,
    source: Source,
}

enum Source {
    /// The leaf stands for this tensor, whose graph goes on.
    Tensor(Tensor),
    /// The leaf is what `compute` makes of leaves before it.
    Segment { inputs: Vec<Tensor>, compute: Compute, seed: i64 },
}

/// A tape that a panic interrupts must not catch what comes after it.
struct Recording;

impl Drop for Recording {
    fn drop(&mut self) {
        TAPE.take();
    }
}

/// Runs a forward pass whose layers are segments. `seed` is what their dropout is seeded by.
pub fn record<T>(seed: u64, forward: impl FnOnce() -> T) -> (T, Tape) {
    TAPE.set(Some(Tape { seed, entries: Vec::new() }));
    let recording = Recording;
    let result = forward();
    let tape = TAPE.take().unwrap_or(Tape { seed, entries: Vec::new() });
    drop(recording);
    (result, tape)
}

/// A layer as a segment; outside of `record` it is computed as it stands.
///
/// `f` must use no tensor with a gradient but `inputs` and the layer's own, and give the same whenever it
/// is called: it is called twice.
pub fn run<L: 'static>(
    layer: &Rc<L>,
    inputs: &[&Tensor],
    f: impl Fn(&L, &[Tensor]) -> Tensor + 'static,
) -> Tensor {
    let inputs: Vec<Tensor> = inputs.iter().map(|xs| leaf(xs)).collect();
    let Some(seed) = next_seed() else { return f(layer, &inputs) };
    tch::manual_seed(seed);
    let result = no_grad(|| f(layer, &inputs)).detach().set_requires_grad(true);
    let layer = layer.clone();
    let compute: Compute = Box::new(move |inputs| f(&layer, inputs));
    note(&result, Source::Segment { inputs, compute, seed });
    result
}

/// An encoder's layer. [B, S, D] -> [B, S, D]
pub fn encode<L: 'static>(
    layer: &Rc<L>,
    xs: &Tensor,
    f: impl Fn(&L, &Tensor) -> Tensor + 'static,
) -> Tensor {
    run(layer, &[xs], move |layer, inputs| f(layer, &inputs[0]))
}

/// A decoder's layer. As a segment it sees the whole sequence at once: the cache stays as it is.
/// xs [N, t, D], states [B, S, De] -> [N, t, D]
pub fn decode<L: 'static>(
    layer: &Rc<L>,
    xs: &Tensor,
    states: &Tensor,
    cache: &mut LayerCache,
    f: impl Fn(&L, &Tensor, &Tensor, &mut LayerCache) -> Tensor + 'static,
) -> Tensor {
    if next_seed().is_none() {
        return f(layer, xs, states, cache);
    }
    run(layer, &[xs, states], move |layer, inputs| {
        f(layer, &inputs[0], &inputs[1], &mut LayerCache::default())
    })
}

/// In `record`, a leaf that stands for `xs`: what several segments read becomes one first.
pub fn leaf(xs: &Tensor) -> Tensor {
    if next_seed().is_none() || xs.is_leaf() {
        return xs.shallow_clone();
    }
    let leaf = xs.detach().set_requires_grad(true);
    note(&leaf, Source::Tensor(xs.shallow_clone()));
    leaf
}

/// The seed of the entry to come; None outside of `record`.
fn next_seed() -> Option<i64> {
    TAPE.with_borrow(|tape| {
        let tape = tape.as_ref()?;
        let place = tape.entries.len() as u64 + 1;
        Some(splitmix::mix(tape.seed ^ place.wrapping_mul(splitmix::GOLDEN)) as i64)
    })
}

fn note(leaf: &Tensor, source: Source) {
    TAPE.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            tape.entries.push(Entry { leaf: leaf.shallow_clone(), source });
        }
    });
}

impl Tape {
    /// Segments and leaves that were noted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gradients of `loss` [] by `parameters`, handed to `take` piece by piece, an undefined tensor where
    /// a piece has none; they are to be added up.
    pub fn backward(
        mut self,
        loss: &Tensor,
        parameters: &[&Tensor],
        mut take: impl FnMut(Vec<Tensor>),
    ) {
        let mut gradients: Vec<Option<Tensor>> = self.entries.iter().map(|_| None).collect();
        let mut pull = |root: &Tensor, earlier: &[Entry], sums: &mut [Option<Tensor>], keep| {
            let leaves = earlier.iter().map(|entry| &entry.leaf);
            let inputs: Vec<&Tensor> = parameters.iter().copied().chain(leaves).collect();
            let mut found = Tensor::run_backward(&[root], &inputs, keep, false);
            for (sum, gradient) in sums.iter_mut().zip(found.split_off(parameters.len())) {
                if gradient.defined() {
                    *sum = Some(sum.take().map_or(gradient.shallow_clone(), |sum| sum + gradient));
                }
            }
            take(found);
        };
        pull(loss, &self.entries, &mut gradients, false);
        while let (Some(Entry { leaf, source }), Some(gradient)) =
            (self.entries.pop(), gradients.pop())
        {
            drop(leaf);
            let Some(gradient) = gradient else { continue };
            // Several leaves may stand on one piece of graph: it is kept until the last of them.
            let (result, keep) = match source {
                Source::Tensor(xs) => (xs, true),
                Source::Segment { inputs, compute, seed } => {
                    tch::manual_seed(seed);
                    (compute(&inputs), false)
                }
            };
            if result.requires_grad() {
                // Its own gradient is all ones: that of the result is `gradient`.
                pull(&(result * gradient), &self.entries, &mut gradients, keep);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// Gradients of `loss` with and without segments: equal but for roundings and the order of sums, none where there was none. Gives the number of entries of the tape.
    pub(crate) fn check(parameters: &[(String, Tensor)], loss: impl Fn() -> Tensor) -> usize {
        let tensors: Vec<&Tensor> = parameters.iter().map(|(_, tensor)| tensor).collect();
        let plain = loss();
        let expected = Tensor::run_backward(&[&plain], &tensors, false, false);
        let (taped, tape) = record(1, loss);
        // Without a graph libtorch takes other paths through some products.
        let rounding = 1e-6 * plain.abs().double_value(&[]);
        let apart = (&taped - &plain).abs().double_value(&[]);
        assert!(apart <= rounding, "{taped:?} for {plain:?}");
        let entries = tape.len();
        let mut found: Vec<Option<Tensor>> = parameters.iter().map(|_| None).collect();
        tape.backward(&taped, &tensors, |pieces| {
            for (sum, piece) in found.iter_mut().zip(pieces).filter(|(_, piece)| piece.defined()) {
                *sum = Some(sum.take().map_or(piece.shallow_clone(), |sum| sum + piece));
            }
        });
        let norm = |xs: &Tensor| xs.norm().double_value(&[]);
        let all: f64 = expected.iter().filter(|g| g.defined()).map(|g| norm(g).powi(2)).sum();
        for ((name, _), (found, expected)) in parameters.iter().zip(found.iter().zip(&expected)) {
            assert_eq!(found.is_some(), expected.defined(), "{name}");
            if let Some(found) = found {
                let bound = 1e-5 * norm(expected) + 1e-7 * all.sqrt();
                let apart = norm(&(found - expected));
                assert!(apart <= bound, "{name}: {apart:e} apart, {bound:e} allowed");
            }
        }
        assert!(next_seed().is_none(), "the tape is off");
        entries
    }

    struct Layer {
        weight: Tensor,
    }

    impl Layer {
        fn forward(&self, xs: &Tensor) -> Tensor {
            xs + xs.linear(&self.weight, None::<&Tensor>).dropout(0.5, true)
        }
    }

    fn layers(count: usize) -> Vec<Rc<Layer>> {
        tch::manual_seed(3);
        let draw = || Tensor::randn([4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        (0..count).map(|_| Rc::new(Layer { weight: draw() })).collect()
    }

    /// True in a process that runs this test alone, which is started first; what it finds is asserted here.
    fn is_alone(test: &str) -> bool {
        const ALONE: &str = "VEDM_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let test = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && told.contains("1 passed"), "{told}");
        false
    }

    /// All tests of a process draw from one generator, which this one seeds in between.
    #[test]
    fn dropout_repeats_itself() {
        if !is_alone("dropout_repeats_itself") {
            return;
        }
        let layers = layers(3);
        let weights: Vec<&Tensor> = layers.iter().map(|layer| &layer.weight).collect();
        let input = Tensor::randn([5, 4], (Kind::Float, Device::Cpu));
        // With a graph, every layer seeded as its segment is.
        let seeds: Vec<i64> = (1..=3u64)
            .map(|place| splitmix::mix(9 ^ place.wrapping_mul(splitmix::GOLDEN)) as i64)
            .collect();
        let mut xs = input.shallow_clone();
        for (layer, seed) in layers.iter().zip(&seeds) {
            tch::manual_seed(*seed);
            xs = layer.forward(&xs);
        }
        let plain = xs.square().sum(Kind::Float);
        let expected = Tensor::run_backward(&[&plain], &weights, false, false);
        let (taped, tape) = record(9, || {
            let through =
                |xs: Tensor, layer| encode(layer, &xs, |layer: &Layer, xs| layer.forward(xs));
            layers.iter().fold(input.shallow_clone(), through).square().sum(Kind::Float)
        });
        assert!(taped.equal(&plain));
        let mut found: Vec<Vec<Tensor>> = Vec::new();
        tape.backward(&taped, &weights, |pieces| found.push(pieces));
        for (i, expected) in expected.iter().enumerate() {
            let pieces: Vec<&Tensor> =
                found.iter().map(|pieces| &pieces[i]).filter(|piece| piece.defined()).collect();
            assert_eq!(pieces.len(), 1);
            assert!(pieces[0].equal(expected), "layer {i}");
        }
    }

    #[test]
    fn a_shared_tensor_may_be_read_by_many_segments() {
        let layers = layers(2);
        let table = Tensor::randn([4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let parameters: Vec<(String, Tensor)> = layers
            .iter()
            .map(|layer| &layer.weight)
            .chain([&table])
            .map(|weight| (format!("{:?}", weight.size()), weight.shallow_clone()))
            .collect();
        let entries = check(&parameters, || {
            let shared = table.tanh();
            let mut xs = Tensor::ones([3, 4], (Kind::Float, Device::Cpu));
            for layer in &layers {
                xs = run(layer, &[&xs, &shared], |layer, inputs| {
                    inputs[0].linear(&layer.weight, None::<&Tensor>).matmul(&inputs[1])
                });
            }
            xs.square().sum(Kind::Float)
        });
        // Two segments, and the shared tensor cut before each.
        assert_eq!(entries, 4);
    }

    #[test]
    fn a_panic_ends_the_recording() {
        let failed = std::panic::catch_unwind(|| record(1, || panic!("no memory")));
        assert!(failed.is_err());
        assert!(next_seed().is_none());
    }
}
