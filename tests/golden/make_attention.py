"""Writes the cross-attention of some golden cases: `python tests/golden/make_attention.py`.

Into each case's folder `attention.safetensors`: for picture i the first greedy ids of expected.json, teacher-forced,
`ids_<i>` [T] i64, `cross_attentions_<i>` [L, A, T, S] f32 and `logprobs_<i>` [T, V] f32 (of the raw logits). And
`logprobs_noise` []: how far these are from the reference's own in f64 (or, where that can't be had, with weights moved
by a rounding). Versions as `make.py`, eager attention.
"""

import copy
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import VisionEncoderDecoderModel

sys.dont_write_bytecode = True

from make import check_versions

HERE = Path(__file__).resolve().parent
CASES = ["vit-gpt2", "swin-gpt2", "donut-swin-mbart", "vit-bart", "vit-trocr-sinusoidal", "beit-bert", "yolos-gpt2"]


def run(model, pixel_values, input_ids):
    with torch.no_grad():
        return model(pixel_values=pixel_values, decoder_input_ids=input_ids, output_attentions=True)


def neighbour(model, double: bool):
    """The model in f64 or, where the class can't compute in it, with every weight moved by a rounding or so."""
    other = copy.deepcopy(model)
    if double:
        return other.double()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1 + torch.randn_like(weight) * 2**-24)
    return other


def main() -> None:
    check_versions()
    for name in CASES:
        folder = HERE / name
        model = VisionEncoderDecoderModel.from_pretrained(folder, attn_implementation="eager").eval()
        pixel_values = load_file(folder / "expected.safetensors")["pixel_values"]
        generation = json.loads((folder / "expected.json").read_text())["generations"][0]
        assert generation["flags"].get("num_beams", 1) == 1 and "prompt" not in generation, name
        start = model.generation_config.decoder_start_token_id
        if start is None:
            start = model.generation_config.bos_token_id
        other = neighbour(model, "sinusoidal" not in name)
        out, noise = {}, 0.0
        for i, ids in enumerate(generation["ids"]):
            input_ids = torch.tensor([[start, *ids[:-1]]])
            found = run(model, pixel_values[i : i + 1], input_ids)
            exact = run(other, pixel_values[i : i + 1].to(other.dtype), input_ids)
            difference = found.logits[0].log_softmax(-1) - exact.logits[0].log_softmax(-1)
            noise = max(noise, difference.abs().max().item())
            out[f"ids_{i}"] = torch.tensor(ids)
            out[f"cross_attentions_{i}"] = torch.cat(found.cross_attentions).contiguous()
            out[f"logprobs_{i}"] = found.logits[0].log_softmax(-1).contiguous()
            assert found.logits[0].argmax(-1).tolist() == ids, name
        out["logprobs_noise"] = torch.tensor(noise)
        save_file(out, folder / "attention.safetensors")
        print(name, noise, {key: list(value.shape) for key, value in out.items()})


main()
