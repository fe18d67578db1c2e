"""Writes tests/fixtures/checkpoints: one tiny file of every format vedm reads.

    python tests/golden/checkpoints.py

Needs torch 2.11, safetensors 0.8, numpy. The tensors of a folder are those of its
`model.safetensors`, or of the `expected.safetensors` beside a file of another format.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "checkpoints"
PT = {"format": "pt"}


def folder(name):
    path = OUT / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def counting(*shape, start=0.0, step=0.25):
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float64) * step + start).reshape(shape)


def every_dtype():
    return {
        "f32": counting(2, 3, start=-1).float(),
        "f16": counting(3, start=-1).half(),
        "bf16": counting(2, 2, start=100, step=1.5).bfloat16(),
        "f64": counting(1, 2, start=1e300, step=1e299),
        "i64": torch.tensor([-(2**63), 2**63 - 1]),
        "i32": torch.tensor([[-(2**31)], [2**31 - 1]], dtype=torch.int32),
        "i16": torch.tensor([-300, 300, 7], dtype=torch.int16),
        "i8": torch.tensor([-128, 127, 0], dtype=torch.int8),
        "u8": torch.tensor([0, 255, 1, 2, 3], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "quoted \"name\" é": torch.tensor([1.0]),
    }


def safetensors():
    save_file(every_dtype(), folder("safetensors") / "model.safetensors", metadata=PT)

    legacy = {
        "bert.LayerNorm.gamma": counting(4).float(),
        "bert.LayerNorm.beta": counting(4, start=9).float(),
    }
    save_file(legacy, folder("legacy-names") / "model.safetensors", metadata=PT)

    path = folder("sharded")
    shards = [{"b": counting(2).float(), "a": counting(3).float()}, {"c": counting(4).float()}]
    weight_map = {}
    for at, shard in enumerate(shards):
        name = f"model-{at + 1:05}-of-00002.safetensors"
        save_file(shard, path / name, metadata=PT)
        weight_map.update({key: name for key in shard})
    index = {"metadata": {"total_parameters": 9, "total_size": 36}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (path / "model.safetensors.index.json").write_text(text)


if __name__ == "__main__":
    safetensors()
