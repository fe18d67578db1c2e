"""Tiny tokenizers learnt from a fixed list of sentences, one function a kind; each returns a transformers tokenizer.

The learning is done here and not by the trainers of the tokenizers library, whose ties depend on the run.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path

import transformers
from tokenizers import normalizers, pre_tokenizers

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


def _learn(words, count: int, join) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte-pair encoding: up to `count` symbols in order (alphabet first) and the merges; ties go to the lowest pair."""
    words = Counter(words)
    symbols = sorted({symbol for word in words for symbol in word})
    merges = []
    while len(symbols) < count:
        pairs = Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        if join(*best) not in symbols:
            symbols.append(join(*best))
        words = Counter({_merge(word, best, join): times for word, times in words.items()})
    return symbols, merges


def _merge(word, pair, join):
    out = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] = join(*pair)
        else:
            out.append(symbol)
    return tuple(out)


def _byte_level(first: list[str], last: list[str], size: int, folder) -> tuple[str, str]:
    """Writes vocab.json and merges.txt of a byte-level BPE with the alphabet of the sentences."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    words = [tuple(piece) for sentence in SENTENCES for piece, _ in split(sentence)]
    symbols, merges = _learn(words, size - len(first) - len(last), lambda a, b: a + b)
    vocab = {symbol: i for i, symbol in enumerate([*first, *symbols, *last])}
    vocab_file, merges_file = Path(folder, "vocab.json"), Path(folder, "merges.txt")
    vocab_file.write_text(json.dumps(vocab, ensure_ascii=False))
    merges_file.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return str(vocab_file), str(merges_file)


def gpt2(size=140):
    """GPT-2: `<|endoftext|>` is the last id and serves as bos and eos; no pad token."""
    with tempfile.TemporaryDirectory() as folder:
        return transformers.GPT2TokenizerFast(*_byte_level([], ["<|endoftext|>"], size, folder))


def _roberta_like(cls, size):
    with tempfile.TemporaryDirectory() as folder:
        return cls(*_byte_level(["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"], size, folder))


def roberta(size=150):
    """RoBERTa: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, `<mask>` last."""
    return _roberta_like(transformers.RobertaTokenizerFast, size)


def bart(size=150):
    """BART: the layout of RoBERTa under its own class."""
    return _roberta_like(transformers.BartTokenizerFast, size)


def _word_piece(cls, size):
    first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalize = normalizers.BertNormalizer(lowercase=True).normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = [
        (piece[0], *("##" + character for character in piece[1:]))
        for sentence in SENTENCES
        for piece, _ in split(normalize(sentence))
    ]
    symbols, _ = _learn(words, size - len(first), lambda a, b: a + b[2:])
    with tempfile.TemporaryDirectory() as folder:
        vocab_file = Path(folder, "vocab.txt")
        vocab_file.write_text("".join(symbol + "\n" for symbol in first + symbols))
        return cls(str(vocab_file))


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
