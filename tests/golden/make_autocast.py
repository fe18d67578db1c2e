"""Writes tests/fixtures/autocast.json: golden cases under `torch.autocast` of the reference, in bf16 and f16.

    python tests/golden/make_autocast.py        (versions as in make.py)

Of each case, with the pixel values and labels of its expected.safetensors and dropout off:

* `loss`: in f32, without autocast.
* `bf16`, `f16`: under autocast, on a CPU. `loss`; `states_distance` and `logits_distance`: how far encoder states and
  logits are from f32 (L2 norm of the difference by L2 norm); `gradient_distance`: the same of all gradients as one
  vector. The loss is multiplied by 1024 before the backward pass in f16, the gradients are divided afterwards.
"""

import json
import warnings
from pathlib import Path

import torch
from transformers import VisionEncoderDecoderModel
from transformers.models.vision_encoder_decoder.modeling_vision_encoder_decoder import shift_tokens_right

from expected import stored

CASES = [
    "vit-gpt2", "vit-bert", "vit-bert-relative-key-query", "deit-trocr", "swin-gpt2", "swinv2-bert", "beit-bert",
    "dinov2-roberta-swiglu", "clip-roberta", "siglip-gpt2", "donut-swin-mbart", "vit-bart", "vit-electra", "vit-rembert",
]
HERE = Path(__file__).resolve().parent
SCALE = {torch.float32: 1.0, torch.bfloat16: 1.0, torch.float16: 1024.0}


def run(model, pixel_values, labels, ids, dtype):
    """Loss, states, logits, gradients of a pass under autocast to `dtype` (f32: none)."""
    model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = model(pixel_values=pixel_values, decoder_input_ids=ids, use_cache=False)
    loss = torch.nn.functional.cross_entropy(out.logits.float().flatten(0, 1), labels.flatten())
    (loss * SCALE[dtype]).backward()
    gradients = [p.grad.flatten().double() / SCALE[dtype] for p in model.parameters() if p.grad is not None]
    states = out.encoder_last_hidden_state
    return loss.item(), states.detach().double(), out.logits.detach().double(), torch.cat(gradients)


def distance(a, b) -> float:
    return ((a - b).norm() / b.norm()).item()


def main() -> None:
    warnings.filterwarnings("ignore")
    found = {}
    for name in CASES:
        pixel_values, tensors = stored(HERE / name)
        labels = tensors["labels"]
        model = VisionEncoderDecoderModel.from_pretrained(HERE / name).float().eval()
        ids = shift_tokens_right(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
        loss, states, logits, gradients = run(model, pixel_values, labels, ids, torch.float32)
        found[name] = {"loss": loss}
        for key, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
            low = run(model, pixel_values, labels, ids, dtype)
            found[name][key] = {
                "loss": low[0],
                "states_distance": distance(low[1], states),
                "logits_distance": distance(low[2], logits),
                "gradient_distance": distance(low[3], gradients),
            }
        print(name, found[name], flush=True)
    path = HERE.parent / "fixtures" / "autocast.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


main()
