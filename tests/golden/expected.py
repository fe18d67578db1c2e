"""Computes what a checkpoint must give: tensors of the forward pass, ids and scores of `generate`.

Shared by `make.py` (the pinned transformers) and `legacy.py` (an older one).
"""

import copy
import json
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from transformers import AutoImageProcessor
from transformers.models.vision_encoder_decoder.modeling_vision_encoder_decoder import shift_tokens_right

from checkpoint import settle

#: Smallest gap between the best two scores of a greedy step, and between two returned beams of an image.
GREEDY_MARGIN, BEAM_MARGIN = 1e-3, 1e-4

#: Image processors without a slow version; they need torchvision.
FAST_ALONE = ("DINOv3ViTImageProcessorFast",)


class Unstable(Exception):
    """These weights make a result that a rounding error could change, or a dull one: the next seed is tried."""


def load_pixels(folder, names) -> torch.Tensor:
    """Upright RGB pictures through the image processor of the folder, the slow one if there is one: `[B, 3, H, W]`."""
    kind = json.loads((folder / "preprocessor_config.json").read_text()).get("image_processor_type")
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=kind in FAST_ALONE)
    images = [ImageOps.exif_transpose(Image.open(folder / name)).convert("RGB") for name in names]
    pixels = [np.asarray(processor(image)["pixel_values"][0]) for image in images]
    return torch.from_numpy(np.stack(pixels)).float().contiguous()


def stored(folder) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The pixel values of a written case, and all its tensors."""
    tensors = load_file(folder / "expected.safetensors")
    return tensors["pixel_values"], tensors


def labels(tokenizer, count: int) -> torch.Tensor:
    """Two to four words an image, with the special tokens of the tokenizer, padded by -100: `[B, T]`."""
    from tokenizer import SENTENCES

    texts = [" ".join(SENTENCES[i % len(SENTENCES)].split()[: 2 + i % 3]) for i in range(count)]
    rows = [tokenizer(text).input_ids for text in texts]
    width = max(map(len, rows))
    return torch.tensor([row + [-100] * (width - len(row)) for row in rows])


def forward(model, pixel_values, targets) -> dict[str, torch.Tensor]:
    """The teacher-forced pass with dropout off: states before `enc_to_dec_proj`, logits, loss, gradient norm.

    `logits_noise` and `grad_norm_noise` tell how far the reference's own f32 is from f64 there.
    """
    found = _pass(model, pixel_values, targets)
    exact = _exactly(model, pixel_values, targets)
    return {
        "pixel_values": pixel_values,
        "labels": targets,
        **{name: value.float() for name, value in found.items()},
        "logits_noise": (found["logits"].double() - exact["logits"]).abs().max().float(),
        "grad_norm_noise": (found["grad_norm"] / exact["grad_norm"] - 1).abs().float(),
    }


def _exactly(model, pixel_values, targets) -> dict[str, torch.Tensor]:
    """The same in f64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # some models make their masks in it
    try:
        return _pass(_double(model), pixel_values.double(), targets)
    finally:
        torch.set_default_dtype(before)


def _pass(model, pixel_values, targets) -> dict[str, torch.Tensor]:
    """Without a cache: with one, 4.57.6 takes the last position for every query of a relative_key attention.

    The loss is for labels aligned with the logits, as the model's documentation has it and versions to 4.45 compute
    it; 4.57.6 itself shifts them once more by mistake (transformers issue 42740).
    """
    config, generation = model.config, model.generation_config
    start = config.decoder_start_token_id
    start = generation.decoder_start_token_id if start is None else start
    pad = generation.pad_token_id if config.pad_token_id is None else config.pad_token_id
    start = generation.bos_token_id if start is None else start
    pad = generation.eos_token_id if pad is None else pad
    model.zero_grad()
    ids = shift_tokens_right(targets, pad, start)
    out = model(pixel_values=pixel_values, decoder_input_ids=ids, use_cache=False)
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), targets.flatten())
    loss.backward()
    squares = [p.grad.double().pow(2).sum() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return {
        "encoder_hidden_states": out.encoder_last_hidden_state.detach(),
        "logits": out.logits.detach(),
        "loss": loss.detach(),
        "grad_norm": torch.stack(squares).sum().sqrt(),
    }


def _double(model):
    other = settle(copy.deepcopy(model).double())
    for module in other.modules():
        if getattr(module, "reorder_and_upcast_attn", False):
            module.reorder_and_upcast_attn = False  # insists on f32; the mathematics are the same
    return other


def perturbed(model):
    """A copy of the model with every weight off by some rounding errors."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1 + 3e-6 * torch.randn(weight.shape, generator=generator))
    return other


def _cut(row: list[int], eos: list[int], pad: int) -> list[int]:
    """The row up to its first end token; without one, up to the trailing pads."""
    for i, token in enumerate(row):
        if token in eos:
            return row[: i + 1]
    while row and row[-1] == pad:
        row = row[:-1]
    return row


def _ends(model, flags) -> tuple[list[int], int]:
    eos = flags.get("eos_token_id", model.generation_config.eos_token_id)
    eos = eos if isinstance(eos, list) else [] if eos is None else [eos]
    pad = flags.get("pad_token_id", model.generation_config.pad_token_id)
    return eos, pad if pad is not None else (eos or [-1])[0]


def _decoder_ids(model, tokenizer, prompt: str | None, rows: int):
    """Start token and prompt for each image, or None where generate is to begin by itself."""
    if prompt is None:
        return None
    settings = model.generation_config
    start = settings.decoder_start_token_id if settings.decoder_start_token_id is not None else settings.bos_token_id
    return torch.tensor([[start, *tokenizer(prompt, add_special_tokens=False).input_ids]] * rows)


def generate(model, tokenizer, pixel_values, flags, prompt=None):
    """Calls `generate`; returns its output and the number of leading ids that are not new."""
    extra = {}
    decoder_ids = _decoder_ids(model, tokenizer, prompt, len(pixel_values))
    if decoder_ids is not None:
        extra["decoder_input_ids"] = decoder_ids
    if flags.get("stop_strings"):
        extra["tokenizer"] = tokenizer
    with torch.no_grad():
        out = model.generate(
            pixel_values=pixel_values, return_dict_in_generate=True, output_scores=True, **copy.deepcopy(flags), **extra
        )
    return out, 1 if decoder_ids is None else decoder_ids.shape[1]


def _greedy_details(out, rows, first) -> tuple[list[list[float]], float]:
    """Log-probabilities of the chosen tokens under the processed scores, and the smallest top-two gap."""
    margin, logprobs = float("inf"), []
    for i, row in enumerate(rows):
        logprobs.append([])
        for step, token in enumerate(row):
            scores = out.scores[step][i].float()
            logprobs[-1].append(scores.log_softmax(-1)[token].item())
            best = scores.topk(2).values
            if torch.isfinite(scores).sum() > 3:  # fewer: forced
                margin = min(margin, (best[0] - best[1]).item())
    return logprobs, margin


def _beam_details(model, out, rows) -> list[list[float]]:
    """`compute_transition_scores` of the returned beams, cut to their rows."""
    scores = model.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    return [scores[i, : len(row)].tolist() for i, row in enumerate(rows)]


def run(model, tokenizer, pixel_values, flags, prompt=None) -> tuple[dict, float]:
    """One generation as it stands in expected.json, and its margin."""
    batches = [pixel_values] if not flags.get("stop_strings") else list(pixel_values.split(1))
    record = {"ids": [], "texts": [], "sequences_scores": [], "token_logprobs": []}
    margin = float("inf")
    eos, pad = _ends(model, flags)
    for batch in batches:
        out, first = generate(model, tokenizer, batch, flags, prompt)
        fill = pad if len(batches) == 1 else -1  # alone, a row has no padding to drop
        rows = [_cut(row[first:], eos, fill) for row in out.sequences.tolist()]
        record["ids"] += rows
        record["texts"] += tokenizer.batch_decode(rows, skip_special_tokens=True)
        beams = getattr(out, "beam_indices", None) is not None
        if beams:
            record["sequences_scores"] += out.sequences_scores.tolist()
            if flags.get("num_beam_groups", 1) == 1:  # `compute_transition_scores` fails on groups
                record["token_logprobs"] += _beam_details(model, out, rows)
            per_image = out.sequences_scores.view(len(batch), -1)
            if per_image.shape[1] > 1:
                margin = min(margin, (per_image[:, :-1] - per_image[:, 1:]).min().item())
        else:
            logprobs, gap = _greedy_details(out, rows, first)
            record["token_logprobs"] += logprobs
            margin = min(margin, gap)
    if not np.isfinite([x for row in record["token_logprobs"] for x in row]).all():
        raise Unstable("a log-probability is not finite")
    return {name: rows for name, rows in record.items() if rows}, margin


def run_checked(models, tokenizer, pixel_values, flags, prompt=None) -> dict:
    """`run` on the model and on its perturbed copy; refuses what differs between them or has near ties."""
    record, margin = run(models[0], tokenizer, pixel_values, flags, prompt)
    other, _ = run(models[1], tokenizer, pixel_values, flags, prompt)
    if record["ids"] != other["ids"]:
        raise Unstable(f"{flags}: ids differ under rounding errors")
    eos, pad = _ends(models[0], flags)
    if pad not in eos and any(pad in row for row in record["ids"]):
        raise Unstable(f"{flags}: padding is chosen as a token")
    needed = BEAM_MARGIN if "sequences_scores" in record else GREEDY_MARGIN
    contrastive = flags.get("penalty_alpha") is not None
    if margin < needed and not contrastive:
        raise Unstable(f"{flags}: margin {margin:.1e}")
    return record


def plain(flags) -> dict:
    """The flags that say how much is generated, without those that change scores."""
    keep = ("num_beams", "max_new_tokens", "max_length", "num_return_sequences")
    return {k: v for k, v in flags.items() if k in keep}


def processed(models, tokenizer, pixel_values, path: list[int], flags) -> torch.Tensor:
    """Scores after processors and warpers at each step of a forced path, one image: `[steps, V]`.

    Refuses what excludes other tokens on the perturbed copy.
    """
    found, other = (_processed(model, tokenizer, pixel_values, path, flags) for model in models)
    if not torch.equal(torch.isfinite(found), torch.isfinite(other)):
        raise Unstable(f"{flags}: a token is on the edge of exclusion")
    return found


def _processed(model, tokenizer, pixel_values, path, flags):
    """The library's own sampling loop runs; only the draw is replaced by the next id of the path."""
    if flags.get("num_beams", 1) > 1:
        return _processed_beam(model, pixel_values, path, flags)
    ids = iter(path)
    with patch("torch.multinomial", lambda *_, **__: torch.tensor([[next(ids)]])):
        out, first = generate(model, tokenizer, pixel_values, {"max_new_tokens": len(path)} | flags)
    assert out.sequences[0, first:].tolist() == path
    return torch.cat(out.scores).float()


def _processed_beam(model, pixel_values, path, flags):
    """Beam sampling has no single path: its processors on the log-probabilities of the path, before the beam's score."""
    settings, _ = model._prepare_generation_config(None, **flags, max_new_tokens=len(path))
    model._prepare_special_tokens(settings, True, "cpu")
    settings.max_length = 1 + len(path)
    processors = model._get_logits_processor(settings, 1, encoder_input_ids=pixel_values, device="cpu")
    ids = torch.tensor([[settings._decoder_start_token_tensor.item(), *path]])
    with torch.no_grad():
        logits = model(pixel_values=pixel_values, decoder_input_ids=ids).logits[0].float()
    steps = [processors(ids[:, : t + 1], logits[t : t + 1].log_softmax(-1)) for t in range(len(path))]
    return torch.cat(steps)
