//! Byte-level BPE and WordPiece tokenizers from their vocabulary files
//! (`convert_slow_tokenizer.py`: GPT2Converter, RobertaConverter, BlenderbotConverter, BertConverter).

use std::collections::HashSet;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{DecoderWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer as Inner};

use super::class::Class;
use super::fast::{component, set_normalizer, set_template};
use super::files::TokenizerFiles;
use super::guard::check_merges;
use super::special::SpecialMap;

/// A byte-level BPE from vocab.json and merges.txt.
pub(super) fn byte_level_bpe(files: &TokenizerFiles) -> Result<Inner> {
    let vocab = files.vocab_json("vocab.json")?;
    let path = files.path("merges.txt");
    let mut merges = read_merges(files)?;
    // The reference keys its merges by the pair: a pair counts where it stands first.
    let mut seen = HashSet::new();
    merges.retain(|pair| seen.insert(pair.clone()));
    check_merges(&merges, &vocab)
        .with_context(|| format!("{path:?} does not go with vocab.json"))?;
    let model = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(String::new())
        .build()
        .map_err(|e| anyhow!("{path:?} does not go with vocab.json: {e}"))?;
    let mut inner = Inner::new(model);
    let add_prefix_space = files.flag("add_prefix_space", false)?;
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true
    });
    inner.with_pre_tokenizer(Some(component::<PreTokenizerWrapper>(byte_level.clone())?));
    inner.with_decoder(Some(component::<DecoderWrapper>(byte_level)?));
    Ok(inner)
}

/// The pairs of merges.txt. The reference drops the first line, whatever it holds, and what follows
/// the last line end.
pub(super) fn read_merges(files: &TokenizerFiles) -> Result<Vec<(String, String)>> {
    let text = files.text("merges.txt")?;
    let lines: Vec<&str> = text.split('\n').collect();
    let mut merges = Vec::with_capacity(lines.len());
    let last = lines.len().saturating_sub(1).max(1);
    for (index, line) in lines.iter().enumerate().take(last).skip(1) {
        let mut parts = line.split_whitespace();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(left), Some(right), None) => merges.push((left.to_owned(), right.to_owned())),
            _ => bail!(
                "{:?}, line {}: {line:?} is not a merge, expected two tokens with a blank between them",
                files.path("merges.txt"),
                index + 1
            ),
        }
    }
    Ok(merges)
}

/// The tokens of vocab.txt: the id is the number of the line, the last of equal lines counts.
pub(super) fn read_vocab_txt(files: &TokenizerFiles) -> Result<Vec<(String, u32)>> {
    let text = files.text("vocab.txt")?;
    let path = files.path("vocab.txt");
    let body = text.strip_suffix('\n').unwrap_or(&text);
    if body.is_empty() {
        bail!("{path:?} is empty");
    }
    let mut vocab = Vec::new();
    for (id, token) in body.split('\n').enumerate() {
        let Ok(id) = u32::try_from(id) else { bail!("{path:?} has too many lines") };
        vocab.push((token.to_owned(), id));
    }
    Ok(vocab)
}

/// A WordPiece tokenizer from vocab.txt.
pub(super) fn word_piece(files: &TokenizerFiles, map: &SpecialMap) -> Result<Inner> {
    let vocab: Vocab = read_vocab_txt(files)?.into_iter().collect();
    let unk = map.text("unk_token").unwrap_or("None");
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token(unk.to_owned())
        .build()
        .map_err(|e| anyhow!("{:?}: {e}", files.path("vocab.txt")))?;
    let mut inner = Inner::new(model);
    set_normalizer(&mut inner, bert_normalizer(files, true)?)?;
    inner.with_pre_tokenizer(Some(component::<PreTokenizerWrapper>(
        json!({"type": "BertPreTokenizer"}),
    )?));
    inner.with_decoder(Some(component::<DecoderWrapper>(
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
    )?));
    Ok(inner)
}

/// The normalizer that `BertTokenizerFast` insists on, also over one in tokenizer.json.
pub(super) fn bert_normalizer(files: &TokenizerFiles, clean_text: bool) -> Result<BertNormalizer> {
    let strip_accents = match files.config.get("strip_accents") {
        None | Some(Value::Null) => None,
        Some(_) => Some(files.flag("strip_accents", false)?),
    };
    Ok(BertNormalizer::new(
        clean_text,
        files.flag("tokenize_chinese_chars", true)?,
        strip_accents,
        files.flag("do_lower_case", true)?,
    ))
}

/// The special tokens that a class puts around a text.
pub(super) fn post_processor(
    inner: &mut Inner,
    files: &TokenizerFiles,
    class: Class,
    map: &SpecialMap,
) -> Result<()> {
    let token = |attribute: &str| match map.text(attribute) {
        Some(token) => Ok(token),
        None => bail!("{:?}: {attribute} is null, and this tokenizer needs it", files.dir),
    };
    let add_prefix_space = files.flag("add_prefix_space", false)?;
    match class {
        Class::Gpt2 if files.flag("add_bos_token", false)? => {
            let bos = token("bos_token")?;
            set_template(inner, &[bos, "$A"], &[bos, "$A", "$B"])
        }
        Class::Gpt2 => {
            inner.with_post_processor(Some(component::<PostProcessorWrapper>(json!({
                "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true
            }))?));
            Ok(())
        }
        Class::Roberta | Class::Bart => {
            let id = |token: &str| match inner.token_to_id(token) {
                Some(id) => Ok((token.to_owned(), id)),
                None => bail!("{:?}: special token {token:?} is not in the vocabulary", files.dir),
            };
            let processor =
                RobertaProcessing::new(id(token("sep_token")?)?, id(token("cls_token")?)?)
                    .trim_offsets(true)
                    .add_prefix_space(add_prefix_space);
            inner.with_post_processor(Some(PostProcessorWrapper::from(processor)));
            Ok(())
        }
        Class::Blenderbot => {
            let eos = token("eos_token")?;
            set_template(inner, &["$A", eos], &["$A", "$B"])
        }
        Class::Bert => {
            let (cls, sep) = (token("cls_token")?, token("sep_token")?);
            let second_sep = format!("{sep}:1");
            set_template(inner, &[cls, "$A", sep], &[cls, "$A", sep, "$B:1", &second_sep])
        }
        Class::XlmRoberta | Class::Camembert | Class::Barthez => set_template(
            inner,
            &["<s>", "$A", "</s>"],
            &["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        ),
        Class::Xglm => set_template(inner, &["</s>", "$A"], &["</s>", "$A", "</s>", "</s>", "$B"]),
        Class::Pegasus => {
            let eos = token("eos_token")?;
            set_template(inner, &["$A", eos], &["$A", "$B", eos])
        }
        // Set by the constructor of the fast class, which knows the language.
        Class::MBart | Class::MBart50 => Ok(()),
        Class::BlenderbotSmall
        | Class::BertJapanese
        | Class::Marian
        | Class::Nougat
        | Class::Generic => Ok(()),
    }
}
