//! `size` and `crop_size`, in all the spellings that preprocessor files have had.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// The size that images are resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// To exactly this size; the aspect ratio is not kept.
    Exact { height: usize, width: usize },
    /// The shorter side becomes this long; the aspect ratio is kept.
    ShortestEdge(usize),
}

/// What a class reads into a bare number and a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling {
    pub(super) by_shortest_edge: bool,
    pub(super) list_is_width_first: bool,
}

impl Size {
    /// Reads the value of `key` (`get_size_dict` of transformers).
    pub(super) fn from_json(value: &Value, key: &str, spelling: Spelling) -> Result<Self> {
        let size = match value {
            Value::Number(_) if spelling.by_shortest_edge => Size::ShortestEdge(side(value, key)?),
            Value::Number(_) => {
                let side = side(value, key)?;
                Size::Exact { height: side, width: side }
            }
            Value::Array(sides) => {
                ensure!(sides.len() == 2, "{key} = {value} is not a size; a list has two numbers");
                let (first, second) = (side(&sides[0], key)?, side(&sides[1], key)?);
                if spelling.list_is_width_first {
                    Size::Exact { height: second, width: first }
                } else {
                    Size::Exact { height: first, width: second }
                }
            }
            Value::Object(map) => {
                let mut keys: Vec<_> = map.keys().map(String::as_str).collect();
                keys.sort_unstable();
                match keys[..] {
                    ["height", "width"] => Size::Exact {
                        height: side(&map["height"], key)?,
                        width: side(&map["width"], key)?,
                    },
                    // The classes here read the shortest edge alone, whatever the longest.
                    ["shortest_edge"] | ["longest_edge", "shortest_edge"] => {
                        Size::ShortestEdge(side(&map["shortest_edge"], key)?)
                    }
                    _ => bail!(
                        "{key} = {value} is not supported; it holds \"height\" and \"width\", \
                         or \"shortest_edge\""
                    ),
                }
            }
            _ => bail!("{key} = {value} is not a size"),
        };
        ensure!(
            spelling.by_shortest_edge || matches!(size, Size::Exact { .. }),
            "{key} = {value} gives no \"height\" and \"width\", which this image processor needs"
        );
        Ok(size)
    }

    /// The value as transformers writes it today.
    pub(super) fn to_json(self) -> Value {
        match self {
            Size::Exact { height, width } => json!({ "height": height, "width": width }),
            Size::ShortestEdge(edge) => json!({ "shortest_edge": edge }),
        }
    }
}

/// A side in pixels.
fn side(value: &Value, key: &str) -> Result<usize> {
    let side = value.as_u64().and_then(|side| usize::try_from(side).ok());
    let side = side.with_context(|| format!("{value} in {key} is not a number of pixels"))?;
    // An image that large would not fit any model, and could not be held.
    ensure!((1..=1 << 16).contains(&side), "{side} in {key} is not from 1 to 65536 pixels");
    Ok(side)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SQUARE: Spelling = Spelling { by_shortest_edge: false, list_is_width_first: false };
    const EDGE: Spelling = Spelling { by_shortest_edge: true, list_is_width_first: false };
    const DONUT: Spelling = Spelling { by_shortest_edge: false, list_is_width_first: true };

    #[test]
    fn all_spellings_are_read() {
        let exact = |height, width| Size::Exact { height, width };
        let cases = [
            (json!(224), SQUARE, exact(224, 224)),
            (json!(224), EDGE, Size::ShortestEdge(224)),
            (json!(224), DONUT, exact(224, 224)),
            (json!([30, 40]), SQUARE, exact(30, 40)),
            (json!([30, 40]), EDGE, exact(30, 40)),
            (json!([1920, 2560]), DONUT, exact(2560, 1920)),
            (json!({"height": 30, "width": 40}), SQUARE, exact(30, 40)),
            (json!({"width": 40, "height": 30}), DONUT, exact(30, 40)),
            (json!({"shortest_edge": 7}), EDGE, Size::ShortestEdge(7)),
            (json!({"shortest_edge": 7, "longest_edge": 9}), EDGE, Size::ShortestEdge(7)),
        ];
        for (value, spelling, size) in cases {
            assert_eq!(Size::from_json(&value, "size", spelling).unwrap(), size, "{value}");
        }
    }

    #[test]
    fn what_the_class_cannot_do_is_refused() {
        let cases = [
            (json!({"shortest_edge": 7}), SQUARE, "gives no \"height\" and \"width\""),
            (json!({"longest_edge": 7}), EDGE, "is not supported"),
            (json!({"max_height": 7, "max_width": 7}), SQUARE, "is not supported"),
            (json!({"height": 7}), SQUARE, "is not supported"),
            (json!([7]), SQUARE, "a list has two numbers"),
            (json!(0), SQUARE, "is not from 1 to 65536 pixels"),
            (json!(1_000_000), SQUARE, "is not from 1 to 65536 pixels"),
            (json!(-3), SQUARE, "is not a number of pixels"),
            (json!(2.5), SQUARE, "is not a number of pixels"),
            (json!("224"), SQUARE, "is not a size"),
        ];
        for (value, spelling, says) in cases {
            let error = Size::from_json(&value, "size", spelling).unwrap_err().to_string();
            assert!(error.contains(says), "{value}: {error}");
        }
    }
}
