//! Tokenizers from a sentencepiece model (`convert_slow_tokenizer.py`: SpmConverter and its children).

use std::cmp::Ordering;
use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{Sequence, Strip};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper,
    Tokenizer as Inner,
};

use super::charsmap::precompiled;
use super::class::Class;
use super::defaults::{MBART_CODES, MBART50_CODES};
use super::fast::{component, metaspace, set_normalizer};
use super::files::TokenizerFiles;
use super::sentencepiece::{ModelProto, PieceType};
use super::special::{Pegasus, SpecialMap};

/// Builds the tokenizer of a class from its sentencepiece model.
pub(super) fn build(files: &TokenizerFiles, class: Class, map: &SpecialMap) -> Result<Inner> {
    let name = match class.parts() {
        [name] => name,
        _ => bail!("{class:?} is not built from one sentencepiece model"),
    };
    let path = files.path(name);
    let proto = ModelProto::open(&path)?;
    let (vocab, unk_id) = layout(files, class, map, &proto)?;
    let model: ModelWrapper = match proto.model_type {
        1 => {
            Unigram::from(vocab, Some(unk_id), false).map_err(|e| anyhow!("{path:?}: {e}"))?.into()
        }
        2 => bpe(&proto, vocab).map_err(|e| anyhow!("{path:?}: {e}"))?.into(),
        other => bail!("{path:?}: model type {other} (3 word, 4 char) is not supported"),
    };
    let mut inner = Inner::new(model);
    // Control pieces are special, user-defined ones are not; both are found before the model runs.
    let added = proto.pieces.iter().filter_map(|piece| match piece.kind {
        PieceType::Control => Some(AddedToken::from(piece.piece.as_str(), true)),
        PieceType::UserDefined => {
            Some(AddedToken::from(piece.piece.as_str(), false).normalized(false))
        }
        _ => None,
    });
    inner.add_tokens(added).map_err(|e| anyhow!("{path:?}: {e}"))?;
    set_normalizer(&mut inner, normalizer(&proto).with_context(|| format!("{path:?}"))?)?;
    let mut pre_tokenizer = metaspace();
    if class == Class::Pegasus {
        pre_tokenizer = json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, pre_tokenizer]});
    }
    inner.with_pre_tokenizer(Some(component::<PreTokenizerWrapper>(pre_tokenizer)?));
    inner.with_decoder(Some(component::<DecoderWrapper>(metaspace())?));
    Ok(inner)
}

/// The model's own character map, then blanks at the end dropped and runs of blanks made one.
fn normalizer(proto: &ModelProto) -> Result<NormalizerWrapper> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if !proto.precompiled_charsmap.is_empty() {
        steps.push(precompiled(&proto.precompiled_charsmap)?.into());
    }
    steps.push(Strip::new(false, true).into());
    steps.push(component(
        json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}),
    )?);
    Ok(Sequence::new(steps).into())
}

/// The vocabulary of a class in the order of its ids, with scores, and the id of the unknown token.
fn layout(
    files: &TokenizerFiles,
    class: Class,
    map: &SpecialMap,
    proto: &ModelProto,
) -> Result<(Vec<(String, f64)>, usize)> {
    let pieces = |from: usize| {
        let pieces = proto.pieces.iter().skip(from);
        pieces.map(|piece| (piece.piece.clone(), f64::from(piece.score))).collect::<Vec<_>>()
    };
    let zero = |tokens: &[&str]| tokens.iter().map(|t| ((*t).to_owned(), 0.0)).collect::<Vec<_>>();
    let fairseq = || [zero(&["<s>", "<pad>", "</s>", "<unk>"]), pieces(3)].concat();
    Ok(match class {
        Class::XlmRoberta => ([fairseq(), zero(&["<mask>"])].concat(), 3),
        Class::MBart => ([fairseq(), zero(&MBART_CODES), zero(&["<mask>"])].concat(), 3),
        Class::MBart50 => {
            let codes = [zero(&MBART_CODES), zero(&MBART50_CODES)].concat();
            ([fairseq(), codes, zero(&["<mask>"])].concat(), 3)
        }
        Class::Camembert => {
            let mut vocab = zero(&["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>"]);
            vocab.push(("<unk>NOTUSED".to_owned(), -100.0));
            ([vocab, pieces(1), zero(&["<mask>"])].concat(), 3)
        }
        Class::Barthez => (pieces(0), 3),
        Class::Xglm => {
            let made_up = (0..7).map(|i| (format!("<madeupword{i}>"), 0.0)).collect();
            ([fairseq(), made_up].concat(), 3)
        }
        Class::Pegasus => pegasus(files, map, proto, pieces(2))?,
        _ => bail!("{class:?} has no sentencepiece layout"),
    })
}

/// Pegasus keeps `offset` places before the pieces.
fn pegasus(
    files: &TokenizerFiles,
    map: &SpecialMap,
    proto: &ModelProto,
    pieces: Vec<(String, f64)>,
) -> Result<(Vec<(String, f64)>, usize)> {
    let Pegasus { mask_token_sent, offset } = Pegasus::read(files)?;
    let mut vocab = Vec::new();
    for attribute in ["pad_token", "eos_token"] {
        let token = map.text(attribute).with_context(|| format!("Pegasus needs a {attribute}"))?;
        vocab.push((token.to_owned(), 0.0));
    }
    // With a sentence mask, both masks stand before the reserved places; without, neither does.
    if let Some(sent) = mask_token_sent {
        vocab.push((sent, 0.0));
        vocab.extend(map.text("mask_token").map(|mask| (mask.to_owned(), 0.0)));
    }
    vocab.extend((2..offset).map(|i| (format!("<unk_{i}>"), -100.0)));
    vocab.extend(pieces);
    let unk_id =
        usize::try_from(proto.unk_id)?.checked_add(offset).context("unk_id is too large")?;
    Ok((vocab, unk_id))
}

/// A BPE of the library from a sentencepiece BPE: every way to cut a piece into two pieces is a merge.
fn bpe(proto: &ModelProto, vocab: Vec<(String, f64)>) -> Result<BPE> {
    let ids: HashMap<&str, usize> =
        proto.pieces.iter().enumerate().map(|(id, piece)| (piece.piece.as_str(), id)).collect();
    // Python's dict: a repeated token keeps its first place and gets its last score.
    let mut order: Vec<&str> = Vec::new();
    let mut scores: HashMap<&str, f64> = HashMap::new();
    for (token, score) in &vocab {
        if scores.insert(token, *score).is_none() {
            order.push(token);
        }
    }
    let mut merges = Vec::new();
    for token in order {
        let mut local: Vec<(&str, &str)> = token
            .char_indices()
            .skip(1)
            .map(|(at, _)| token.split_at(at))
            .filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right))
            .collect();
        local.sort_by_key(|(left, right)| (ids[left], ids[right]));
        merges.extend(local.into_iter().map(|pair| (scores[token], pair)));
    }
    let len = |text: &str| text.chars().count();
    merges.sort_by(|(a, left), (b, right)| {
        b.partial_cmp(a)
            .unwrap_or(Ordering::Equal)
            .then_with(|| (len(right.0), len(right.1)).cmp(&(len(left.0), len(left.1))))
    });
    let merges = merges.into_iter().map(|(_, (l, r))| (l.to_owned(), r.to_owned())).collect();
    let mut by_token = Vocab::new();
    for (id, (token, _)) in vocab.iter().enumerate() {
        by_token.insert(token.clone(), u32::try_from(id)?);
    }
    BPE::builder()
        .vocab_and_merges(by_token, merges)
        .unk_token(proto.unk_piece.clone())
        .fuse_unk(true)
        .build()
        .map_err(|e| anyhow!("{e}"))
}
