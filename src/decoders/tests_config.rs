//! Tests of what the rows make of their configs.

use std::rc::Rc;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::tests::{build, tiny};
use super::{DECODERS, find};
use crate::nn::{Params, Store};

/// The sentence with which a config is refused.
fn refusal(model_type: &str, changes: Value) -> String {
    let json = tiny(model_type, &changes);
    let store = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
    match (find(model_type).unwrap().build)(&json, &Params::root(store)) {
        Ok(_) => panic!("{model_type} accepts {changes}"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn unknown_values_are_refused_by_name() {
    for arch in DECODERS {
        let name = if arch.model_type == "gpt2" || (arch.defaults)().get("hidden_act").is_none() {
            "activation_function"
        } else {
            "hidden_act"
        };
        let found = refusal(arch.model_type, json!({ name: "softsign" }));
        assert_eq!(found, "activation \"softsign\" is not supported", "{}", arch.model_type);
        let found = refusal(arch.model_type, json!({ "cross_attention_hidden_size": "wide" }));
        assert!(found.contains("can't be read"), "{found}");
    }
    let table = [
        ("bert", json!({ "add_cross_attention": false }), "add_cross_attention = false"),
        ("gpt2", json!({ "add_cross_attention": false }), "add_cross_attention = false"),
        ("xglm", json!({ "add_cross_attention": false }), "add_cross_attention = false"),
        ("bert", json!({ "is_decoder": false }), "is_decoder = false"),
        ("bert", json!({ "num_attention_heads": 3 }), "no multiple of num_attention_heads 3"),
        (
            "bart",
            json!({ "decoder_attention_heads": 3 }),
            "no multiple of decoder_attention_heads 3",
        ),
        ("gpt2", json!({ "n_head": 3 }), "no multiple of n_head 3"),
        ("bert", json!({ "pad_token_id": 37 }), "pad_token_id 37 lies outside the 37 rows"),
        ("bert", json!({ "position_embedding_type": "rotary" }), "unknown variant `rotary`"),
        ("bert", json!({ "cross_attention_hidden_size": 12 }), "hidden_size 12 differs"),
        ("bart", json!({ "cross_attention_hidden_size": 12 }), "hidden_size 12 differs"),
        ("gpt2", json!({ "cross_attention_hidden_size": 12 }), "hidden_size 12 differs"),
        ("roberta", json!({ "max_position_embeddings": 2 }), "leaves no position"),
        (
            "ernie",
            json!({ "use_task_id": true, "task_type_vocab_size": 0 }),
            "task_type_vocab_size 0 is no size",
        ),
        ("mvp", json!({ "use_prompt": true }), "use_prompt = true is not supported"),
        ("roformer", json!({ "hidden_size": 12 }), "heads of even size"),
        ("prophetnet", json!({ "ngram": 0 }), "leaves no stream that predicts"),
        ("prophetnet", json!({ "num_decoder_attention_heads": 3 }), "no multiple of"),
        ("prophetnet", json!({ "num_buckets": 1 }), "leave no room for far tokens"),
        ("prophetnet", json!({ "max_position_embeddings": 3 }), "leaves no position"),
        ("megatron-bert", json!({ "position_embedding_type": "relative_key" }), "not supported"),
    ];
    for (model_type, changes, sentence) in table {
        let found = refusal(model_type, changes);
        assert!(found.contains(sentence), "{model_type}: {found}");
    }
}

#[test]
fn other_spellings_are_read() {
    let table = [
        ("gpt2", json!({ "hidden_size": 24, "num_hidden_layers": 1 }), (24, 1)),
        ("trocr", json!({ "hidden_size": 24, "num_hidden_layers": 1 }), (24, 1)),
        // BART's num_attention_heads is the encoder's.
        ("bart", json!({ "hidden_size": 24, "num_attention_heads": 5 }), (24, 2)),
        ("xglm", json!({ "hidden_size": 24, "num_hidden_layers": 1 }), (24, 1)),
    ];
    for (model_type, changes, (hidden_size, layers)) in table {
        let limits = build(&tiny(model_type, &changes)).0.limits();
        assert_eq!((limits.hidden_size, limits.layers), (hidden_size, layers), "{model_type}");
    }
    let limits = build(&tiny("trocr", &json!({ "encoder_hidden_size": 12 }))).0.limits();
    assert_eq!(limits.cross_attention_size, Some(12));
}

#[test]
fn refused_types_say_why() {
    let table = [
        ("distilbert", "takes its weights into a \"bert\" decoder"),
        ("opt", "has no cross-attention"),
        ("biogpt", "ignores the image"),
        ("t5", "no causal language model"),
        ("gpt_bigcode", "multi-query"),
        ("xlm-prophetnet", "given up by the reference"),
        ("grand-piano", "is not supported (supported: bert, roberta,"),
    ];
    for (model_type, sentence) in table {
        let found = match find(model_type) {
            Ok(_) => panic!("{model_type} is accepted"),
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(&format!("decoder type {model_type:?}")), "{found}");
        assert!(found.contains(sentence), "{found}");
    }
}

/// Weights drawn for new models follow each family's rule.
#[test]
fn new_variables_follow_their_familys_rule() {
    let drawn = |json: &Value, name: &str| {
        let store = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
        let arch = find(json["model_type"].as_str().unwrap()).unwrap();
        (arch.build)(json, &Params::root(store.clone())).unwrap();
        let found = store.variables().into_iter().find(|variable| variable.name == name);
        found.unwrap_or_else(|| panic!("no variable {name:?}")).tensor
    };
    let largest = |xs: &Tensor| f64::try_from(xs.abs().max()).unwrap();
    // The row of padding is zero, but for Megatron.
    for (model_type, name, zero) in [
        ("bert", "bert.embeddings.word_embeddings.weight", true),
        ("roberta", "roberta.embeddings.position_embeddings.weight", true),
        ("bart", "model.decoder.embed_tokens.weight", true),
        ("megatron-bert", "bert.embeddings.word_embeddings.weight", false),
    ] {
        let table = drawn(&tiny(model_type, &json!({})), name);
        assert_eq!(largest(&table.get(1)) == 0.0, zero, "{model_type}");
        assert!(largest(&table.get(2)) > 0.0, "{model_type}");
    }
    // GPT-2 draws what goes into the residual stream narrower: 0.02 / sqrt(2 * 2).
    let wide = json!({ "n_embd": 128, "n_head": 4 });
    let std = |name: &str| f64::try_from(drawn(&tiny("gpt2", &wide), name).std(false)).unwrap();
    assert!((std("transformer.h.1.attn.c_attn.weight") - 0.02).abs() < 1e-3);
    assert!((std("transformer.h.1.crossattention.c_proj.weight") - 0.01).abs() < 5e-4);
    assert!((std("transformer.h.1.mlp.c_proj.weight") - 0.01).abs() < 5e-4);
}

#[test]
fn layers_are_dropped_in_training_only() {
    // With every layer dropped, the image has no way to the logits.
    let json = tiny("bart", &json!({ "decoder_layerdrop": 1.0, "dropout": 0.0 }));
    let (decoder, _) = build(&json);
    let ids = Tensor::from_slice(&[2i64, 5, 6]).unsqueeze(0);
    let logits = |states: f64, train| {
        let states = Tensor::full([1, 5, 16], states, (Kind::Float, Device::Cpu));
        let mut cache = decoder.limits().cache();
        decoder.logits(&decoder.forward(&ids, &states, &mut cache, train))
    };
    assert!(logits(0.5, true).equal(&logits(-0.5, true)));
    assert!(!logits(0.5, false).equal(&logits(-0.5, false)));
}
