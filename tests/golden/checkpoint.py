"""Makes the checkpoint of a case: configs, weights with some life in them, tokenizer, image processor, pictures."""

import json
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel
from transformers.pytorch_utils import Conv1D

import picture
from case import Case

#: Scales of the random weights, by kind of parameter; a case may change them in `gains`.
GAINS = {
    "linear": 1.4, "attention": 0.8, "cross": 1.0, "sharp": 4.5, "embedding": 0.6, "norm": 0.3, "bias": 0.05, "free": 0.5,
    "eos": 1.7,
}
QUERY_KEY = ("query", "key", "q_proj", "k_proj", "q_attn")


def special_ids(case: Case, tokenizer) -> dict[str, int]:
    """bos, eos, pad and start ids as the parent config and the decoder config hold them."""
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    if bos is None:
        ids.pop("bos_token_id")
    return ids | {"decoder_start_token_id": ids[case.start + "_token_id"]}


def build_config(case: Case, tokenizer) -> VisionEncoderDecoderConfig:
    """The VisionEncoderDecoderConfig of a case; the decoder's vocabulary is the tokenizer's unless it says otherwise."""
    ids = special_ids(case, tokenizer)
    decoder = {"vocab_size": len(tokenizer)} | {k: v for k, v in ids.items() if k != "decoder_start_token_id"} | case.decoder
    encoder = AutoConfig.for_model(**case.encoder)
    decoder = AutoConfig.for_model(**decoder)
    return VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **(ids | case.parent))


def _fan_in(module, weight):
    return weight.shape[0] if isinstance(module, Conv1D) else weight[0].numel()


def randomise(model, seed: int, eos: int, gains: dict[str, float]) -> None:
    """Fills every parameter from `seed` so that ids vary along a sequence and between images.

    Layer norms are not 1/0 (mixed signs keep a tied head from repeating its input), biases are not 0, attention is sharp, the row of the end token is long so that it is
    sometimes chosen. Fixed sinusoidal tables stay as they are.
    """
    gains = GAINS | gains
    generator = torch.Generator().manual_seed(seed)
    done = set()
    with torch.no_grad():
        for path, module in model.named_modules():
            if "Sinusoidal" in type(module).__name__:
                if hasattr(module, "_float_tensor"):
                    module._float_tensor.zero_()  # saved, unused and born uninitialised
                continue
            for name, weight in module.named_parameters(recurse=False):
                if id(weight) in done:
                    continue
                done.add(id(weight))
                noise = torch.randn(weight.shape, generator=generator)
                if isinstance(module, torch.nn.Embedding):
                    weight.copy_(noise * gains["embedding"])
                    if "word_embeddings" in path or "wte" in path or "embed_tokens" in path:
                        weight[eos] *= gains["eos"]
                elif name == "weight" and weight.dim() > 1:
                    cross = "cross" in path or "encoder_attn" in path
                    sharp = path.endswith(QUERY_KEY)
                    kind = "sharp" if sharp else "cross" if cross else "attention" if "att" in path else "linear"
                    weight.copy_(noise * gains[kind] / _fan_in(module, weight) ** 0.5)
                    if weight.shape[0] == model.config.decoder.vocab_size and weight.dim() == 2:
                        weight[eos] *= gains["eos"]
                elif name == "weight":
                    signs = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
                    weight.copy_((1 + gains["norm"] * noise) * signs)
                elif name.startswith("lambda"):
                    weight.copy_(1 + 0.5 * noise)
                elif name == "bias":
                    weight.copy_(gains["bias"] * noise)
                else:
                    weight.copy_(gains["free"] * noise)
    model.tie_weights()


def attention(case: Case) -> str | None:
    """GPT-2's default attention ignores `scale_attn_weights` and `scale_attn_by_inverse_layer_idx`; eager heeds them."""
    unusual = not case.decoder.get("scale_attn_weights", True) or case.decoder.get("scale_attn_by_inverse_layer_idx")
    return "eager" if unusual else None


def build_model(config, attn_implementation=None) -> VisionEncoderDecoderModel:
    """An eval-mode model of that config, weights not yet chosen."""
    if attn_implementation:
        for part in (config, config.encoder, config.decoder):
            part._attn_implementation = attn_implementation
    return settle(VisionEncoderDecoderModel(config).eval())


def settle(model):
    """Takes what is random even in eval mode out of a model: ViT-MAE keeps its patches in order (mask_ratio must be 0)."""
    if model.config.encoder.model_type == "vit_mae":
        embeddings = model.encoder.embeddings
        shuffle = type(embeddings).random_masking
        embeddings.random_masking = lambda xs, _: shuffle(embeddings, xs, torch.arange(xs.shape[1]).expand(xs.shape[:2]))
    return model


def write_inputs(case: Case, folder: Path, tokenizer) -> list[str]:
    """Saves tokenizer, image processor and pictures; returns the names of the picture files."""
    tokenizer.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "vocab.txt"):
        Path(folder, name).unlink(missing_ok=True)
    values = dict(case.processor)
    kind = values.pop("image_processor_type", "ViTImageProcessor")
    getattr(transformers, kind)(**values).save_pretrained(folder)
    names = []
    for name in case.pictures:
        names.append(name + ".png")
        picture.draw(name).save(folder / names[-1], optimize=True)
    return names


def write_model(case: Case, folder: Path, model, tokenizer) -> None:
    """Saves weights, config.json and generation_config.json as `save_pretrained` writes them."""
    ids = special_ids(case, tokenizer)
    settings = ids | {k: v for k, v in (case.generation_config or {}).items()}
    model.generation_config = transformers.GenerationConfig(**settings)
    if case.dtype != "float32":
        model.to(getattr(torch, case.dtype))
    model.save_pretrained(folder, max_shard_size=case.shard)
    model.float()
    # `save_pretrained` moves legacy generation settings away from config.json; older versions left them there
    edit_json(folder / "config.json", lambda config: config.update(case.parent))
    if case.generation_config is None:
        Path(folder, "generation_config.json").unlink()


def edit_json(path: Path, change) -> None:
    """Rewrites a JSON file after `change` has worked on its value in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, indent=2) + "\n")
