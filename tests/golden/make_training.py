"""Writes `tests/fixtures/training.json`: how transformers 4.57.6 trains every encoder and every decoder.

    python tests/golden/make_training.py

Weights are those of `make_grid.py`, made by a formula from their names, and so are the configs (`grid_rows.py`). For each
row the file tells, module by module: which parameters the reference's Trainer trains, which of them decay, and what
their gradients are; then where the class drops something out. The form is told in README.md.
"""

import json
import math
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import transformers
from transformers import Trainer
from transformers.models.vision_encoder_decoder.modeling_vision_encoder_decoder import shift_tokens_right

sys.dont_write_bytecode = True  # the folder holds cases, not caches

from grid_rows import DECODERS, ENCODERS, MORE_DECODERS, MORE_ENCODERS
from make import check_versions
from make_grid import build, forward, image, uniform

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "training.json"
LIMIT = 200_000
LABELS = [[5, 36, 9, 2], [30, 5, 2, -100]]
#: The other half of a row's model; one decoder attends to states of a width that it names itself.
DECODER, ENCODER, WIDE = ("trocr plain", dict(MORE_DECODERS)["trocr plain"]), ENCODERS[0], ENCODERS[1]
#: No rate acts while gradients are computed; each acts, or is traced, with a number of its own.
RATES = {
    "hidden_dropout_prob": 0.05, "attention_probs_dropout_prob": 0.1, "attention_dropout": 0.1, "dropout": 0.2,
    "activation_dropout": 0.15, "drop_path_rate": 0.3, "embd_pdrop": 0.25, "attn_pdrop": 0.1, "resid_pdrop": 0.35,
    # So small that no layer is dropped while the places are traced.
    "decoder_layerdrop": 1e-9, "layerdrop": 1e-9,
    # Never read by the classes here, if the fixture is right: heads of other tasks, and the text encoders.
    "classifier_dropout": 0.4, "classifier_dropout_prob": 0.45, "encoder_layerdrop": 0.5, "summary_first_dropout": 0.55,
    "summary_last_dropout": 0.6, "classif_dropout": 0.65, "disable_ngram_loss": 0.0,
}
#: Maps that whole windows cover: on others, the reference drops padding out as well.
TRACED_SIZES = {"swin": (32, 32), "donut-swin": (48, 24), "swinv2": (24, 24), "swin padded": (24, 48)}


def rates(config: dict, on: bool) -> dict:
    """The dropout rates that the row's class knows, all 0 or each its own."""
    known = transformers.AutoConfig.for_model(**config).to_dict()
    unknown = [name for name in known if "drop" in name and name not in RATES]
    if unknown:
        sys.exit(f"{config['model_type']}: no rate for {unknown}")
    # DINOv3 also moves its positions at random.
    still = {"pos_embed_rescale": None} if "pos_embed_rescale" in known else {}
    return {name: RATES[name] if on else 0.0 for name in known if "drop" in name} | still


def traced(config: dict) -> bool:
    """A ProphetNet with more than one predicting stream computes what no logit reads."""
    return config.get("ngram", 1) == 1


def model_of(encoder: dict, decoder: dict, on: bool):
    """In f64 and training mode."""
    model = build(encoder | rates(encoder, on), decoder | rates(decoder, on))
    return model.train()


def inputs(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder inputs and labels. The start token is the padding token: a table with a `padding_idx` spares its row."""
    labels = torch.tensor(LABELS)
    pad = model.config.decoder.pad_token_id
    return shift_tokens_right(labels, pad, pad), labels


def run(model, pixel_values):
    """The logits in f64 (tables that a class makes are f32 ones)."""
    torch.set_default_dtype(torch.float64)
    try:
        return forward(model, pixel_values, inputs(model)[0])
    finally:
        torch.set_default_dtype(torch.float32)


def whole(model, pixel_values) -> None:
    """All tokens at once through the class that the wrapper can't call."""
    torch.set_default_dtype(torch.float64)
    states = model.encoder(pixel_values)[0]
    model.decoder(input_ids=inputs(model)[0], encoder_hidden_states=states, use_cache=False)
    torch.set_default_dtype(torch.float32)


def number(x) -> str:
    return f"{float(x):.5g}"


def parameters(model, half: str, pixel_values) -> list[str]:
    """`module name kind norm projection ...`, a line a module, of the half's parameters.

    kind: d decays, n does not, f is not trained, u is never reached by a gradient (neither moves). The projection is the
    product of the gradient with the formula's numbers for `gradient of NAME`, less 1/2.
    """
    loss = torch.nn.functional.cross_entropy(run(model, pixel_values).flatten(0, 1), inputs(model)[1].flatten())
    loss.backward()
    decay = set(Trainer.get_decay_parameter_names(None, model))
    modules = {}
    for name, parameter in model.named_parameters():
        if not name.startswith(half + ".") and not (half == "encoder" and name.startswith("enc_to_dec_proj")):
            continue
        gradient = parameter.grad
        kind = "f" if not parameter.requires_grad else "u" if gradient is None else "d" if name in decay else "n"
        words = [name.rpartition(".")[2], kind]
        if gradient is not None:
            weights = torch.from_numpy(uniform("gradient of " + name, gradient.numel()) - 0.5).reshape(gradient.shape)
            words += [number(gradient.norm()), number((gradient * weights).sum())]
        module = name.rpartition(".")[0]
        module = "-" if module == half else module.removeprefix(half + ".")
        modules.setdefault(module, []).append(" ".join(words))
    total = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None))
    head = [f"loss {loss.item():.9g} norm {total:.9g}"]
    return head + [" ".join([module, *words]) for module, words in modules.items()]


def trace(model, half: str, pixel_values) -> list[str]:
    """`kind rate shape norm` of everything that would be dropped out, in order; here nothing is.

    kind: e single elements, p whole samples of a branch, l a layer.
    """
    places = []
    inside = [None]

    def note(kind: str, rate: float, xs=None):
        if rate > 0 and inside[0] == half:
            shape = "x".join(map(str, xs.shape)) if xs is not None else "-"
            places.append(f"{kind} {number(rate)} {shape} {number(xs.double().norm()) if xs is not None else 0}")

    def elements(xs, p=0.5, training=True, inplace=False):
        note("e", p if training else 0.0, xs)
        return xs

    def drawn(*args, **kwargs):
        owner = sys._getframe(1).f_locals["self"]
        assert not args[0] if args else False, "a draw that is no layerdrop"
        note("l", owner.layerdrop)
        return torch.ones(())

    def enter(name):
        def hook(*_):
            inside[0] = name
        return hook

    for name in ("encoder", "decoder"):
        getattr(model, name).register_forward_pre_hook(enter(name))
    for module in model.modules():
        if type(module).__name__.endswith("DropPath"):
            module.forward = lambda xs, module=module: (note("p", module.drop_prob or 0.0, xs), xs)[1]
    with torch.no_grad(), patch("torch.nn.functional.dropout", elements), patch("torch.rand", drawn):
        if model.config.decoder.model_type == "prophetnet":
            whole(model, pixel_values)
        else:
            run(model, pixel_values)
    assert not any(rate in place for place in places for rate in (" 0.4 ", " 0.45 ", " 0.5 ", " 0.55 ", " 0.6 ", " 0.65 "))
    return places


def row(half: str, name: str, config: dict, size=None) -> dict:
    partner = DECODER if half == "encoder" else WIDE if "cross_attention_hidden_size" in config else ENCODER
    other = {"model_type": partner[0].split()[0]} | partner[1]
    config = {"model_type": name.split()[0]} | config
    pair = (config, other) if half == "encoder" else (other, config)
    size = size or partner[2]
    own = {name: rate for name, rate in rates(config, on=True).items() if rate != 0}
    found = {"partner": partner[0], "rates": own}
    found["parameters"] = parameters(model_of(*pair, on=False), half, image(pair[0], size))
    if traced(config):
        covered = TRACED_SIZES.get(name, size)
        found["dropout"] = trace(model_of(*pair, on=True), half, image(pair[0], covered))
        if covered != size:
            found["traced_size"] = covered
    print(f"{half} {name}: {len(found['parameters'])} modules, {len(found.get('dropout', []))} places", flush=True)
    return found


def write(rows: dict) -> None:
    """One line a module and a place."""
    def lines(name, values) -> str:
        if name in ("partner", "rates", "traced_size"):
            return f'   "{name}": {json.dumps(values)}'
        return f'   "{name}": [\n' + ",\n".join("    " + json.dumps(line) for line in values) + "\n   ]"

    blocks = [f' "labels": {json.dumps(LABELS)}']
    for half, found in rows.items():
        inner = [f'  {json.dumps(n)}: {{\n' + ",\n".join(lines(*item) for item in r.items()) + "\n  }" for n, r in found.items()]
        blocks.append(f' "{half}s": {{\n' + ",\n".join(inner) + "\n }")
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
    write({
        "encoder": {name: row("encoder", name, config, size) for name, config, size in ENCODERS + MORE_ENCODERS},
        "decoder": {name: row("decoder", name, config) for name, config in DECODERS + MORE_DECODERS},
    })


if __name__ == "__main__":
    main()
