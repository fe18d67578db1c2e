//! Legacy names of tensors, and the only place where keys change.

/// The current name of a legacy key, or `None` where it is current already: the layer norms of
/// models that came from TensorFlow (`_fix_state_dict_key_on_load` of transformers 4.57.6).
pub(super) fn current_name(key: &str) -> Option<String> {
    if key.ends_with("LayerNorm.gamma") {
        return Some(key.replace("LayerNorm.gamma", "LayerNorm.weight"));
    }
    if key.ends_with("LayerNorm.beta") {
        return Some(key.replace("LayerNorm.beta", "LayerNorm.bias"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_layer_norms_change() {
        let check = |key: &str, expected: Option<&str>| {
            assert_eq!(current_name(key).as_deref(), expected, "{key}");
        };
        check("bert.embeddings.LayerNorm.gamma", Some("bert.embeddings.LayerNorm.weight"));
        check("bert.embeddings.LayerNorm.beta", Some("bert.embeddings.LayerNorm.bias"));
        check("encoder.encoder.layer.0.lambda_1", None);
        check("encoder.layer.0.norm.gamma", None);
        check("LayerNorm.gamma.more", None);
    }
}
