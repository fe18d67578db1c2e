"""A tokenizer of characters or of words for `vedm init --tokenizer`, from the texts of a table.

    python examples/make_tokenizer.py LABELS.csv OUT [COUNT]      (column `text`; needs nothing but Python)

With COUNT its tokens are the words, in small letters, that occur at least so often.
"""

import csv
import json
import re
import sys
from collections import Counter
from pathlib import Path

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def main(labels: str, out: str, count: str = "") -> None:
    with open(labels, encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    if count:
        words = Counter(word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower()))
        tokens = sorted(word for word, times in words.items() if times >= int(count))
        normalizer = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
        pieces, decoder = {"type": "Whitespace"}, None
    else:
        tokens = sorted({c for text in texts for c in text})
        normalizer = {"type": "NFC"}
        pieces = {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False}
        decoder = {"type": "Fuse"}
    vocabulary = {token: i for i, token in enumerate(SPECIAL + tokens)}
    added = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, token in enumerate(SPECIAL)
    ]
    mark = lambda token: {"SpecialToken": {"id": token, "type_id": 0}}
    tokenizer = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pieces,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [mark("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, mark("</s>")],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [vocabulary[t]], "tokens": [t]} for t in ("<s>", "</s>")},
        },
        "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "pad_token": "<pad>",
        "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False,
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"tokenizer.json": tokenizer, "tokenizer_config.json": config}.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    print(f"{folder}: {len(vocabulary)} tokens")


main(*sys.argv[1:])
