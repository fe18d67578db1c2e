"""The reference's side of `cargo run --release --example training`: the same run in transformers' Seq2SeqTrainer.

    python reference.py MODEL DATA STEPS BATCH THREADS LEARNING_RATE DEVICE

Prints a JSON line a step: seconds since the step before, loss. Pixels are prepared before the first step, which spares
the reference what vedm does on the side. The loss is that of labels aligned with the logits: the model's own has shifted
them twice since 4.50 (transformers issue 42740).
"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    VisionEncoderDecoderModel,
)
from transformers.models.vision_encoder_decoder.modeling_vision_encoder_decoder import shift_tokens_right

model_dir, data, steps, batch, threads, rate, device = sys.argv[1:]
torch.set_num_threads(int(threads))
transformers.logging.set_verbosity_error()
model = VisionEncoderDecoderModel.from_pretrained(model_dir).float()
tokenizer = AutoTokenizer.from_pretrained(model_dir)
processor = AutoImageProcessor.from_pretrained(model_dir, use_fast=False)


def samples():
    with open(data, newline="") as file:
        for row in csv.DictReader(file):
            image = Image.open(Path(data).parent / row["image"]).convert("RGB")
            pixels = torch.from_numpy(processor(image)["pixel_values"][0]).float()
            ids = tokenizer(row["text"]).input_ids
            yield {"pixel_values": pixels, "labels": ids}


def collate(rows):
    labels = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row["labels"]) for row in rows], batch_first=True, padding_value=-100
    )
    ids = shift_tokens_right(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
    pixels = torch.stack([row["pixel_values"] for row in rows])
    return {"pixel_values": pixels, "labels": labels, "decoder_input_ids": ids}


def aligned(outputs, labels, num_items_in_batch):
    loss = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return loss / num_items_in_batch


class Watch(TrainerCallback):
    last = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        now = time.perf_counter()
        self.seconds, self.last = now - self.last, now


class Trainer(Seq2SeqTrainer):
    def training_step(self, *args, **kwargs):
        self.loss = super().training_step(*args, **kwargs)
        return self.loss


class Report(TrainerCallback):
    def on_log(self, args, state, control, **kwargs):
        if state.global_step > 0 and state.log_history and "grad_norm" in state.log_history[-1]:
            print(json.dumps({"seconds": watch.seconds, "loss": trainer.loss.item()}), flush=True)


watch = Watch()
with tempfile.TemporaryDirectory() as out:
    arguments = Seq2SeqTrainingArguments(
        output_dir=out, max_steps=int(steps), per_device_train_batch_size=int(batch), learning_rate=float(rate),
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=device == "cpu", disable_tqdm=True, remove_unused_columns=False,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=list(samples()), data_collator=collate, compute_loss_func=aligned,
        callbacks=[watch, Report()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
