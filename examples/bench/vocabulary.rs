//! Tokenizers of real size whose words mean nothing: opening one costs what opening a real one costs.

use serde_json::{Map, Value, json};

/// The tokenizers that the measured models have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Byte-level BPE; one special token ends, begins and pads.
    Gpt2,
    /// Byte-level BPE with <s> <pad> </s> <unk> <mask>.
    Roberta,
    /// Unigram, with the same five.
    XlmRoberta,
}

const ROBERTA: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
const END: &str = "<|endoftext|>";

/// tokenizer.json and tokenizer_config.json of a tokenizer with `size` tokens.
pub(crate) fn files(family: Family, size: usize) -> [(&'static str, Value); 2] {
    let (first, last): (&[&str], &str) = match family {
        Family::Gpt2 => (&[], END),
        Family::Roberta | Family::XlmRoberta => (&ROBERTA, "<mask>"),
    };
    let plain = size - first.len() - 1;
    let model = match family {
        Family::XlmRoberta => unigram(first, plain),
        Family::Gpt2 | Family::Roberta => bpe(first, plain),
    };
    let mut special: Vec<(usize, &str)> = first.iter().copied().enumerate().collect();
    special.push((size - 1, last));
    let tokens: Vec<Value> = special
        .iter()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let metaspace = json!({
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true,
    });
    let splitter = if family == Family::XlmRoberta { metaspace } else { byte_level };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens,
        "normalizer": null, "pre_tokenizer": splitter, "post_processor": null,
        "decoder": splitter, "model": model,
    });
    let config = match family {
        Family::Gpt2 => json!({
            "tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END,
            "unk_token": END,
        }),
        Family::Roberta | Family::XlmRoberta => json!({
            "tokenizer_class":
                if family == Family::Roberta { "RobertaTokenizer" } else { "XLMRobertaTokenizer" },
            "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
            "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
        }),
    };
    [("tokenizer.json", tokenizer), ("tokenizer_config.json", config)]
}

/// The 256 characters that stand for bytes, then merges of two tokens before them.
fn bpe(first: &[&str], plain: usize) -> Value {
    let letters = bytes();
    let mut tokens: Vec<String> = letters.iter().take(plain).cloned().collect();
    let mut merges = Vec::new();
    // Letters and the blank with each, then those pairs with each: no token comes twice.
    let small: Vec<String> = ('a'..='z').map(String::from).chain(["Ġ".to_string()]).collect();
    let mut stems = small.clone();
    while tokens.len() < plain {
        let mut longer = Vec::new();
        for (stem, letter) in stems.iter().flat_map(|stem| small.iter().map(move |l| (stem, l))) {
            if tokens.len() == plain {
                break;
            }
            // A blank begins a word.
            if letter == "Ġ" {
                continue;
            }
            merges.push(json!([stem, letter]));
            longer.push(format!("{stem}{letter}"));
            tokens.push(format!("{stem}{letter}"));
        }
        stems = longer;
    }
    let ids = first.iter().map(|token| token.to_string()).chain(tokens);
    let vocab: Map<String, Value> = ids.enumerate().map(|(id, token)| (token, json!(id))).collect();
    json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
        "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": false, "vocab": vocab, "merges": merges,
    })
}

/// GPT-2's `bytes_to_unicode`: printable bytes stand for themselves, the others from U+0100 on.
fn bytes() -> Vec<String> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 0x100;
    (0..256)
        .filter_map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).map(String::from)
        })
        .collect()
}

/// Words by rank, as sentencepiece stores them: the score falls with the logarithm of the rank.
fn unigram(first: &[&str], plain: usize) -> Value {
    let letters: Vec<char> = ('a'..='z').collect();
    let word = |mut number: usize| {
        let mut word = String::from(if number.is_multiple_of(2) { "▁" } else { "" });
        number /= 2;
        loop {
            word.push(letters[number % 26]);
            number /= 26;
            if number == 0 {
                return word;
            }
            number -= 1;
        }
    };
    let pieces = first.iter().map(|token| (token.to_string(), 0.0));
    let words = (0..plain).map(|number| (word(number), -((number + 2) as f64).ln()));
    let vocab: Vec<Value> =
        pieces.chain(words).map(|(piece, score)| json!([piece, score])).collect();
    json!({ "type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": false })
}
