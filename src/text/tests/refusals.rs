//! What is missing or damaged is told in a sentence.

use std::path::Path;

use super::super::Tokenizer;
use super::{directory, fixture};

/// The sentence of a refusal, with the directory taken out.
fn refusal(files: &[(&str, &[u8])], decoder_model_type: Option<&str>) -> String {
    let dir = directory(files);
    let path = dir.path().to_str().unwrap().to_owned();
    match Tokenizer::from_dir(dir.path(), decoder_model_type) {
        Ok(tokenizer) => panic!("{} was accepted", tokenizer.class_name()),
        Err(error) => format!("{error:#}").replace(&path, "DIR"),
    }
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        refusal(&[], Some("gpt2")),
        "no tokenizer in \"DIR\": looked for tokenizer.json, vocab.json with merges.txt, vocab.txt, \
         sentencepiece.bpe.model, spiece.model (with a tokenizer_class), and source.spm with target.spm \
         and vocab.json; copy the tokenizer files of the decoder there"
    );
    let roberta = br#"{"tokenizer_class": "RobertaTokenizerFast"}"#;
    assert_eq!(
        refusal(&[("tokenizer_config.json", roberta), ("vocab.json", b"{}")], None),
        "no tokenizer in \"DIR\": RobertaTokenizerFast needs merges.txt (or tokenizer.json), not there"
    );
    assert_eq!(
        refusal(&[("config.json", br#"{"tokenizer_class": "BertJapaneseTokenizer"}"#)], None),
        "no tokenizer in \"DIR\": BertJapaneseTokenizer needs vocab.txt, not there"
    );
    assert_eq!(
        refusal(&[("tokenizer_config.json", br#"{"tokenizer_class": "T5Tokenizer"}"#)], None),
        "\"DIR\": tokenizer_class \"T5Tokenizer\" can only be used with a tokenizer.json, and there is none; \
         save the tokenizer once with its fast class and copy tokenizer.json there"
    );
    let missing = Tokenizer::from_dir(Path::new("/no/such/place"), None).err().unwrap();
    assert_eq!(missing.to_string(), "\"/no/such/place\" is not a directory");
}

#[test]
fn damaged_files_are_told() {
    let gpt2 = fixture("gpt2-vocab.json");
    let merges = fixture("gpt2-merges.txt");
    let json = fixture("gpt2-tokenizer.json");
    let long = "a".repeat(9);
    let long = format!(r#"{{"{long}": 0, "b": 1, "é": 2}}"#);
    let model = fixture("fairseq.model");
    for (files, expected) in [
        (
            vec![("tokenizer.json", &json[..json.len() / 2])],
            "\"DIR/tokenizer.json\" is not valid JSON",
        ),
        (
            vec![("tokenizer.json", b"{}".as_slice())],
            "\"DIR/tokenizer.json\" is not a tokenizer that",
        ),
        (vec![("tokenizer.json", b"\xff\xfe")], "\"DIR/tokenizer.json\" is not valid JSON"),
        (
            vec![("tokenizer_config.json", b"[1]")],
            "\"DIR/tokenizer_config.json\" does not hold a JSON object",
        ),
        (vec![("config.json", b"{")], "\"DIR/config.json\" is not valid JSON"),
        (vec![("vocab.json", b"[\"a\"]"), ("merges.txt", &merges)], "does not hold a JSON object"),
        (
            vec![("vocab.json", b"{\"a\": -1}"), ("merges.txt", &merges)],
            "the id of token \"a\" is -1",
        ),
        (
            vec![("vocab.json", b"{\"a\": \"x\"}"), ("merges.txt", &merges)],
            "the id of token \"a\" is \"x\"",
        ),
        (
            vec![("vocab.json", &gpt2), ("merges.txt", b"#version\na b c\n")],
            "\"DIR/merges.txt\", line 2: \"a b c\" is not a merge",
        ),
        (
            vec![("vocab.json", &gpt2), ("merges.txt", b"#version\na b\n\n\n")],
            "line 3: \"\" is not a merge",
        ),
        (
            vec![("vocab.json", &gpt2), ("merges.txt", b"#version\nq q\n")],
            "merge \"q q\" needs \"qq\", which has no id",
        ),
        (
            vec![("vocab.json", long.as_bytes()), ("merges.txt", "#\naaaaaaaaa é\n".as_bytes())],
            "needs \"aaaaaaaaaé\", which has no id",
        ),
        (
            vec![("vocab.json", &gpt2), ("merges.txt", b"\xff")],
            "\"DIR/merges.txt\" is not UTF-8 text",
        ),
        (vec![("vocab.txt", b"")], "\"DIR/vocab.txt\" is empty"),
        (vec![("sentencepiece.bpe.model", &model[..300])], "is not a sentencepiece model"),
        (
            vec![("sentencepiece.bpe.model", b"\x0a\xff\xff\xff\xff\x0f")],
            "4294967295 bytes is announced",
        ),
        (
            vec![("vocab.txt", b"a\n"), ("added_tokens.json", b"{\"x\": \"y\"}")],
            "the id of token \"x\" is",
        ),
        (
            vec![
                ("vocab.txt", b"a\n"),
                ("tokenizer_config.json", br#"{"added_tokens_decoder": {"x": {}}}"#),
            ],
            "added_tokens_decoder has the id \"x\"",
        ),
        (
            vec![("vocab.txt", b"a\n"), ("tokenizer_config.json", br#"{"eos_token": 3}"#)],
            "a special token is 3, expected a string or an object",
        ),
        (
            vec![("vocab.txt", b"a\n"), ("tokenizer_config.json", br#"{"do_lower_case": "no"}"#)],
            "do_lower_case is \"no\", expected true or false",
        ),
    ] {
        let told = refusal(&files, None);
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
}

#[test]
fn a_tokenizer_json_that_would_panic_is_refused() {
    let model = |model: &str| format!(r#"{{"version":"1.0","added_tokens":[],"model":{model}}}"#);
    let bpe = model(r#"{"type":"BPE","vocab":{"ab":0,"c":1},"merges":["ab c"]}"#);
    assert!(
        refusal(&[("tokenizer.json", bpe.as_bytes())], None)
            .contains("makes \"abc\", which has no id")
    );
    // The same for which the library has room, and a token that lacks what it says all tokens begin with.
    let bpe = model(r#"{"type":"BPE","vocab":{"long":0,"a":1,"\u0062":2},"merges":[["a","b"]]}"#);
    let told = refusal(&[("tokenizer.json", bpe.as_bytes())], None);
    assert!(told.contains("Token `ab` out of vocabulary"), "{told}");
    let bpe = model(
        r###"{"type":"BPE","vocab":{"long":0,"a":1,"b":2},"merges":["a b"],
            "continuing_subword_prefix":"##"}"###,
    );
    let told = refusal(&[("tokenizer.json", bpe.as_bytes())], None);
    assert!(told.contains("\"b\" of merge \"a b\" does not begin with \"##\""), "{told}");
    let piece = "x".repeat(5000);
    let unigram = model(&format!(r#"{{"type":"Unigram","unk_id":0,"vocab":[["{piece}",0.0]]}}"#));
    assert!(refusal(&[("tokenizer.json", unigram.as_bytes())], None).contains("has 5000 bytes"));
    let charsmap = r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"Sequence","normalizers":
        [{"type":"Precompiled","precompiled_charsmap":"BAAAAAD/AAA="}]},"model":{"type":"Unigram",
        "unk_id":0,"vocab":[["<unk>",0.0]]}}"#;
    assert!(refusal(&[("tokenizer.json", charsmap.as_bytes())], None).contains("character map"));
}

#[test]
fn every_truncated_model_is_refused_or_opens() {
    let bytes = fixture("pegasus.model");
    let config = br#"{"tokenizer_class": "PegasusTokenizer"}"#;
    for len in (0..bytes.len()).step_by(7) {
        let dir = directory(&[("spiece.model", &bytes[..len]), ("tokenizer_config.json", config)]);
        if let Ok(tokenizer) = Tokenizer::from_dir(dir.path(), None) {
            tokenizer.encode("a cat", true).unwrap();
        }
    }
}
