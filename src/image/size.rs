//! The spellings of `size` and `crop_size` in preprocessor_config.json (the reference's `get_size_dict`).

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A size, once its spelling is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Exact {
        height: usize,
        width: usize,
    },
    /// The short side becomes `edge`; the long one keeps the aspect, at most `longest`.
    ShortestEdge {
        edge: usize,
        longest: Option<usize>,
    },
}

/// What a lone number means, and how a list is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// 224 is a square; a list is [height, width].
    Square,
    /// 224 is the short side; a list is [height, width].
    Short,
    /// 224 is a square; a list is [width, height] (Donut).
    WidthFirst,
}

/// Sides beyond this are mistakes.
const LARGEST: u64 = 16_384;

fn side(value: &Value) -> Result<usize> {
    // Some files write 224.0.
    let side = value.as_u64().or_else(|| {
        value.as_f64().filter(|side| side.fract() == 0.0 && *side >= 0.0).map(|side| side as u64)
    });
    let side = side.with_context(|| format!("{value} is no side"))?;
    ensure!((1..=LARGEST).contains(&side), "{side} is no usable side (1 to {LARGEST} are)");
    Ok(side as usize)
}

impl Size {
    pub(super) fn parse(value: &Value, spelling: Spelling) -> Result<Self> {
        match value {
            Value::Number(_) => {
                let side = side(value)?;
                Ok(match spelling {
                    Spelling::Short => Size::ShortestEdge { edge: side, longest: None },
                    _ => Size::Exact { height: side, width: side },
                })
            }
            Value::Array(pair) if pair.len() == 2 => {
                let (first, second) = (side(&pair[0])?, side(&pair[1])?);
                Ok(match spelling {
                    Spelling::WidthFirst => Size::Exact { height: second, width: first },
                    _ => Size::Exact { height: first, width: second },
                })
            }
            Value::Object(map) => {
                let get = |name: &str| map.get(name).filter(|v| !v.is_null()).map(side).transpose();
                match (get("height")?, get("width")?, get("shortest_edge")?) {
                    (Some(height), Some(width), None) => Ok(Size::Exact { height, width }),
                    (None, None, Some(edge)) => {
                        Ok(Size::ShortestEdge { edge, longest: get("longest_edge")? })
                    }
                    _ => bail!("{value} has neither height and width nor shortest_edge"),
                }
            }
            _ => bail!("{value} is no size"),
        }
    }

    /// (height, width) of a picture of this height and width after the resize.
    pub(super) fn of(self, height: usize, width: usize) -> (usize, usize) {
        match self {
            Size::Exact { height, width } => (height, width),
            Size::ShortestEdge { edge, longest } => shortest_edge(height, width, edge, longest),
        }
    }
}

/// The reference's `get_resize_output_image_size`, which truncates. -> (height, width)
pub(super) fn shortest_edge(
    height: usize,
    width: usize,
    edge: usize,
    longest: Option<usize>,
) -> (usize, usize) {
    let (short, long) = if width <= height { (width, height) } else { (height, width) };
    let scaled = |a: usize, b: usize, c: usize| (((a * b) as f64 / c as f64) as usize).max(1);
    let (mut new_short, mut new_long) = (edge, scaled(edge, long, short));
    if let Some(most) = longest.filter(|most| new_long > *most) {
        (new_short, new_long) = (scaled(most, new_short, new_long), most);
    }
    if width <= height { (new_long, new_short) } else { (new_short, new_long) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spellings_are_understood() {
        let exact = |height, width| Some(Size::Exact { height, width });
        let table = [
            (json!(224), Spelling::Square, exact(224, 224)),
            (json!(224), Spelling::Short, Some(Size::ShortestEdge { edge: 224, longest: None })),
            (json!([10, 20]), Spelling::Square, exact(10, 20)),
            (json!([1920, 2560]), Spelling::WidthFirst, exact(2560, 1920)),
            (json!({"height": 3, "width": 4}), Spelling::Short, exact(3, 4)),
            (
                json!({"shortest_edge": 8, "longest_edge": 9}),
                Spelling::Square,
                Some(Size::ShortestEdge { edge: 8, longest: Some(9) }),
            ),
            (json!({"longest_edge": 9}), Spelling::Square, None),
            (json!(0), Spelling::Square, None),
            (json!("224"), Spelling::Square, None),
            (json!([1, 2, 3]), Spelling::Square, None),
        ];
        for (value, spelling, expected) in table {
            assert_eq!(Size::parse(&value, spelling).ok(), expected, "{value}");
        }
    }

    #[test]
    fn the_long_side_is_cut_off() {
        assert_eq!(shortest_edge(500, 3, 224, None), (37333, 224));
        assert_eq!(shortest_edge(480, 640, 256, None), (256, 341));
        assert_eq!(shortest_edge(480, 640, 256, Some(300)), (225, 300));
    }
}
