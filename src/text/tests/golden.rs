//! The tokenizers against the reference: `tests/golden/make_tokenizers.py` wrote the expectations.

use std::fs;

use serde_json::Value;

use super::super::Tokenizer;
use super::{fixtures, json, materialise};

fn ids(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

fn check_decode(name: &str, tokenizer: &Tokenizer, ids: &[i64], plain: &Value, skipped: &Value) {
    for (skip, expected) in [(false, plain), (true, skipped)] {
        let text = tokenizer.decode(ids, skip);
        match expected.as_str() {
            Some(expected) => assert_eq!(text.unwrap(), expected, "{name}: {ids:?}, skip {skip}"),
            None => assert!(text.is_err(), "{name}: {ids:?} gave {text:?}"),
        }
    }
}

/// Every answer of the reference, and the same again after saving.
fn check(name: &str) {
    let case = json(&fixtures().join(format!("{name}.json")));
    let dir = materialise(&case);
    let tokenizer = Tokenizer::from_dir(dir.path(), None).unwrap();
    check_answers(name, &tokenizer, &case["expected"], false);
    let saved = tempfile::tempdir().unwrap();
    tokenizer.save(saved.path()).unwrap();
    for name in case["files"].as_object().unwrap().keys() {
        let copy = fs::read(saved.path().join(name)).unwrap();
        assert_eq!(copy, fs::read(dir.path().join(name)).unwrap(), "{name}");
    }
    let again = Tokenizer::from_dir(saved.path(), None).unwrap();
    check_answers(&format!("{name}, saved"), &again, &case["expected"], true);
}

fn check_answers(name: &str, tokenizer: &Tokenizer, expected: &Value, saved: bool) {
    assert_eq!(
        Value::from(tokenizer.clean_up_tokenization_spaces),
        expected["clean_up_tokenization_spaces"],
        "{name}"
    );
    let special = &tokenizer.special;
    for (attribute, found) in [
        ("bos", &special.bos),
        ("eos", &special.eos),
        ("unk", &special.unk),
        ("sep", &special.sep),
        ("pad", &special.pad),
        ("cls", &special.cls),
        ("mask", &special.mask),
    ] {
        let found = found.as_ref().map_or(Value::Null, |(t, id)| serde_json::json!([t, id]));
        assert_eq!(found, expected["special"][attribute], "{name}: {attribute}");
    }
    let additional: Vec<&str> =
        special.additional.iter().map(|(token, _)| token.as_str()).collect();
    assert_eq!(serde_json::json!(additional), expected["additional"], "{name}");
    let added = tokenizer.added_tokens();
    let expected_added = expected["added"].as_array().unwrap();
    assert_eq!(added.len(), expected_added.len(), "{name}");
    for ((id, t), expected) in added.into_iter().zip(expected_added) {
        // Reading tokenizer.json, the reference itself forgets whether mBART-50's mask was normalised.
        let normalized = if saved { expected[5].as_bool().unwrap() } else { t.normalized };
        let row = serde_json::json!([
            id,
            t.content,
            t.single_word,
            t.lstrip,
            t.rstrip,
            normalized,
            t.special
        ]);
        assert_eq!(&row, expected, "{name}");
    }
    assert_eq!(serde_json::json!(tokenizer.vocab_size()), expected["len"], "{name}");
    let texts = json(&fixtures().join("texts.json"));
    for (text, row) in texts.as_array().unwrap().iter().zip(expected["encode"].as_array().unwrap())
    {
        let text = text.as_str().unwrap();
        let encoded = ids(&row[0]);
        assert_eq!(tokenizer.encode(text, true).unwrap(), encoded, "{name}: {text:?}");
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&row[1]), "{name}: {text:?}");
        check_decode(name, tokenizer, &encoded, &row[2], &row[3]);
        check_stream(name, tokenizer, &encoded);
    }
    for row in expected["decode"].as_array().unwrap() {
        check_decode(name, tokenizer, &ids(&row[0]), &row[1], &row[2]);
    }
}

/// The pieces of a stream are the text, and none ends inside a character.
fn check_stream(name: &str, tokenizer: &Tokenizer, ids: &[i64]) {
    for skip in [false, true] {
        let mut stream = tokenizer.decode_stream(skip);
        let mut text = String::new();
        for id in ids {
            text.push_str(&stream.push(*id).unwrap());
        }
        text.push_str(&stream.finish().unwrap());
        assert_eq!(text, tokenizer.decode(ids, skip).unwrap(), "{name}: {ids:?}");
    }
}

macro_rules! cases {
    ($($test:ident $name:literal)*) => {$(
        #[test]
        fn $test() {
            check($name);
        }
    )*};
}

cases! {
    gpt2 "gpt2"
    gpt2_bos "gpt2-bos"
    gpt2_json "gpt2-json"
    stored_json "stored-json"
    roberta "roberta"
    roberta_legacy "roberta-legacy"
    roberta_added "roberta-added"
    bart "bart"
    blenderbot "blenderbot"
    bert_uncased "bert-uncased"
    bert_cased "bert-cased"
    electra_accents "electra-accents"
    bert_json "bert-json"
    bert_japanese_character "bert-japanese-character"
    bert_japanese_wordpiece "bert-japanese-wordpiece"
    xlm_roberta "xlm-roberta"
    xlm_roberta_charsmap "xlm-roberta-charsmap"
    xlm_roberta_bpe "xlm-roberta-bpe"
    donut "donut"
    mbart "mbart"
    mbart50 "mbart50"
    camembert "camembert"
    barthez "barthez"
    xglm "xglm"
    pegasus "pegasus"
    marian "marian"
    blenderbot_small "blenderbot-small"
}
