"""Writes tests/fixtures/checkpoints: one tiny file of every format vedm reads.

    python tests/golden/make_checkpoints.py

Needs torch 2.11, safetensors 0.8, numpy 2, msgpack 1, h5py 3.16. The tensors of a folder are those of its
`model.safetensors`, or of the `expected.safetensors` beside a file of another format.
Files of the legacy format and of TorchScript differ from run to run, in the ids they contain.
"""

import collections
import json
import os
import pathlib

import h5py
import msgpack
import numpy as np
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


def vit_gpt2():
    """Some tensors of a ViT-GPT-2, by their PyTorch names: one of each layout."""
    names = {
        "encoder.embeddings.cls_token": (1, 1, 4),
        "encoder.embeddings.patch_embeddings.projection.weight": (4, 3, 2, 5),
        "encoder.encoder.layer.0.attention.attention.query.weight": (4, 6),
        "encoder.encoder.layer.0.attention.attention.query.bias": (4,),
        "encoder.encoder.layer.1.layernorm_before.weight": (4,),
        "encoder.encoder.layer.1.layernorm_before.bias": (4,),
        "decoder.transformer.wte.weight": (7, 4),
        "decoder.transformer.h.0.attn.c_attn.weight": (4, 12),
        "decoder.transformer.h.0.attn.c_attn.bias": (12,),
        "decoder.transformer.h.0.ln_1.weight": (4,),
        "enc_to_dec_proj.weight": (3, 4),
    }
    return {
        key: counting(*shape, start=at * 100).float() for at, (key, shape) in enumerate(names.items())
    }


def flax():
    """By hand what flax.serialization.to_bytes writes."""

    def pack_array(array, dtype=None):
        dtype = dtype or array.dtype.name
        data = (list(array.shape), dtype, np.ascontiguousarray(array).tobytes())
        return msgpack.packb(data, use_bin_type=True)

    def leaf(array, dtype=None):
        return msgpack.ExtType(1, pack_array(array, dtype))

    def chunked(array, size):
        flat = array.reshape(-1)
        chunks = [leaf(flat[at : at + size]) for at in range(0, flat.size, size)]
        numbered = lambda items: {str(at): item for at, item in enumerate(items)}
        return {
            "__msgpack_chunked_array__": True,
            "shape": numbered(array.shape),
            "chunks": numbered(chunks),
        }

    def save(name, leaves, expected, file="flax_model.msgpack"):
        tree = {}
        for path, node in leaves.items():
            *scopes, last = path.split("/")
            inner = tree
            for scope in scopes:
                inner = inner.setdefault(scope, {})
            inner[last] = node
        path = folder(name)
        (path / file).write_bytes(msgpack.packb(tree, strict_types=True))
        save_file(expected, path / "expected.safetensors", metadata=PT)

    leaves, arrays = {}, {}
    for key, tensor in vit_gpt2().items():
        array = tensor.numpy()
        *scopes, last = key.split(".")
        if last == "weight":
            norm = "ln_1" in key or "layernorm" in key
            last = "scale" if norm else "embedding" if "wte" in key else "kernel"
        if last == "kernel":
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        leaves["/".join([*scopes, last])] = leaf(array)
        arrays[".".join([*scopes, last])] = torch.tensor(array).contiguous()
    path = folder("safetensors-flax")
    save_file(arrays, path / "model.safetensors", metadata={"format": "flax"})
    save_file(vit_gpt2(), path / "expected.safetensors", metadata=PT)
    query = "encoder/encoder/layer/0/attention/attention/query/kernel"
    weight = vit_gpt2()["encoder.encoder.layer.0.attention.attention.query.weight"]
    leaves[query] = chunked(weight.numpy().T, 5)
    save("flax", leaves, vit_gpt2())

    tensors = {
        "norm.weight": counting(3).bfloat16(),
        "norm.running_mean": counting(3, start=5).half(),
        "norm.running_var": counting(3, start=7).double(),
        "ids": torch.arange(3),
        "scalar": torch.tensor(1.5),
        "flags": torch.tensor([True, False]),
    }
    leaves = {
        "params/norm/scale": leaf(tensors["norm.weight"].view(torch.int16).numpy(), "bfloat16"),
        "batch_stats/norm/mean": leaf(tensors["norm.running_mean"].numpy()),
        "batch_stats/norm/var": leaf(tensors["norm.running_var"].numpy()),
        "params/ids": leaf(tensors["ids"].numpy()),
        "params/scalar": msgpack.ExtType(3, pack_array(tensors["scalar"].numpy())),
        "params/flags": leaf(tensors["flags"].numpy()),
        "params/step": 7,
        "params/list": [1, 2.5, None, b"x", True],
    }
    save("flax-statistics", leaves, tensors)


def tensorflow():
    """By h5py what Keras writes for a TFVisionEncoderDecoderModel."""
    scope = "tf_vision_encoder_decoder_model"
    variables = {}
    for key, tensor in vit_gpt2().items():
        array = tensor.numpy()
        *scopes, last = key.split(".")
        gpt2 = "c_attn" in scopes
        if last == "weight" and ("ln_1" in key or "layernorm" in key):
            last = "gamma"
        elif last == "bias" and "layernorm" in key:
            last = "beta"
        elif last == "weight" and not gpt2 and "wte" not in key:
            last = "kernel"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        elif last == "bias" and gpt2:
            array = array[None]
        if scopes[0] == "encoder":
            scopes.insert(1, "vit")
        name = "/".join([scope, *scopes, last + ":0"])
        name = name.replace("layer/0", "layer_._0").replace("layer/1", "layer_._1")
        variables[f"{scopes[0]}/{name}"] = array.copy()

    # TFPreTrainedModel.save_pretrained leaves the scope out.
    path = folder("safetensors-tf")
    arrays = {key.split(scope + "/")[1]: torch.tensor(a) for key, a in variables.items()}
    save_file(arrays, path / "model.safetensors", metadata={"format": "tf"})
    save_file(vit_gpt2(), path / "expected.safetensors", metadata=PT)

    def save(name, expected, fill, **how):
        path = folder(name)
        with h5py.File(path / "tf_model.h5", "w", **how) as file:
            fill(file)
        save_file(expected, path / "expected.safetensors", metadata=PT)

    def keras(file):
        layers = sorted({name.split("/")[0] for name in variables})
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        for name, array in variables.items():
            file.create_dataset(name, array.shape, dtype=array.dtype)[...] = array
        for layer in layers:
            names = [name.split("/", 1)[1].encode() for name in variables if name.startswith(layer)]
            file[layer].attrs["weight_names"] = names

    save("h5", vit_gpt2(), keras)
    save("h5-latest", vit_gpt2(), keras, libver="latest")
    save("h5-v108", vit_gpt2(), keras, libver=("v108", "v108"))

    tensors = every_dtype()
    for key in ["bf16", "bool", 'quoted "name" é', "empty"]:
        del tensors[key]
    tensors["chunks"] = counting(5, 7, 3).float()
    tensors["one_axis"] = counting(11).half()
    tensors["compact"] = counting(2, 2).double()
    tensors |= {f"member_{at:03}": torch.tensor([at], dtype=torch.int8) for at in range(40)}

    def layouts(file):
        group = file.create_group("layer/scope")
        chunks = {"chunks": (2, 3, 2), "one_axis": (4,)}
        for key, tensor in tensors.items():
            if key == "compact":
                how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                how.set_layout(h5py.h5d.COMPACT)
                space = h5py.h5s.create_simple(tuple(tensor.shape))
                kind = h5py.h5t.NATIVE_DOUBLE
                made = h5py.h5d.create(group.id, b"compact", kind, space, dcpl=how)
                made.write(h5py.h5s.ALL, h5py.h5s.ALL, tensor.numpy())
            else:
                group.create_dataset(key, data=tensor.numpy(), chunks=chunks.get(key))

    save("h5-layouts", tensors, layouts)

    path = folder("refused")
    refused = {
        "gzip": dict(data=np.ones(9, "f4"), chunks=(3,), compression="gzip"),
        "shuffle": dict(data=np.ones(9, "f4"), chunks=(3,), shuffle=True),
        "lzf": dict(data=np.ones(9, "f4"), chunks=(3,), compression="lzf"),
        "string": dict(data=b"text"),
        "big-endian": dict(data=np.ones(9, ">f4")),
        "unsigned": dict(data=np.ones(9, "u4")),
        "unwritten": dict(shape=(9,), chunks=(3,), dtype="f4"),
        "null": dict(data=h5py.Empty("f4")),
    }
    for name, how in refused.items():
        with h5py.File(path / f"{name}.h5", "w") as file:
            file.create_dataset("layer/x", **how)
    with h5py.File(path / "soft-link.h5", "w") as file:
        file["layer/x"] = h5py.SoftLink("/elsewhere")
    with h5py.File(path / "ring.h5", "w") as file:
        group = file.create_group("layer")
        group["again"] = group
    with h5py.File(path / "dense.h5", "w", libver="latest") as file:
        for at in range(9):
            file.create_dataset(f"layer/{at}", data=np.ones(1, "f4"))
    with h5py.File(path / "new-chunks.h5", "w", libver="latest") as file:
        file.create_dataset("layer/x", data=np.ones(9, "f4"), chunks=(3,))


if __name__ == "__main__":
    os.umask(0o022)
    safetensors()
    pytorch()
    flax()
    tensorflow()
    for file in OUT.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
