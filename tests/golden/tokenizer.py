"""Tiny tokenizers learnt from a fixed list of sentences, one function a kind; each returns a transformers tokenizer.

The learning is done here and not by the trainers of the tokenizers library, whose ties depend on the run.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

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


def _saved(tokenizer, folder) -> str:
    tokenizer.save(str(Path(folder, "tokenizer.json")))
    return str(Path(folder, "tokenizer.json"))


def _unigram(cls, first: list[str], last: list[str], size: int, **special):
    """A SentencePiece-like unigram model whose scores fall with the rank of a piece."""
    words = [tuple("▁" + word) for sentence in SENTENCES for word in sentence.split()]
    symbols, _ = _learn(words, size - len(first) - len(last), lambda a, b: a + b)
    vocab = [(token, 0.0) for token in first] + [(piece, -2.0 - 0.05 * i) for i, piece in enumerate(reversed(symbols))]
    vocab += [(token, 0.0) for token in last]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=first.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    if "</s>" in first and "<s>" in first:
        ends = [(token, first.index(token)) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    with tempfile.TemporaryDirectory() as folder:
        return cls(tokenizer_file=_saved(tokenizer, folder), **special)


def xlmr(size=150):
    """XLM-RoBERTa: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, `<mask>` last."""
    return _unigram(transformers.XLMRobertaTokenizerFast, ["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"], size)


def camembert(size=150):
    """CamemBERT: the real `<s>` and `</s>` follow the unused ones, at 5 and 6."""
    first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    return _unigram(transformers.CamembertTokenizerFast, first, ["<mask>"], size)


def mbart(size=170):
    """mBART: XLM-RoBERTa's layout with language codes before `<mask>`."""
    from transformers.models.mbart.tokenization_mbart_fast import FAIRSEQ_LANGUAGE_CODES

    first = ["<s>", "<pad>", "</s>", "<unk>"]
    return _unigram(transformers.MBartTokenizerFast, first, [*FAIRSEQ_LANGUAGE_CODES, "<mask>"], size)


def _plain(first: list[str], last: list[str], size: int, template: str, **special):
    """A byte-level BPE under the general class, for families whose own class wants files of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Tokenizer(models.BPE.from_file(*_byte_level(first, last, size, folder), unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        ends = [(token, tokenizer.token_to_id(token)) for token in template.split() if token != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
        return transformers.PreTrainedTokenizerFast(
            tokenizer_file=_saved(tokenizer, folder), unk_token="<unk>", clean_up_tokenization_spaces=False, **special
        )


def marian(size=150):
    """Marian's layout: `</s>` 0, `<unk>` 1, `<pad>` last; no bos, so padding starts the decoder."""
    return _plain(["</s>", "<unk>"], ["<pad>"], size, "$A </s>", eos_token="</s>", pad_token="<pad>")


def pegasus(size=150):
    """Pegasus' layout: `<pad>` 0, `</s>` 1, `<unk>` 2; no bos."""
    return _plain(["<pad>", "</s>", "<unk>"], [], size, "$A </s>", eos_token="</s>", pad_token="<pad>")


def blenderbot(size=150):
    """Blenderbot-small's and ProphetNet's layout: `<pad>` 0, `<s>` 1, `</s>` 2, `<unk>` 3."""
    first = ["<pad>", "<s>", "</s>", "<unk>"]
    return _plain(first, [], size, "$A </s>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def xglm(size=150):
    """XGLM's layout: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3; `</s>` comes first."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    return _plain(first, [], size, "</s> $A", bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def make(kind: str):
    """The tokenizer of a kind, `name` or `name:size`."""
    name, _, size = kind.partition(":")
    return globals()[name](*([int(size)] if size else []))
