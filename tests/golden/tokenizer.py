"""Tiny tokenizers trained on a fixed list of sentences, one function a kind; each returns a transformers tokenizer."""

import json
import tempfile
from pathlib import Path

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "a black cat sits on a red chair, and looks at the window.",
    "two dogs run on the beach; one of them is brown!",
    "the man in the blue hat doesn't ride a bicycle.",
    "a plate of rice with fish and green beans on the table",
    "Total 12.50 EUR, paid in cash on 03/04/2019",
    "The quick brown fox jumps over the lazy dog?",
    "invoice number 4711 for Mr. Smith and Mrs. O'Neill",
    "a group of people standing around a train station",
]


def _train(model, trainer, pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _byte_level(first: list[str], size: int):
    """Byte-level BPE with `first` as the first ids; the alphabet is that of the sentences."""
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    return _train(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False))


def _vocab_files(tokenizer, folder):
    """Writes vocab.json and merges.txt, from which the family's own class builds itself."""
    state = json.loads(tokenizer.to_str())["model"]
    vocab = dict(sorted(state["vocab"].items(), key=lambda item: item[1]))
    merges = [" ".join(merge) for merge in state["merges"]]
    Path(folder, "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    Path(folder, "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return str(Path(folder, "vocab.json")), str(Path(folder, "merges.txt"))


def gpt2(size=140):
    """GPT-2: `<|endoftext|>` is the last id and serves as bos and eos; no pad token."""
    trained = _byte_level([], size - 1)
    with tempfile.TemporaryDirectory() as folder:
        return transformers.GPT2TokenizerFast(*_vocab_files(trained, folder))


def _roberta_like(cls, size):
    trained = _byte_level(["<s>", "<pad>", "</s>", "<unk>"], size - 1)
    with tempfile.TemporaryDirectory() as folder:
        return cls(*_vocab_files(trained, folder))


def roberta(size=150):
    """RoBERTa: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, `<mask>` last."""
    return _roberta_like(transformers.RobertaTokenizerFast, size)


def bart(size=150):
    """BART: the layout of RoBERTa under its own class."""
    return _roberta_like(transformers.BartTokenizerFast, size)


def _word_piece(cls, size):
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
    )
    trained = _train(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        pre_tokenizers.BertPreTokenizer(),
        normalizers.BertNormalizer(lowercase=True),
    )
    with tempfile.TemporaryDirectory() as folder:
        return cls(trained.model.save(folder)[0])


def bert(size=150):
    """BERT: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4; lower-casing WordPiece."""
    return _word_piece(transformers.BertTokenizerFast, size)


def electra(size=150):
    """ELECTRA: BERT's layout under its own class."""
    return _word_piece(transformers.ElectraTokenizerFast, size)


def make(kind: str):
    """The tokenizer of a kind, `name` or `name:size`."""
    name, _, size = kind.partition(":")
    return globals()[name](*([int(size)] if size else []))
