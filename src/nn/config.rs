//! Reading a family's part of config.json into its `Config` struct.

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The family's defaults overlaid with the file, as `PretrainedConfig.__init__` does it.
///
/// `aliases` holds (other spelling, name) pairs (the reference's `attribute_map`); the other spelling
/// wins, because the reference applies it after the named arguments. A null keeps the default; where that is
/// true or false it is a no, as Python takes it.
pub fn merge(defaults: Value, json: &Value, aliases: &[(&str, &str)]) -> Map<String, Value> {
    let mut merged = match defaults {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    if let Value::Object(given) = json {
        for (key, value) in given {
            if !value.is_null() {
                merged.insert(key.clone(), value.clone());
            } else if let Some(default @ Value::Bool(_)) = merged.get_mut(key) {
                *default = Value::Bool(false);
            }
        }
        for (alias, name) in aliases {
            if let Some(value) = given.get(*alias).filter(|value| !value.is_null()) {
                merged.insert(name.to_string(), value.clone());
            }
        }
    }
    merged
}

/// `merge`, read into the struct; an error names the model type and the field.
pub fn read<T: DeserializeOwned>(
    defaults: Value,
    json: &Value,
    aliases: &[(&str, &str)],
) -> Result<T> {
    parse(merge(defaults, json, aliases))
}

/// Merged fields, read into the struct; an error names the model type and the field.
pub fn parse<T: DeserializeOwned>(merged: Map<String, Value>) -> Result<T> {
    let model_type = merged.get("model_type").and_then(Value::as_str).unwrap_or("?").to_string();
    // Field by field errors of serde do not say which field had the wrong type; its path does.
    serde_json::from_value(Value::Object(merged))
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("the config of {model_type:?} can't be read"))
}

/// An image or patch size in a config: `224`, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(untagged)]
pub enum Size2 {
    Square(i64),
    Pair([i64; 2]),
}

impl Size2 {
    /// (height, width)
    pub fn pair(self) -> (i64, i64) {
        match self {
            Size2::Square(side) => (side, side),
            Size2::Pair([height, width]) => (height, width),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_are_no_and_else_nothing() {
        let defaults = json!({"qkv_bias": true, "scale": false, "width": 8, "pad": 1});
        let file = json!({"qkv_bias": null, "scale": null, "width": null, "n": 2, "more": null});
        let merged = Value::Object(merge(defaults, &file, &[("n", "pad")]));
        let expected = json!({"qkv_bias": false, "scale": false, "width": 8, "pad": 2, "n": 2});
        assert_eq!(merged, expected);
    }
}
