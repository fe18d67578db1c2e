//! Tests over every row of the table, on tiny models with made-up weights.

use std::rc::Rc;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{DECODERS, Decoder, find};
use crate::nn::{Params, Store, segment};

/// Sizes of the tiny models, under every family's name for them.
const SIZES: &[(&str, i64)] = &[
    ("vocab_size", 37),
    ("hidden_size", 16),
    ("d_model", 16),
    ("n_embd", 16),
    ("num_hidden_layers", 2),
    ("decoder_layers", 2),
    ("num_decoder_layers", 2),
    ("n_layer", 2),
    ("num_layers", 2),
    ("num_attention_heads", 4),
    ("decoder_attention_heads", 4),
    ("num_decoder_attention_heads", 4),
    ("attention_heads", 4),
    ("n_head", 4),
    ("intermediate_size", 24),
    ("decoder_ffn_dim", 24),
    ("ffn_dim", 24),
    ("max_position_embeddings", 20),
    ("n_positions", 20),
    ("embedding_size", 12),
    ("input_embedding_size", 12),
    ("output_embedding_size", 20),
    ("pad_token_id", 1),
];

/// Images, rows and tokens of the inputs.
const B: i64 = 2;
const N: i64 = 4;
const T: i64 = 6;

/// A family's defaults with tiny sizes and some fields changed.
pub(super) fn tiny(model_type: &str, changes: &Value) -> Value {
    let mut json = (find(model_type).unwrap().defaults)();
    for (name, size) in SIZES {
        if json.get(name).is_some() {
            json[name] = json!(size);
        }
    }
    for (name, value) in changes.as_object().unwrap() {
        json[name] = value.clone();
    }
    json
}

/// A decoder whose variables hold sines of squares that start at a place told by their name, and its
/// store.
pub(super) fn build(json: &Value) -> (Box<dyn Decoder>, Rc<Store>) {
    let store = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
    let arch = find(json["model_type"].as_str().unwrap()).unwrap();
    let decoder = (arch.build)(json, &Params::root(store.clone())).unwrap();
    for variable in store.variables().into_iter().filter(|variable| variable.trainable) {
        let start = variable.name.bytes().map(i64::from).sum::<i64>() % 97;
        let size = variable.tensor.size();
        let numbers = Tensor::arange(variable.tensor.numel() as i64, (Kind::Double, Device::Cpu));
        let mut value = (numbers.square() * 0.7 + start).sin() * 0.4;
        if size.len() == 1 && variable.name.ends_with("weight") {
            value += 1.0; // a norm
        }
        let mut tensor = variable.tensor;
        tch::no_grad(|| tensor.copy_(&value.reshape(size)));
    }
    (decoder, store)
}

/// ids [N, T]
fn ids() -> Tensor {
    let ids: Vec<i64> = (0..N * T).map(|i| 3 + (7 * (i / T) + 5 * (i % T)) % 31).collect();
    Tensor::from_slice(&ids).reshape([N, T])
}

/// States [B, 5, De] of two images.
fn states(json: &Value) -> Tensor {
    let size = json.get("cross_attention_hidden_size").and_then(Value::as_i64).unwrap_or(16);
    let numbers = Tensor::arange(B * 5 * size, (Kind::Double, Device::Cpu));
    (numbers.square() * 0.31).sin().reshape([B, 5, size]).to_kind(Kind::Float)
}

/// Logits of ids [N, t] given in parts of these lengths.
fn logits(decoder: &dyn Decoder, ids: &Tensor, states: &Tensor, parts: &[i64]) -> Tensor {
    let mut cache = decoder.limits().cache();
    cache.counts_padding = false;
    let mut start = 0;
    let mut found = Vec::new();
    for length in parts {
        let part = ids.narrow(1, start, *length);
        let hidden = tch::no_grad(|| decoder.forward(&part, states, &mut cache, false));
        found.push(decoder.logits(&hidden));
        start += length;
        assert_eq!(cache.past(), start);
    }
    Tensor::cat(&found, 1)
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    f64::try_from((a - b).abs().max()).unwrap()
}

/// Every row, and rows with fields that change the computation.
fn cases() -> Vec<(&'static str, Value, usize, [f64; 4])> {
    vec![
        ("bert", json!({}), 64, [-0.762791, 1.314363, -0.702939, 0.758920]),
        ("roberta", json!({}), 64, [-2.430124, 1.882643, 0.656693, 1.001826]),
        ("xlm-roberta", json!({}), 64, [-2.430124, 1.882643, 0.656693, 1.001826]),
        ("camembert", json!({}), 64, [-2.430124, 1.882643, 0.656693, 1.001826]),
        ("data2vec-text", json!({}), 64, [-2.996545, 0.355369, 0.650563, 1.047564]),
        ("electra", json!({}), 65, [2.330918, 0.239686, -0.107241, 0.995567]),
        ("ernie", json!({}), 64, [1.524907, 1.480619, -2.683234, 0.839159]),
        ("rembert", json!({}), 65, [-3.737161, 0.116020, -2.395218, 1.224141]),
        ("roformer", json!({}), 66, [1.020213, 2.200148, 0.657325, 0.907324]),
        ("bert-generation", json!({}), 59, [1.849378, -0.052887, 0.070196, 0.983699]),
        ("megatron-bert", json!({}), 64, [-0.384991, 1.280338, -0.617302, 0.642566]),
        ("xlm-roberta-xl", json!({}), 64, [-2.700537, 1.322572, 1.336537, 0.977460]),
        ("roberta-prelayernorm", json!({}), 66, [2.067709, -1.470053, -0.111720, 1.018553]),
        ("gpt2", json!({}), 45, [-1.473754, 0.080321, 1.823765, 0.980072]),
        ("trocr", json!({}), 57, [0.973617, -0.562331, 0.967462, 0.732826]),
        ("bart", json!({}), 57, [0.973617, -0.562331, 0.967462, 0.732826]),
        ("plbart", json!({}), 57, [1.348464, -0.892860, 0.935324, 0.728333]),
        ("mvp", json!({}), 57, [0.973617, -0.562331, 0.967462, 0.732826]),
        ("mbart", json!({}), 59, [0.967533, 0.098335, -0.157578, 0.889673]),
        ("marian", json!({}), 55, [0.896720, -1.248023, 0.781701, 0.694939]),
        ("pegasus", json!({}), 57, [0.580493, -0.723470, 0.011919, 0.902536]),
        ("bigbird_pegasus", json!({}), 41, [2.289009, -0.685691, 1.072870, 1.095319]),
        ("blenderbot", json!({}), 57, [0.125816, -0.004658, -0.129966, 0.940659]),
        ("blenderbot-small", json!({}), 57, [1.290396, -0.806623, 0.950180, 0.728696]),
        ("xglm", json!({}), 56, [2.157101, -0.851483, -1.268308, 1.271552]),
        ("prophetnet", json!({"pad_token_id": 0}), 63, [1.992535, -0.825927, 0.522849, 0.912236]),
        (
            "bert",
            json!({"position_embedding_type": "relative_key"}),
            66,
            [-0.576675, 1.509046, -0.340509, 0.721874],
        ),
        (
            "bert",
            json!({"position_embedding_type": "relative_key_query", "tie_word_embeddings": false}),
            66,
            [2.705338, -0.478842, -1.340023, 0.932326],
        ),
        (
            "roberta",
            json!({"hidden_act": "relu", "tie_word_embeddings": false}),
            64,
            [1.555380, -1.945248, 0.273293, 0.896395],
        ),
        ("electra", json!({"embedding_size": 16}), 63, [-0.755084, 0.004716, 0.188123, 0.988974]),
        ("roformer", json!({"rotary_value": true}), 66, [1.552871, 1.847166, 0.737920, 0.887902]),
        (
            "gpt2",
            json!({"scale_attn_by_inverse_layer_idx": true, "n_inner": 20, "tie_word_embeddings": false}),
            45,
            [1.259147, 0.271347, -1.110258, 0.760029],
        ),
        (
            "gpt2",
            json!({"scale_attn_weights": false, "activation_function": "relu"}),
            45,
            [-1.422599, -0.049985, 1.936478, 1.011642],
        ),
        (
            "trocr",
            json!({"use_learned_position_embeddings": false, "layernorm_embedding": false, "cross_attention_hidden_size": 12, "scale_embedding": true, "tie_word_embeddings": false, "activation_function": "relu"}),
            55,
            [-0.516997, 1.094745, 0.289303, 0.646129],
        ),
        (
            "trocr",
            json!({"cross_attention_hidden_size": 24, "activation_function": "gelu_new"}),
            57,
            [1.263252, -1.283869, 0.655553, 0.709951],
        ),
        ("bart", json!({"scale_embedding": true}), 57, [1.348464, -0.892860, 0.935324, 0.728333]),
        (
            "mbart",
            json!({"scale_embedding": true, "tie_word_embeddings": false}),
            59,
            [2.616204, 0.401597, -0.390496, 0.931999],
        ),
        (
            "marian",
            json!({"decoder_vocab_size": 41, "tie_word_embeddings": false}),
            55,
            [0.148403, -0.464670, -0.714848, 0.643646],
        ),
        (
            "bigbird_pegasus",
            json!({"use_bias": true, "scale_embedding": false}),
            57,
            [1.493719, -0.408354, 0.768854, 1.119420],
        ),
        ("xglm", json!({"scale_embedding": false}), 56, [2.037659, -0.833819, -1.348928, 1.281119]),
        (
            "prophetnet",
            json!({"pad_token_id": 0, "ngram": 3, "num_buckets": 4, "relative_max_distance": 5, "tie_word_embeddings": false}),
            63,
            [1.391497, -0.108030, -0.418530, 0.866577],
        ),
    ]
}

/// Names of a state dict, and of the logits: the last row's last token's, three of them, and the mean
/// of all absolute values. Both from the reference with the same weights and inputs.
#[test]
fn logits_are_those_of_the_reference() {
    for (model_type, changes, names, expected) in cases() {
        let json = tiny(model_type, &changes);
        let (decoder, store) = build(&json);
        let found = logits(decoder.as_ref(), &ids(), &states(&json), &[T]);
        let row = found.get(N - 1).get(T - 1);
        let mean = f64::try_from(found.abs().mean(Kind::Float)).unwrap();
        let found =
            [row.double_value(&[0]), row.double_value(&[17]), row.double_value(&[36]), mean];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{model_type} {changes}: {found}, {expected}");
        }
        let count = store.variables().len() + store.aliases().len();
        assert_eq!(count, names, "{model_type} {changes}");
    }
}

#[test]
fn every_row_has_a_case() {
    for arch in DECODERS {
        assert!(cases().iter().any(|case| case.0 == arch.model_type), "{}", arch.model_type);
    }
}

#[test]
fn the_cache_changes_nothing() {
    for (model_type, changes, ..) in cases() {
        let json = tiny(model_type, &changes);
        let (decoder, _) = build(&json);
        let ids = ids();
        // A padding token amid the others: some families give it no position.
        let _ = ids.get(1).get(2).fill_(1);
        let states = states(&json);
        let whole = logits(decoder.as_ref(), &ids, &states, &[T]);
        for parts in [&[1i64; T as usize][..], &[3, 1, 1, 1], &[1, 4, 1]] {
            let found = logits(decoder.as_ref(), &ids, &states, parts);
            let error = distance(&found, &whole);
            assert!(error < 1e-5, "{model_type} {changes} in {parts:?}: {error}");
        }
    }
}

#[test]
fn what_is_rewound_leaves_nothing() {
    let mut rewound = 0;
    for (model_type, changes, ..) in cases() {
        let json = tiny(model_type, &changes);
        let (decoder, _) = build(&json);
        let (ids, states) = (ids(), states(&json));
        let whole = logits(decoder.as_ref(), &ids, &states, &[T]);
        let mut cache = decoder.limits().cache();
        let mut read = |start: i64, length: i64, from: i64| {
            let part = ids.narrow(1, from, length);
            let hidden = tch::no_grad(|| decoder.forward(&part, &states, &mut cache, false));
            let rewinds = cache.rewinds();
            if start != from && rewinds {
                cache.rewind(start);
            }
            (decoder.logits(&hidden), rewinds)
        };
        let (first, rewinds) = read(0, 2, 0);
        if !rewinds {
            continue; // a draft is not written there
        }
        rewound += 1;
        // A step of one token and one of several that are forgotten.
        let _ = (read(2, 1, 0), read(2, 3, 1));
        let found = Tensor::cat(&[first, read(2, T - 3, 2).0, read(T - 1, 1, T - 1).0], 1);
        let error = distance(&found, &whole);
        assert!(error < 1e-5, "{model_type} {changes}: {error}");
    }
    assert!(rewound > 15, "{rewound}");
}

#[test]
fn rows_of_an_image_share_its_states() {
    for (model_type, changes, ..) in cases() {
        let json = tiny(model_type, &changes);
        let (decoder, _) = build(&json);
        let (ids, states) = (ids(), states(&json));
        let shared = logits(decoder.as_ref(), &ids, &states, &[2, 1, 1, 1, 1]);
        let copied = states.repeat_interleave_self_int(N / B, 0, None);
        let alone = logits(decoder.as_ref(), &ids, &copied, &[2, 1, 1, 1, 1]);
        let error = distance(&shared, &alone);
        assert!(error < 1e-5, "{model_type} {changes}: {error}");
        // The image matters, and a token sees none after it.
        let other = logits(decoder.as_ref(), &ids, &states.neg(), &[T]);
        assert!(distance(&other, &shared) > 1e-3, "{model_type} {changes}: the image is ignored");
        let changed = ids.copy();
        let _ = changed.narrow(1, T - 1, 1).fill_(30);
        let changed = logits(decoder.as_ref(), &changed, &states, &[T]);
        let before = |xs: &Tensor| xs.narrow(1, 0, T - 1);
        assert!(distance(&before(&changed), &before(&shared)) < 1e-5, "{model_type} {changes}");
        assert!(distance(&changed, &shared) > 1e-3, "{model_type} {changes}");
    }
}

#[test]
fn gradients_reach_every_trainable_variable() {
    for (model_type, changes, ..) in cases() {
        let json = tiny(model_type, &changes);
        let (decoder, store) = build(&json);
        for variable in store.variables().iter().filter(|variable| variable.trainable) {
            let _ = variable.tensor.set_requires_grad(true);
        }
        let mut cache = decoder.limits().cache();
        let hidden = decoder.forward(&ids(), &states(&json), &mut cache, true);
        decoder.logits(&hidden).square().sum(Kind::Float).backward();
        for variable in store.variables() {
            let reached = variable.tensor.grad().defined();
            assert_eq!(reached, variable.trainable, "{model_type} {changes}: {}", variable.name);
        }
    }
}

#[test]
fn limits_are_those_of_the_reference() {
    for (model_type, changes, ..) in cases() {
        let json = tiny(model_type, &changes);
        let limits = build(&json).0.limits();
        let positions = match model_type {
            // One row for the padding, one before it.
            "roberta"
            | "xlm-roberta"
            | "camembert"
            | "data2vec-text"
            | "xlm-roberta-xl"
            | "roberta-prelayernorm" => Some(18),
            // One for the padding, one for the token after the last.
            "prophetnet" => Some(18),
            "xglm" => None,
            _ => Some(20),
        };
        assert_eq!(limits.max_positions, positions, "{model_type}");
        assert_eq!((limits.hidden_size, limits.vocab_size, limits.layers), (16, 37, 2));
        let cross = json.get("cross_attention_hidden_size").and_then(Value::as_i64);
        assert_eq!(limits.cross_attention_size, cross, "{model_type}");
    }
}

#[test]
fn layers_may_be_computed_twice_instead_of_kept() {
    for (model_type, changes, ..) in cases() {
        let json = tiny(model_type, &changes);
        let (decoder, store) = build(&json);
        let states = states(&json).set_requires_grad(true);
        let trainable = store.variables().into_iter().filter(|variable| variable.trainable);
        let mut parameters: Vec<(String, Tensor)> =
            trainable.map(|v| (v.name, v.tensor.set_requires_grad(true))).collect();
        parameters.push(("states".to_string(), states.shallow_clone()));
        let entries = segment::tests::check(&parameters, || {
            let mut cache = decoder.limits().cache();
            let hidden = decoder.forward(&ids(), &states, &mut cache, false);
            decoder.logits(&hidden).square().mean(Kind::Float)
        });
        assert!(entries >= 3, "{model_type}: {entries} entries");
    }
}
