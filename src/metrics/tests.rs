//! Agreement with the public implementations, and the rules of our own.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::Value;

use super::*;

fn fixture() -> (Value, Vec<Item>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics/metrics.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
    };
    let references = json["references"].as_array().unwrap().iter().map(texts);
    let hypotheses = texts(&json["hypotheses"]);
    let items = references.zip(hypotheses);
    let items = items.map(|(references, hypothesis)| Item { references, hypothesis }).collect();
    (json, items)
}

#[track_caller]
fn close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-9, "{what}: {found}, expected {expected}");
}

fn first_only(items: &[Item]) -> Vec<Item> {
    let mut items = items.to_vec();
    items.iter_mut().for_each(|item| item.references.truncate(1));
    items
}

#[test]
fn error_rates_agree_with_jiwer() {
    let (json, items) = fixture();
    let items = first_only(&items);
    let scores = score(&items, false);
    close(scores.cer, &json["cer"], "CER");
    close(scores.wer, &json["wer"], "WER");
    for (index, item) in items.iter().enumerate() {
        let scores = score(std::slice::from_ref(item), false);
        close(scores.cer, &json["cer_each"][index], &item.hypothesis);
        close(scores.wer, &json["wer_each"][index], &item.hypothesis);
    }
}

#[test]
fn bleu_agrees_with_sacrebleu() {
    let (json, items) = fixture();
    let table = [
        ("bleu", &items[..], false),
        ("bleu_lowercase", &items[..], true),
        ("bleu_first_five", &items[..5], false),
    ];
    for (name, items, ignore_case) in table {
        let scores = score(items, ignore_case);
        let found = [scores.bleu_1, scores.bleu_2, scores.bleu_3, scores.bleu_4];
        for (order, found) in found.into_iter().enumerate() {
            close(found, &json[name][order], name);
        }
    }
    assert_eq!(bleu::corpus(&[(vec!["a b c d"], "e f g h")]), [0.0; 4]);
    assert_eq!(json["bleu_nothing"], serde_json::json!([0.0, 0.0, 0.0, 0.0]));
}

#[test]
fn rouge_l_agrees_with_rouge_score() {
    let (json, items) = fixture();
    for (index, item) in items.iter().enumerate() {
        let references: Vec<&str> = item.references.iter().map(String::as_str).collect();
        let found = rouge::rouge_l(&references, &item.hypothesis);
        close(found, &json["rouge_l_each"][index], &item.hypothesis);
    }
}

#[test]
fn cider_d_agrees_with_pycocoevalcap() {
    let (json, items) = fixture();
    let words = |text: &String| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let items: Vec<_> = items
        .iter()
        .map(|item| (item.references.iter().map(words).collect(), words(&item.hypothesis)))
        .collect();
    let found = cider::cider_d(&items);
    for (index, found) in found.iter().enumerate() {
        close(*found, &json["cider_each"][index], &format!("item {index}"));
    }
    close(found.iter().sum::<f64>() / found.len() as f64, &json["cider"], "the mean");
}

#[test]
fn equal_texts_get_equal_scores_to_the_last_bit() {
    let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    let long =
        "the quick brown fox jumps over a lazy dog and runs from the old cat on its way home";
    let items: Vec<_> = (0..40)
        .map(|item| {
            let reference: Vec<String> =
                words(long).into_iter().cycle().skip(item).take(12 + item % 7).collect();
            (vec![reference.clone()], reference[..10].to_vec())
        })
        .collect();
    let first = cider::cider_d(&items);
    for _ in 0..20 {
        assert_eq!(cider::cider_d(&items), first);
    }
}

#[test]
fn the_nearest_reference_counts() {
    let item = Item {
        references: vec!["a black cat".to_string(), "The  Dog\n".to_string()],
        hypothesis: " the dog".to_string(),
    };
    let scores = score(std::slice::from_ref(&item), false);
    assert_eq!((scores.counts.character_edits, scores.counts.characters), (2, 7));
    assert_eq!((scores.counts.word_edits, scores.counts.words, scores.counts.exact), (3, 3, 0));
    let scores = score(&[item], true);
    assert_eq!((scores.cer, scores.wer, scores.exact_match), (0.0, 0.0, 1.0));
}

#[test]
fn texts_are_compared_in_one_form() {
    let table = [
        ("  a \t b\n", false, "a b"),
        ("e\u{301}", false, "\u{e9}"),
        ("É", true, "é"),
        ("", true, ""),
    ];
    for (text, ignore_case, expected) in table {
        assert_eq!(normalize(text, ignore_case), expected, "{text:?}");
    }
    assert_eq!(score(&[], false), Scores::default());
}

#[test]
fn captions_are_cut_into_words() {
    let table = [
        ("A dog's t-shirt, -- \"red\" .", vec!["a", "dog's", "t-shirt", "red"]),
        ("Zwei Männer（im Park）。", vec!["zwei", "männer", "im", "park"]),
        ("...", vec![]),
        ("'quoted' it\u{2019}s", vec!["quoted", "it's"]),
    ];
    for (text, expected) in table {
        assert_eq!(caption_words(text), expected, "{text}");
    }
}
