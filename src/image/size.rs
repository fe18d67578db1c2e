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
    /// The same, unless the longer side would become longer than `longest`: then that is its length.
    Edges { shortest: usize, longest: usize },
    /// As large as fits in here; the aspect ratio is kept.
    Within { height: usize, width: usize },
}

/// What a class reads into `size`; each takes a height and a width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// A bare number is both sides.
    Sides,
    /// Also a shortest edge, which a bare number is. The longest edge beside it is not looked at.
    ShortestEdge,
    /// Also both edges, or the largest height and width. A bare number is the shortest edge.
    BothEdges,
    /// Also one edge or both, or the largest height and width. A bare number is both sides.
    Any,
}

/// What a class reads into a bare number and a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling {
    pub(super) sizes: Sizes,
    pub(super) list_is_width_first: bool,
    /// The longest edge that goes with a bare number.
    pub(super) longest: Option<usize>,
}

impl Spelling {
    /// A height and a width, or a number for both.
    pub(super) const SIDES: Self =
        Spelling { sizes: Sizes::Sides, list_is_width_first: false, longest: None };

    fn number(self, side: usize) -> Size {
        match (self.sizes, self.longest) {
            (Sizes::Sides | Sizes::Any, _) => Size::Exact { height: side, width: side },
            (Sizes::BothEdges, Some(longest)) => Size::Edges { shortest: side, longest },
            (Sizes::BothEdges, None) | (Sizes::ShortestEdge, _) => Size::ShortestEdge(side),
        }
    }

    fn takes(self, size: Size) -> bool {
        match size {
            Size::Exact { .. } => true,
            Size::ShortestEdge(_) => matches!(self.sizes, Sizes::ShortestEdge | Sizes::Any),
            Size::Edges { .. } | Size::Within { .. } => {
                matches!(self.sizes, Sizes::BothEdges | Sizes::Any)
            }
        }
    }

    /// What is missing where the class does not take a size.
    fn needs(self) -> &'static str {
        match self.sizes {
            Sizes::BothEdges => "\"shortest_edge\" and \"longest_edge\"",
            _ => "\"height\" and \"width\"",
        }
    }
}

impl Size {
    /// Reads the value of `key` (`get_size_dict` of transformers).
    pub(super) fn from_json(value: &Value, key: &str, spelling: Spelling) -> Result<Self> {
        let size = match value {
            Value::Number(_) => spelling.number(side(value, key)?),
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
                let side = |name: &str| side(&map[name], key);
                match keys[..] {
                    ["height", "width"] => {
                        Size::Exact { height: side("height")?, width: side("width")? }
                    }
                    ["longest_edge", "shortest_edge"] if spelling.sizes != Sizes::ShortestEdge => {
                        let longest = side("longest_edge")?;
                        Size::Edges { shortest: side("shortest_edge")?, longest }
                    }
                    ["shortest_edge"] | ["longest_edge", "shortest_edge"] => {
                        Size::ShortestEdge(side("shortest_edge")?)
                    }
                    ["max_height", "max_width"]
                        if matches!(spelling.sizes, Sizes::BothEdges | Sizes::Any) =>
                    {
                        Size::Within { height: side("max_height")?, width: side("max_width")? }
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
            spelling.takes(size),
            "{key} = {value} gives no {}, which this image processor needs",
            spelling.needs()
        );
        Ok(size)
    }

    /// The value as transformers writes it today.
    pub(super) fn to_json(self) -> Value {
        match self {
            Size::Exact { height, width } => json!({ "height": height, "width": width }),
            Size::ShortestEdge(edge) => json!({ "shortest_edge": edge }),
            Size::Edges { shortest, longest } => {
                json!({ "shortest_edge": shortest, "longest_edge": longest })
            }
            Size::Within { height, width } => json!({ "max_height": height, "max_width": width }),
        }
    }

    /// The size whose ratio to a crop of `new` (height, width) is that of this one to `old`.
    pub(super) fn for_crop(self, old: (usize, usize), new: (usize, usize)) -> Self {
        let (old, new) = ((old.0.max(1), old.1.max(1)), (new.0, new.1));
        let edge = |edge: usize| (edge * new.0.min(new.1)).div_ceil(old.0.min(old.1));
        let rows = |height: usize| (height * new.0).div_ceil(old.0);
        let columns = |width: usize| (width * new.1).div_ceil(old.1);
        match self {
            Size::Exact { height, width } => {
                Size::Exact { height: rows(height), width: columns(width) }
            }
            Size::ShortestEdge(shortest) => Size::ShortestEdge(edge(shortest)),
            Size::Edges { shortest, longest } => {
                Size::Edges { shortest: edge(shortest), longest: edge(longest) }
            }
            Size::Within { height, width } => {
                Size::Within { height: rows(height), width: columns(width) }
            }
        }
    }
}

/// A side in pixels.
pub(super) fn side(value: &Value, key: &str) -> Result<usize> {
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

    const SQUARE: Spelling = Spelling::SIDES;
    const EDGE: Spelling = Spelling { sizes: Sizes::ShortestEdge, ..SQUARE };
    const DONUT: Spelling = Spelling { list_is_width_first: true, ..SQUARE };
    const YOLOS: Spelling = Spelling { sizes: Sizes::BothEdges, longest: Some(1333), ..SQUARE };
    const ANY: Spelling = Spelling { sizes: Sizes::Any, ..SQUARE };

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
            (json!(800), YOLOS, Size::Edges { shortest: 800, longest: 1333 }),
            (json!([30, 40]), YOLOS, exact(30, 40)),
            (
                json!({"shortest_edge": 7, "longest_edge": 9}),
                YOLOS,
                Size::Edges { shortest: 7, longest: 9 },
            ),
            (json!({"max_height": 7, "max_width": 9}), YOLOS, Size::Within { height: 7, width: 9 }),
            (json!(224), ANY, exact(224, 224)),
            (json!({"shortest_edge": 7}), ANY, Size::ShortestEdge(7)),
            (
                json!({"longest_edge": 9, "shortest_edge": 7}),
                ANY,
                Size::Edges { shortest: 7, longest: 9 },
            ),
        ];
        for (value, spelling, size) in cases {
            assert_eq!(Size::from_json(&value, "size", spelling).unwrap(), size, "{value}");
        }
    }

    #[test]
    fn what_the_class_cannot_do_is_refused() {
        let cases = [
            (json!({"shortest_edge": 7}), SQUARE, "gives no \"height\" and \"width\""),
            (
                json!({"shortest_edge": 7, "longest_edge": 9}),
                SQUARE,
                "gives no \"height\" and \"width\"",
            ),
            (json!({"longest_edge": 7}), EDGE, "is not supported"),
            (json!({"max_height": 7, "max_width": 7}), EDGE, "is not supported"),
            (json!({"shortest_edge": 7}), YOLOS, "gives no \"shortest_edge\" and \"longest_edge\""),
            (
                json!(7),
                Spelling { longest: None, ..YOLOS },
                "gives no \"shortest_edge\" and \"longest_edge\"",
            ),
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
