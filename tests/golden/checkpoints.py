"""Writes tests/fixtures/checkpoints: one tiny file of every format vedm reads.

    python tests/golden/checkpoints.py

Needs torch 2.11, safetensors 0.8, numpy. The tensors of a folder are those of its
`model.safetensors`, or of the `expected.safetensors` beside a file of another format.
"""

import collections
import json
import os
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


def views():
    """Tensors that share storages, or see them in another order."""
    base = counting(3, 4).float()
    return {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "row": base[1],
        "column": base[:, 2],
        "every_second": base.flatten()[::2],
        "expanded": torch.arange(5).expand((1, -1)),
        "parameter": torch.nn.Parameter(counting(2, 2, start=-3).half()),
    }


def pytorch():
    def save(name, tensors, value=None, **how):
        path = folder(name)
        torch.save(tensors if value is None else value, path / "pytorch_model.bin", **how)
        same = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
        save_file(same, path / "expected.safetensors", metadata=PT)

    save("bin-dict", every_dtype() | views())
    ordered = collections.OrderedDict(every_dtype() | views())
    ordered._metadata = collections.OrderedDict({"": {"version": 1}, "layer": {"version": 2}})
    save("bin-ordered", ordered)
    save("bin-legacy", ordered, _use_new_zipfile_serialization=False)
    save("bin-protocol-4", ordered, pickle_protocol=4)
    save("bin-legacy-protocol-4", ordered, pickle_protocol=4, _use_new_zipfile_serialization=False)
    extra = {"epoch": 3, "rate": 0.5, "name": "x", "big": 1 << 80, "shape": torch.Size([2])}
    save("bin-extra", views(), views() | extra | {"sub": {"w": torch.ones(1)}})

    path = folder("bin-sharded")
    shards = [{"a": counting(3).float(), "b": counting(2).float()}, {"c": counting(4).float()}]
    weight_map = {}
    for at, shard in enumerate(shards):
        name = f"pytorch_model-{at + 1:05}-of-00002.bin"
        torch.save(shard, path / name)
        weight_map.update({key: name for key in shard})
    index = {"metadata": {"total_parameters": 9, "total_size": 36}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (path / "pytorch_model.bin.index.json").write_text(text)

    path = folder("refused")
    torch.jit.script(torch.nn.Linear(2, 2)).save(path / "script.bin")
    torch.save({"model": views(), "optimizer": {}, "epoch": 3}, path / "training.bin")
    torch.save(torch.nn.Linear(2, 2), path / "module.bin")
    torch.save({"x": torch.zeros(2, dtype=torch.complex64)}, path / "complex.bin")
    torch.save({"x": torch.zeros(1).expand(1 << 40)}, path / "expanded.bin")


if __name__ == "__main__":
    os.umask(0o022)
    safetensors()
    pytorch()
    for file in OUT.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
