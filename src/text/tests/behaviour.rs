//! Finding the class, looking up, streaming, saving.

use super::super::Tokenizer;
use super::{directory, fixture, fixtures, json, materialise};

#[test]
fn the_class_is_found_without_tokenizer_class() {
    let (gpt2, gpt2_merges) = (fixture("gpt2-vocab.json"), fixture("gpt2-merges.txt"));
    let (roberta, roberta_merges) = (fixture("roberta-vocab.json"), fixture("roberta-merges.txt"));
    let (bert, model) = (fixture("cased.txt"), fixture("fairseq.model"));
    let donut = fixture("donut-tokenizer.json");
    let config = br#"{"model_type": "vision-encoder-decoder", "decoder": {"model_type": "mbart"}}"#;
    for (files, decoder, expected, size) in [
        (vec![("vocab.json", &gpt2[..]), ("merges.txt", &gpt2_merges)], None, "GPT2Tokenizer", 340),
        (
            vec![("vocab.json", &roberta), ("merges.txt", &roberta_merges)],
            None,
            "RobertaTokenizer",
            344,
        ),
        (
            vec![("vocab.json", &roberta), ("merges.txt", &roberta_merges)],
            Some("trocr"),
            "RobertaTokenizer",
            344,
        ),
        (
            vec![("vocab.json", &roberta), ("merges.txt", &roberta_merges)],
            Some("bart"),
            "BartTokenizer",
            344,
        ),
        (vec![("sentencepiece.bpe.model", &model)], Some("trocr"), "XLMRobertaTokenizer", 187),
        (vec![("sentencepiece.bpe.model", &model)], Some("mbart"), "MBartTokenizer", 212),
        (
            vec![("sentencepiece.bpe.model", &model), ("config.json", config)],
            None,
            "MBartTokenizer",
            212,
        ),
        (vec![("vocab.txt", &bert)], Some("unheard-of"), "BertTokenizer", 330),
        // A guess never adds tokens to a stored vocabulary.
        (vec![("tokenizer.json", &donut), ("config.json", config)], None, "MBartTokenizer", 193),
    ] {
        let dir = directory(&files);
        let tokenizer = Tokenizer::from_dir(dir.path(), decoder).unwrap();
        assert_eq!(
            (tokenizer.class_name(), tokenizer.vocab_size()),
            (expected, size),
            "{decoder:?}"
        );
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        let again = Tokenizer::from_dir(saved.path(), None).unwrap();
        assert_eq!(again.special, tokenizer.special, "{expected}");
        assert_eq!(again.vocab_size(), size, "{expected}");
        let ids = tokenizer.encode("a cat , it 's", true).unwrap();
        assert_eq!(again.decode(&ids, true).unwrap(), tokenizer.decode(&ids, true).unwrap());
    }
}

#[test]
fn japanese_words_need_a_dictionary_only_where_it_matters() {
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n日\n本\n語\nテ\nA\n##b\n";
    let open = |subword: &str, word: &str| {
        let config = format!(
            r#"{{"tokenizer_class": "BertJapaneseTokenizer", "do_lower_case": false,
                "subword_tokenizer_type": "{subword}", "word_tokenizer_type": "{word}"}}"#
        );
        directory(&[("vocab.txt", vocab.as_bytes()), ("tokenizer_config.json", config.as_bytes())])
    };
    let dir = open("character", "mecab");
    let character = Tokenizer::from_dir(dir.path(), None).unwrap();
    // NFKC first: half-width katakana and full-width letters are made one.
    assert_eq!(character.encode("日 本語ﾃＡ犬", true).unwrap(), [2, 5, 6, 7, 8, 9, 1, 3]);
    assert_eq!(character.decode(&[2, 5, 6, 10, 3], true).unwrap(), "日 本b");
    for word in ["mecab", "sudachi", "jumanpp"] {
        let dir = open("wordpiece", word);
        let tokenizer = Tokenizer::from_dir(dir.path(), None).unwrap();
        assert_eq!(tokenizer.decode(&[2, 9, 10, 3], true).unwrap(), "Ab");
        let error = tokenizer.encode("日本", true).unwrap_err().to_string();
        assert!(error.starts_with(&format!("word_tokenizer_type {word:?} cuts words")), "{error}");
    }
    let dir = open("sentencepiece", "basic");
    let error = Tokenizer::from_dir(dir.path(), None).err().unwrap().to_string();
    assert!(
        error.ends_with("subword_tokenizer_type \"sentencepiece\" is not supported"),
        "{error}"
    );
}

#[test]
fn lookups_and_streams() {
    let case = json(&fixtures().join("gpt2-json.json"));
    let dir = materialise(&case);
    let tokenizer = Tokenizer::from_dir(dir.path(), None).unwrap();
    assert_eq!(tokenizer.class_name(), "GPT2Tokenizer");
    let pad = tokenizer.token_to_id("[PAD]").unwrap();
    assert_eq!(tokenizer.special.pad, Some(("[PAD]".to_owned(), pad)));
    assert!(
        tokenizer.is_special(pad) && !tokenizer.is_special(pad + 1) && !tokenizer.is_special(-1)
    );
    assert_eq!(tokenizer.id_to_token(pad).as_deref(), Some("[PAD]"));
    assert_eq!((tokenizer.id_to_token(99_999), tokenizer.id_to_token(-1)), (None, None));
    let tokens: Vec<(i64, String)> = tokenizer.tokens().collect();
    assert_eq!(tokens.len(), tokenizer.vocab_size());
    for (id, token) in &tokens {
        assert_eq!(tokenizer.token_to_id(token), Some(*id));
        assert_eq!(tokenizer.id_to_token(*id).as_ref(), Some(token));
    }
    // An emoji of four bytes comes out when it is whole, a comma takes the blank before it away.
    let ids = tokenizer.encode("a😀 , b", false).unwrap();
    let mut stream = tokenizer.decode_stream(true);
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    assert_eq!(pieces.concat(), "a😀, b");
    assert!(pieces.iter().any(|piece| piece == "😀"), "{pieces:?}");
}

#[test]
fn a_tokenizer_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
}

/// Files of every age: the class of the model told or left out, merges as texts or as pairs.
#[test]
fn a_model_is_read_however_it_is_stored() {
    let pairs = r#"[["a","b"],["ab","c"]]"#;
    let models = [
        r#"{"type":"BPE","vocab":V,"merges":["a b","ab c"]}"#.to_owned(),
        format!(r#"{{"type":"BPE","vocab":V,"merges":{pairs}}}"#),
        format!(r#"{{"merges":{pairs},"dropout":null,"vocab":V}}"#),
    ];
    let vocab = r#"{"a":0,"b":1,"c":2,"ab":3,"abc":4}"#;
    for model in models {
        let added = r#"[{"id":5,"content":"<e>","single_word":false,"lstrip":false,"rstrip":false,
            "normalized":false,"special":true}]"#;
        let model = model.replace('V', vocab);
        let json = format!(r#"{{"version":"1.0","model":{model},"added_tokens":{added}}}"#);
        let dir = directory(&[("tokenizer.json", json.as_bytes())]);
        let tokenizer = Tokenizer::from_dir(dir.path(), None).unwrap();
        assert_eq!(tokenizer.encode("abc<e>cab", false).unwrap(), [4, 5, 2, 3], "{model}");
        assert!(tokenizer.is_special(5) && tokenizer.vocab_size() == 6);
    }
    let pieces = r#"[["<unk>",0.0],["a",-1.0],["ab",-1.5]]"#;
    for model in [
        format!(r#"{{"type":"Unigram","unk_id":0,"vocab":{pieces}}}"#),
        format!(r#"{{"unk_id":0,"vocab":{pieces}}}"#),
        r#"{"type":"WordLevel","vocab":{"<unk>":0,"a":1,"aab":2},"unk_token":"<unk>"}"#.to_owned(),
        r###"{"type":"WordPiece","unk_token":"<unk>","continuing_subword_prefix":"##",
            "max_input_chars_per_word":9,"vocab":{"<unk>":0,"a":1,"##ab":2}}"###
            .to_owned(),
    ] {
        let json = format!(r#"{{"version":"1.0","model":{model}}}"#);
        let dir = directory(&[("tokenizer.json", json.as_bytes())]);
        let tokenizer = Tokenizer::from_dir(dir.path(), None).unwrap();
        let expected: &[i64] = if model.contains("WordLevel") { &[2] } else { &[1, 2] };
        assert_eq!(tokenizer.encode("aab", false).unwrap(), expected, "{model}");
    }
}

/// A list of additional tokens takes the place of the class's own, in whichever of the files it stands.
#[test]
fn additional_tokens_of_a_file_replace_those_of_the_class() {
    let model = fixture("fairseq.model");
    let named = br#"{"additional_special_tokens": ["<more>"]}"#;
    let class = br#"{"tokenizer_class": "CamembertTokenizer"}"#;
    let specials = |files: &[(&str, &[u8])]| {
        let dir = directory(files);
        let tokenizer = Tokenizer::from_dir(dir.path(), Some("camembert")).unwrap();
        tokenizer.tokens().filter(|(id, _)| tokenizer.is_special(*id)).count()
    };
    let files = [("sentencepiece.bpe.model", &model[..]), ("tokenizer_config.json", class)];
    let with_map = [&files[..], &[("special_tokens_map.json", named)]].concat();
    // Three of the class against one of the file.
    assert_eq!(specials(&files), specials(&with_map) + 2);
}
