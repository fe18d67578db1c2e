"""Writes `tests/fixtures/grid.json`: what transformers 4.57.6 computes for every encoder with every decoder.

    python tests/golden/make_grid.py

No weights are stored. Both sides fill them by a formula from their names (`values`), so the file holds configs, names
with shapes, and a few numbers of the logits a pair. The versions are those of `make.py`; the form of the file is told
in README.md.
"""

import json
import math
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoConfig, DynamicCache, EncoderDecoderCache, VisionEncoderDecoderConfig

sys.dont_write_bytecode = True  # the folder holds cases, not caches

import checkpoint
from grid_rows import DECODERS, ENCODERS, MORE_DECODERS, MORE_ENCODERS
from make import check_versions

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "grid.json"
LIMIT = 150_000
#: The second row has a padding token amid the others: some families give it no position.
IDS = [[2, 5, 36, 9], [2, 1, 30, 5]]
#: Fixed tables, left as the class makes them.
TABLES = re.compile(r"Sinusoidal|ViTMAEEmbeddings")
PROPHETNET = (
    "VisionEncoderDecoderModel can't call this decoder (unexpected keyword argument 'cache_position'), and over several "
    "tokens at once its predicting stream has scrambled relative positions; the numbers are those of "
    "ProphetNetForCausalLM called with the encoder's (projected) states, token by token"
)


def fnv1a(text: str) -> int:
    """The 64-bit FNV-1a hash of the text's bytes."""
    state = 0xCBF29CE484222325
    for byte in text.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return state


def uniform(name: str, count: int) -> np.ndarray:
    """The first `count` values of the SplitMix64 stream seeded by the name, in [0, 1)."""
    with np.errstate(over="ignore"):
        xs = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        xs = (xs ^ (xs >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        xs = (xs ^ (xs >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        xs = xs ^ (xs >> np.uint64(31))
    return (xs >> np.uint64(11)).astype(np.float64) / 2.0**53


def values(name: str, shape) -> np.ndarray:
    """The tensor of that name: f32, computed in f64.

    Vectors called weight or lambda stand around 1, other vectors around 0; a value of anything else is drawn from
    plus and minus 2 / sqrt(n / shape[0]).
    """
    count = math.prod(shape)
    centred = uniform(name, count) - 0.5
    if len(shape) > 1:
        xs = centred * 4.0 / math.sqrt(count // max(shape[0], 1))
    elif name.endswith("weight") or "lambda" in name:
        xs = 1.0 + 0.4 * centred
    else:
        xs = 0.2 * centred
    return xs.astype(np.float32).reshape(shape)


def names_of_tensors(model) -> list[list[str]]:
    """The keys of the state dict, those of one tensor together, each group sorted."""
    groups = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    return [sorted(names) for names in groups.values()]


def fill(model) -> None:
    """Gives every parameter its values; a tied one has those of the first of its names by alphabet."""
    tables = set()
    for path, module in model.named_modules():
        if TABLES.search(type(module).__name__):
            own = ["weight"] if "Sinusoidal" in type(module).__name__ else ["position_embeddings"]
            tables |= {f"{path}.{name}" for name in own}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for names in names_of_tensors(model):
            parameter = parameters.get(names[0])
            if parameter is not None and names[0] not in tables:
                parameter.copy_(torch.from_numpy(values(names[0], parameter.shape)))


def build(encoder: dict, decoder: dict):
    """The filled model of two rows, in f64, eager attention."""
    parts = AutoConfig.for_model(**encoder), AutoConfig.for_model(**decoder)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    model = checkpoint.build_model(config, "eager")
    fill(model)
    return model.double()


@torch.no_grad()
def logits(model, pixel_values):
    """Teacher-forced, without a cache, in f64 (tables that a class makes are f32 ones). [B, T, V]"""
    torch.set_default_dtype(torch.float64)
    try:
        return forward(model, pixel_values, torch.tensor(IDS))
    finally:
        torch.set_default_dtype(torch.float32)


def forward(model, pixel_values, ids):
    if model.config.decoder.model_type != "prophetnet":
        return model(pixel_values=pixel_values, decoder_input_ids=ids, use_cache=False).logits
    states = model.encoder(pixel_values)[0]
    if hasattr(model, "enc_to_dec_proj"):
        states = model.enc_to_dec_proj(states)
    # The cache that the class makes itself has a layer for each of the text encoder's.
    past = EncoderDecoderCache(DynamicCache(), DynamicCache())
    steps = [
        model.decoder(input_ids=ids[:, t : t + 1], encoder_hidden_states=states, past_key_values=past, use_cache=True)
        for t in range(ids.shape[1])
    ]
    return torch.cat([step.logits for step in steps], 1)


def image(encoder: dict, size) -> torch.Tensor:
    """pixel_values [2, C, H, W] between -2 and 2."""
    shape = (len(IDS), encoder.get("num_channels", 3), *size)
    xs = ((uniform("pixel_values", math.prod(shape)) - 0.5) * 4.0).astype(np.float32)
    return torch.from_numpy(xs.reshape(shape)).double()


def summary(xs) -> list[float]:
    """Sum, sum of absolute values, and four values: the first, those at one and two thirds, the last."""
    flat = xs.double().flatten()
    n = len(flat)
    numbers = [flat.sum(), flat.abs().sum(), flat[0], flat[n // 3], flat[2 * n // 3], flat[n - 1]]
    return [float(f"{float(x):.7g}") for x in numbers]


def keys(model, half: str) -> dict:
    """Names and shapes of one half, a line a module, and the groups of tied names.

    `a.{0,1}.b weight 4x4 bias 4` are four tensors; a tensor of the half itself has the module `-`; an empty shape is `1`.
    """
    shapes = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(half + "."):
            module, _, own = name[len(half) + 1 :].rpartition(".")
            shapes.setdefault(module or "-", []).append(f"{own} {'x'.join(map(str, tensor.shape)) or 'scalar'}")
    folded = {}
    for module, tensors in shapes.items():
        # The first number of a path may be folded: the layers of a stack have equal shapes, or stand apart.
        first = re.search(r"(?<=\.)\d+(?=\.|$)", module)
        place = (module[: first.start()], module[first.end() :]) if first else (module, None)
        folded.setdefault((place, " ".join(tensors)), []).append(first.group() if first else None)
    lines = []
    for ((head, tail), tensors), indices in folded.items():
        middle = "" if tail is None else indices[0] if len(indices) == 1 else "{" + ",".join(indices) + "}"
        lines.append(f"{head}{middle}{tail or ''} {tensors}")
    prefix = len(half) + 1
    groups = [[name[prefix:] for name in names] for names in names_of_tensors(model) if names[0].startswith(half + ".")]
    return {"keys": lines, "tied": [names for names in groups if len(names) > 1]}


def check(rows: dict) -> None:
    """A number that no image can change would show nothing: a decoder must tell the encoders apart."""
    for decoder in rows[next(iter(rows))]:
        seen = [row[decoder] for row in rows.values() if not isinstance(row.get(decoder, ""), str)]
        for i, a in enumerate(seen):
            for b in seen[:i]:
                if max(abs(x - y) for x, y in zip(a[2:], b[2:])) < 1e-3:
                    sys.exit(f"{decoder}: two encoders give the same logits")


def write(encoders, decoders, pairs) -> None:
    """One line a config, a module and a pair: a change shows where it is."""
    def row(head: dict) -> str:
        parts = [f'   {json.dumps(k)}: {json.dumps(v)}' for k, v in head.items() if k != "keys"]
        lines = ",\n".join("    " + json.dumps(line) for line in head["keys"])
        return "  {\n" + ",\n".join(parts) + f',\n   "keys": [\n{lines}\n   ]\n  }}'

    blocks = [f' "ids": {json.dumps(IDS)}', f' "notes": {json.dumps({"prophetnet": PROPHETNET})}']
    for name, rows in (("encoders", encoders), ("decoders", decoders)):
        blocks.append(f' "{name}": [\n' + ",\n".join(row(r) for r in rows) + "\n ]")
    lines = []
    for encoder, row_ in pairs.items():
        inner = ",\n".join(f"   {json.dumps(d)}: {json.dumps(x)}" for d, x in row_.items())
        lines.append(f"  {json.dumps(encoder)}: {{\n{inner}\n  }}")
    blocks.append(' "pairs": {\n' + ",\n".join(lines) + "\n }")
    OUT.write_text("{\n" + ",\n".join(blocks) + "\n}\n")
    size = OUT.stat().st_size
    print(f"{OUT.name}: {size / 1000:.0f} kB")
    if size > LIMIT:
        sys.exit(f"at most {LIMIT / 1000:.0f} kB are allowed")


def main() -> None:
    check_versions()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    encoders, decoders, pairs = [], {}, {}
    for i, (name, config, size) in enumerate(ENCODERS + MORE_ENCODERS):
        partners = DECODERS + MORE_DECODERS if i == 0 else DECODERS if i < len(ENCODERS) else DECODERS[:1]
        config = {"model_type": name.split()[0]} | config
        pixel_values, row, model = image(config, size), {}, None
        for decoder_name, decoder in partners:
            decoder = {"model_type": decoder_name.split()[0]} | decoder
            try:
                model = build(config, decoder)
                found = logits(model, pixel_values)
            except (ValueError, RuntimeError, TypeError) as refusal:
                row[decoder_name] = f"{type(refusal).__name__}: {str(refusal).splitlines()[0]}"
                continue
            moved = (found - logits(model, -pixel_values)).abs().max()
            if not found.isfinite().all() or moved < 1e-3:
                sys.exit(f"{name} with {decoder_name}: the image moves the logits by {moved:.1e}")
            row[decoder_name] = summary(found)
            decoders.setdefault(decoder_name, {"name": decoder_name, "config": decoder} | keys(model, "decoder"))
        encoders.append({"name": name, "config": config, "size": size} | keys(model, "encoder"))
        pairs[name] = row
        spread = [x[1] / 2 / 4 / 37 for x in row.values() if not isinstance(x, str)]
        print(f"{name}: mean magnitudes of logits from {min(spread):.2f} to {max(spread):.2f}", flush=True)
    check(pairs)
    write(encoders, [decoders[name] for name, _ in DECODERS + MORE_DECODERS], pairs)


if __name__ == "__main__":
    main()
