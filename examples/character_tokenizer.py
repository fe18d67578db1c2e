"""A tokenizer of characters for `vedm init --tokenizer`, from the texts of a table.

    python examples/character_tokenizer.py LABELS.csv OUT      (column `text`; needs nothing but Python)
"""

import csv
import json
import sys
from pathlib import Path

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def main(labels: str, out: str) -> None:
    with open(labels, encoding="utf-8", newline="") as file:
        characters = sorted({c for row in csv.DictReader(file) for c in row["text"]})
    vocabulary = {token: i for i, token in enumerate(SPECIAL + characters)}
    added = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, token in enumerate(SPECIAL)
    ]
    mark = lambda token: {"SpecialToken": {"id": token, "type_id": 0}}
    tokenizer = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [mark("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, mark("</s>")],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [vocabulary[t]], "tokens": [t]} for t in ("<s>", "</s>")},
        },
        "decoder": {"type": "Fuse"},
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
