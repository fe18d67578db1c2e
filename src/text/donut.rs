//! Donut's answers: tagged text to JSON (`DonutProcessor.token2json`).

use std::collections::HashSet;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::slow::is_space;

/// The reference recurses and meets its interpreter's limit of 1000.
const MAX_DEPTH: usize = 500;

/// Turns `<s_key>value</s_key>` into `{"key": "value"}`, with lists at `<sep/>`. Text without a tag
/// gives `{"text_sequence": text}`. `added_vocab` are the added tokens: of those, `<yes/>` loses its
/// marks.
pub(super) fn token2json(tokens: &str, added_vocab: &HashSet<String>) -> Result<Value> {
    let mut rest = tokens.to_owned();
    let mut parsed = parse(&mut rest, added_vocab, 0)?;
    Ok(match (parsed.list, parsed.items.pop()) {
        (false, Some(output)) if !output.is_empty() => Value::Object(output),
        (false, _) => Value::Object(Map::from_iter([("text_sequence".to_owned(), rest.into())])),
        (true, last) => {
            parsed.items.extend(last);
            Value::Array(parsed.items.into_iter().map(Value::Object).collect())
        }
    })
}

/// The objects of one level.
struct Parsed {
    items: Vec<Map<String, Value>>,
    /// Whether a `<sep/>` stood between them.
    list: bool,
}

/// Reads one level; `tokens` is what stays unread.
fn parse(tokens: &mut String, added_vocab: &HashSet<String>, depth: usize) -> Result<Parsed> {
    if depth > MAX_DEPTH {
        bail!("the tags are nested deeper than {MAX_DEPTH}");
    }
    let mut parsed = Parsed { items: Vec::new(), list: false };
    let mut output = Map::new();
    while let Some((start, opening)) = find_ignoring_case(tokens, "<s_") {
        let Some(close) = tokens[start..].find('>') else { break };
        let start_token = tokens[start..=start + close].to_owned();
        // `<s_>` has an empty key.
        let key = start_token[opening..start_token.len() - 1].to_owned();
        let Some((end, len)) = find_ignoring_case(tokens, &format!("</s_{key}>")) else {
            *tokens = tokens.replace(&start_token, "");
            continue;
        };
        let end_token = tokens[end..end + len].to_owned();
        if let Some(content) = between(tokens, &start_token, &end_token) {
            let content = strip(content).to_owned();
            if content.contains("<s_") && content.contains("</s_") {
                insert_node(&mut output, key, content, added_vocab, depth)?;
            } else {
                output.insert(key, leaves(&content, added_vocab));
            }
        }
        let after = tokens.find(&end_token).map_or(0, |at| at + end_token.len());
        *tokens = strip(&tokens[after..]).to_owned();
        if let Some(next) = tokens.strip_prefix("<sep/>") {
            *tokens = next.to_owned();
            parsed.items.push(std::mem::take(&mut output));
            parsed.list = true;
        }
    }
    // After a `<sep/>` an empty object adds nothing; alone it says that nothing was found.
    if !output.is_empty() {
        parsed.items.push(output);
    }
    Ok(parsed)
}

fn insert_node(
    output: &mut Map<String, Value>,
    key: String,
    mut content: String,
    added_vocab: &HashSet<String>,
    depth: usize,
) -> Result<()> {
    let mut values = parse(&mut content, added_vocab, depth + 1)?.items;
    let value = match (values.len(), values.pop()) {
        (1, Some(only)) => Value::Object(only),
        (_, Some(last)) => {
            values.push(last);
            Value::Array(values.into_iter().map(Value::Object).collect())
        }
        (_, None) => return Ok(()),
    };
    output.insert(key, value);
    Ok(())
}

fn leaves(content: &str, added_vocab: &HashSet<String>) -> Value {
    let mut leaves: Vec<Value> = content
        .split("<sep/>")
        .map(|leaf| {
            let leaf = strip(leaf);
            let category = leaf.strip_prefix('<').and_then(|leaf| leaf.strip_suffix("/>"));
            category.filter(|_| added_vocab.contains(leaf)).unwrap_or(leaf).into()
        })
        .collect();
    match leaves.len() {
        1 => leaves.remove(0),
        _ => Value::Array(leaves),
    }
}

/// What stands between the first `start` and the first `end` after it, whatever their case.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (at, len) = find_ignoring_case(text, start)?;
    let content = &text[at + len..];
    let (len, _) = find_ignoring_case(content, end)?;
    Some(&content[..len])
}

/// Place and length of the first match of `pattern`, with the case rules of Python's `re.IGNORECASE`.
fn find_ignoring_case(text: &str, pattern: &str) -> Option<(usize, usize)> {
    let pattern: Vec<char> = pattern.chars().map(fold).collect();
    text.char_indices().find_map(|(at, _)| {
        let mut chars = text[at..].chars();
        let mut len = 0;
        for expected in &pattern {
            let c = chars.next().filter(|c| fold(*c) == *expected)?;
            len += c.len_utf8();
        }
        Some((at, len))
    })
}

/// One character in lower case; the long s and the dotless i count as s and i, as in Python.
fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{130}' | '\u{131}' => 'i',
        _ => c.to_lowercase().next().unwrap_or(c),
    }
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_by_the_reference() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizers/donut-forms.json");
        let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let vocab = fixture["added_vocab"].as_array().unwrap();
        let vocab = vocab.iter().map(|token| token.as_str().unwrap().to_owned()).collect();
        for form in fixture["forms"].as_array().unwrap() {
            let text = form[0].as_str().unwrap();
            let json = token2json(text, &vocab).unwrap();
            assert_eq!(json.to_string(), form[1].to_string(), "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let text = "<s_a>".repeat(2000) + &"</s_a>".repeat(2000);
        let nested: String = (0..1000).map(|i| format!("<s_{i}>")).collect();
        let closed: String = (0..1000).rev().map(|i| format!("</s_{i}>")).collect();
        assert!(token2json(&(nested + "x" + &closed), &HashSet::new()).is_err());
        token2json(&text, &HashSet::new()).unwrap();
    }
}
