"""Writes `tests/fixtures/curves/`: how losses fall under transformers 4.57.6's own `Seq2SeqTrainer`.

    python tests/golden/make_curves.py

Each run starts from a golden case without dropout (`prepare`) and learns the pictures of `data.csv` for 20 steps, with
the Trainer's data order, AdamW, schedule, clipping and accumulation. `curves.json` holds the settings, under the names
of the arguments, and loss, gradient norm and learning rate of each step; `rates` all schedules by value.

The loss is handed to the Trainer (`compute_loss_func`), because that of VisionEncoderDecoderModel itself has shifted
the labels twice since 4.50 (transformers issue 42740): the cross-entropy of labels aligned with the logits, its sum over
a step divided by the step's number of labels, as the library's other models compute it. Smoothed losses are those of
the Trainer's own `LabelSmoother`, which never shifted.
"""

import csv
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    VisionEncoderDecoderModel,
    get_scheduler,
)
from transformers.models.vision_encoder_decoder.modeling_vision_encoder_decoder import shift_tokens_right

sys.dont_write_bytecode = True  # the folder holds cases, not caches

import picture
from checkpoint import edit_json
from make import check_versions
from tokenizer import SENTENCES

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "fixtures" / "curves"
PICTURES = [f"{motif}_{size}" for size in ("26x21", "19x30") for motif in ("blobs", "stripes", "glyphs", "noise")]
MODELS = ["vit-gpt2", "vit-trocr-usecache-false", "swin-bart"]
STEPS = 20
COMMON = {"max_steps": STEPS, "learning_rate": 1e-3, "seed": 42}
#: Eight rows and one twice: the last batch of an epoch is smaller, and closes a group of its own.
SETTINGS = [
    {"per_device_train_batch_size": 4, "lr_scheduler_type": "linear", "warmup_steps": 4, "weight_decay": 0.1},
    {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1, "max_grad_norm": 0.5, "adam_beta2": 0.98, "seed": 7,
    },
    {
        "per_device_train_batch_size": 3, "label_smoothing_factor": 0.1, "lr_scheduler_type": "inverse_sqrt",
        "warmup_steps": 3, "weight_decay": 0.01, "max_grad_norm": 0.0, "learning_rate": 5e-4,
    },
]
SCHEDULES = [
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
]


def write_data() -> list[tuple[str, str]]:
    """Pictures and `data.csv` beside them; one picture has two texts."""
    rows = []
    for i, name in enumerate(PICTURES):
        picture.draw(name).save(OUT / f"{name}.png", optimize=True)
        rows.append((f"{name}.png", " ".join(SENTENCES[i % len(SENTENCES)].split()[: 1 + i % 5])))
    rows.append((rows[0][0], rows[1][1]))
    with open(OUT / "data.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("image", "text"), *rows])
    return rows


def prepare(case: str, folder: Path) -> None:
    """A copy of a golden case whose rates are all 0, with a quarter of every matrix: at their own size, gradients are
    so steep that a rounding error decides where 20 steps lead.
    """
    shutil.copytree(HERE / case, folder)

    def change(config):
        for half in (config["encoder"], config["decoder"]):
            names = [n for n in half if "drop" in n or n.endswith("_pdrop")]
            half.update({name: 0.0 for name in names})

    edit_json(folder / "config.json", change)
    weights = load_file(folder / "model.safetensors")
    weights = {name: weight / 4 if weight.dim() > 1 else weight for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def samples(folder: Path, rows) -> list[dict]:
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder, use_fast=False)
    found = []
    for name, text in rows:
        ids = tokenizer(text).input_ids
        if ids[-1] != tokenizer.eos_token_id and ids[-1] != tokenizer.sep_token_id:
            ids.append(tokenizer.eos_token_id)  # GPT-2's tokenizer ends no text
        pixels = processor(Image.open(OUT / name).convert("RGB"))["pixel_values"][0]
        found.append({"pixel_values": np.asarray(pixels, dtype=np.float32), "labels": ids})
    return found


class Recorder(Seq2SeqTrainer):
    """Keeps the losses of all forward passes: the log rounds them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.losses = []

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.losses.append(loss.item())
        return loss


def aligned(outputs, labels, num_items_in_batch):
    """The cross-entropy of labels in their own places, as `fixed_cross_entropy` divides it."""
    loss = torch.nn.functional.cross_entropy(
        outputs.logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
    )
    return loss / num_items_in_batch


def run(case: str, rows, settings: dict) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        prepare(case, folder)
        model = VisionEncoderDecoderModel.from_pretrained(folder)

        def collate(batch):
            width = max(len(sample["labels"]) for sample in batch)
            labels = torch.tensor([s["labels"] + [-100] * (width - len(s["labels"])) for s in batch])
            ids = shift_tokens_right(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
            pixels = torch.from_numpy(np.stack([sample["pixel_values"] for sample in batch]))
            return {"pixel_values": pixels, "labels": labels, "decoder_input_ids": ids}

        smoothed = settings.get("label_smoothing_factor", 0) > 0
        arguments = Seq2SeqTrainingArguments(
            output_dir=str(Path(temporary, "out")), logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
            disable_tqdm=True, remove_unused_columns=False, dataloader_num_workers=0, **(COMMON | settings),
        )
        trainer = Recorder(
            model=model, args=arguments, train_dataset=samples(folder, rows), data_collator=collate,
            compute_loss_func=None if smoothed else aligned,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    log = [line for line in trainer.state.log_history if "learning_rate" in line]
    batch, group = settings["per_device_train_batch_size"], settings.get("gradient_accumulation_steps", 1)
    passes, losses = -(-len(rows) // batch), []
    left = iter(trainer.losses)
    while len(losses) < STEPS:  # an epoch's last group may be smaller
        for first in range(0, passes, group):
            losses.append(sum(next(left) for _ in range(min(group, passes - first))))
            if len(losses) == STEPS:
                break
    assert next(left, None) is None and len(log) == STEPS
    assert all(abs(line["loss"] - loss) < 1e-4 for line, loss in zip(log, losses)), "losses are not those of the log"
    return {
        "case": case,
        "settings": COMMON | settings,
        "loss": [float(f"{x:.8g}") for x in losses],
        "grad_norm": [float(f"{line['grad_norm']:.6g}") for line in log if "grad_norm" in line],
        "learning_rate": [line["learning_rate"] for line in log],
    }


def rates() -> list[dict]:
    """50 steps of every schedule, with and without a warm-up; a run that ends after 40 goes on at its end's value."""
    found = []
    for name in SCHEDULES:
        for warmup in (0, 7):
            optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
            scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=40)
            values = []
            for _ in range(50):
                values.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
            found.append({"schedule": name, "warmup_steps": warmup, "values": values})
    return found


def main() -> None:
    check_versions()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    rows = write_data()
    runs = []
    for case in MODELS:
        for settings in SETTINGS:
            runs.append(run(case, rows, settings))
            print(case, settings["lr_scheduler_type"], runs[-1]["loss"][0], "->", runs[-1]["loss"][-1], flush=True)
    schedules = {"learning_rate": 5e-4, "max_steps": 40, "schedules": rates()}
    lines = [f'  {json.dumps(run)}' for run in runs]
    lines2 = [f'   {json.dumps(schedule)}' for schedule in schedules.pop("schedules")]
    head = ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in schedules.items())
    text = ' "runs": [\n' + ",\n".join(lines) + f'\n ],\n "rates": {{{head}, "schedules": [\n' + ",\n".join(lines2) + "\n ]}"
    (OUT / "curves.json").write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    main()
