//! DistilBERT (Sanh et al. 2019) has no cross-attention in the reference, so no decoder of that type
//! exists; its weights fit a BERT of the same depth, whose token types are then all zero.

use serde_json::{Value, json};

/// The BERT config of a DistilBERT config.
pub(super) fn as_bert(json: &Value) -> Value {
    let get = |name: &str, default: Value| json.get(name).cloned().unwrap_or(default);
    json!({
        "model_type": "bert",
        "vocab_size": get("vocab_size", json!(30522)),
        "hidden_size": get("dim", json!(768)),
        "num_hidden_layers": get("n_layers", json!(6)),
        "num_attention_heads": get("n_heads", json!(12)),
        "intermediate_size": get("hidden_dim", json!(3072)),
        "hidden_act": get("activation", json!("gelu")),
        "hidden_dropout_prob": get("dropout", json!(0.1)),
        "attention_probs_dropout_prob": get("attention_dropout", json!(0.1)),
        "max_position_embeddings": get("max_position_embeddings", json!(512)),
        "initializer_range": get("initializer_range", json!(0.02)),
        "pad_token_id": get("pad_token_id", json!(0)),
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
    })
}

/// (in DistilBERT, in BERT), inside a layer and outside.
const PARTS: &[(&str, &str)] = &[
    ("attention.q_lin", "attention.self.query"),
    ("attention.k_lin", "attention.self.key"),
    ("attention.v_lin", "attention.self.value"),
    ("attention.out_lin", "attention.output.dense"),
    ("sa_layer_norm", "attention.output.LayerNorm"),
    ("ffn.lin1", "intermediate.dense"),
    ("ffn.lin2", "output.dense"),
    ("output_layer_norm", "output.LayerNorm"),
    ("vocab_transform", "cls.predictions.transform.dense"),
    ("vocab_layer_norm", "cls.predictions.transform.LayerNorm"),
    ("vocab_projector", "cls.predictions.decoder"),
];

/// The name in a BERT decoder of a key of a DistilBERT file.
pub(super) fn new_name(key: &str) -> Option<String> {
    let key = key.strip_prefix("distilbert.").unwrap_or(key);
    if key == "vocab_projector.bias" {
        return Some("cls.predictions.bias".to_string());
    }
    if key.starts_with("embeddings.") {
        return Some(format!("bert.{key}"));
    }
    let (module, leaf) = key.rsplit_once('.')?;
    if let Some(rest) = module.strip_prefix("transformer.layer.") {
        let (index, part) = rest.split_once('.')?;
        let (_, name) = PARTS.iter().find(|(from, _)| *from == part)?;
        return Some(format!("bert.encoder.layer.{index}.{name}.{leaf}"));
    }
    let (_, name) = PARTS.iter().find(|(from, _)| *from == module)?;
    Some(format!("{name}.{leaf}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distilbert_becomes_bert() {
        let table = [
            (
                "distilbert.transformer.layer.3.attention.q_lin.weight",
                Some("bert.encoder.layer.3.attention.self.query.weight"),
            ),
            ("transformer.layer.0.ffn.lin2.bias", Some("bert.encoder.layer.0.output.dense.bias")),
            (
                "distilbert.embeddings.word_embeddings.weight",
                Some("bert.embeddings.word_embeddings.weight"),
            ),
            ("vocab_projector.bias", Some("cls.predictions.bias")),
            ("vocab_projector.weight", Some("cls.predictions.decoder.weight")),
            ("vocab_transform.weight", Some("cls.predictions.transform.dense.weight")),
            ("classifier.weight", None),
        ];
        for (key, expected) in table {
            assert_eq!(new_name(key).as_deref(), expected, "{key}");
        }
    }
}
