"""Writes the golden cases: `python tests/golden/make.py [CASE...]` (all without a name; a name may end in `*`).

Every number comes from transformers 4.57.6 (group beam and contrastive search, which left that version, from 4.46.3:
see `legacy.py`). The form of a case is told in README.md, its rows are in `cases_*.py`.

Versions: Python 3.11, transformers 4.57.6, torch 2.11.0, tokenizers 0.22.2, Pillow 13.0.0, safetensors 0.8.0.
"""

import fnmatch
import json
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import PIL
import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoTokenizer, VisionEncoderDecoderModel

sys.dont_write_bytecode = True  # the folder holds cases, not caches

import checkpoint
import expected
import legacy
import tokenizer as tiny
from case import Case, Context
from expected import Unstable

VERSIONS = {transformers: "4.57.6", torch: "2.11.0", tokenizers: "0.22.2", PIL: "13.0.0", safetensors: "0.8.0"}
HERE = Path(__file__).resolve().parent
SEEDS = 400


def check_versions() -> None:
    for module, wanted in VERSIONS.items():
        found = module.__version__.split("+")[0]
        if found != wanted:
            sys.exit(f"{module.__name__} {wanted} is needed, {found} is installed")


def lively(rows: list[list[int]]) -> None:
    """Refuses greedy ids that would not notice a mistake."""
    if len({token for row in rows for token in row}) < 4:
        raise Unstable("fewer than 4 distinct tokens")
    if len({tuple(row) for row in rows}) < len(rows):
        raise Unstable("two images give the same ids")
    pairs = [pair for row in rows for pair in zip(row, row[1:])]
    if sum(a == b for a, b in pairs) * 4 > len(pairs):
        raise Unstable("mostly repetitions")
    if any(len(row) < 3 for row in rows):
        raise Unstable("a row ends at once")


def choose_weights(case: Case, config, tokenizer, pixel_values, rank: int):
    """The `rank`-th seed from `case.seed` on whose greedy ids are lively and stable, with the model it makes."""
    model = checkpoint.build_model(config, checkpoint.attention(case))
    eos = checkpoint.special_ids(case, tokenizer)["eos_token_id"]
    ids = checkpoint.special_ids(case, tokenizer)
    reasons = Counter()
    for seed in range(case.seed + rank, case.seed + SEEDS):
        checkpoint.randomise(model, seed, eos, case.gains)
        if case.dtype != "float32":
            model.to(getattr(torch, case.dtype)).float()
        model.generation_config = transformers.GenerationConfig(**ids)
        try:
            record, margin = expected.run(model, tokenizer, pixel_values, {"max_new_tokens": case.max_new_tokens})
            lively(record["ids"])
            if margin < expected.GREEDY_MARGIN:
                raise Unstable(f"margin {margin:.1e}")
            if not any(row[-1] == eos for row in record["ids"]):
                raise Unstable("no row ends")
            return seed, model
        except Unstable as reason:
            reasons[str(reason).split(" 1e")[0][:30]] += 1
    sys.exit(f"{case.name}: no seed gives lively ids: {dict(reasons)}")


def generations(case: Case, folder: Path, models, tokenizer, tensors, context: Context) -> list[dict]:
    """The records of `generations` in expected.json."""
    wanted = case.generations(context) if callable(case.generations) else case.generations
    old = legacy.run(folder, [g for g in wanted if g.legacy]) if any(g.legacy for g in wanted) else iter(())
    records = []
    for generation in wanted:
        head = {"flags": generation.flags}
        if generation.prompt is not None:
            head["prompt"] = generation.prompt
        if generation.legacy:
            record = next(old)
        else:
            record = expected.run_checked(models, tokenizer, tensors["pixel_values"], generation.flags, generation.prompt)
        if generation.effect:
            base = expected.plain(generation.flags)
            base, _ = expected.run(models[0], tokenizer, tensors["pixel_values"], base)
            if base["ids"] == record["ids"]:
                raise Unstable(f"{generation.flags} has no effect")
        records.append(head | record)
    return records


def processed(case: Case, models, tokenizer, tensors, context: Context) -> list[dict]:
    """The records of `processed` in expected.json; their tensors join `tensors`."""
    wanted = case.processed(context) if callable(case.processed) else case.processed
    image = max(range(len(context.greedy)), key=lambda i: len(context.greedy[i]))
    path, records = context.greedy[image], []
    pixel_values = tensors["pixel_values"][image : image + 1]
    for i, flags in enumerate(wanted):
        name = f"processed_{i}_scores"
        flags = {"do_sample": True} | flags
        tensors[name] = expected.processed(models, tokenizer, pixel_values, path, flags)
        records.append({"flags": flags, "image": image, "path": [path], "tensor": name})
    return records


def write_expected(folder: Path, images, tensors, records, scores) -> None:
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    parts = [f' "images": {json.dumps(images)}']
    for name, rows in (("generations", records), ("processed", scores)):
        if rows:
            lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
            parts.append(f' "{name}": [\n{lines}\n ]')
    (folder / "expected.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
    for path in folder.iterdir():
        path.chmod(0o644)


def make(case: Case) -> None:
    """Writes one case, trying seeds until every result is robust and every option marked so has its effect."""
    folder = HERE / case.name
    tokenizer = tiny.make(case.tokenizer)
    rank = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        images = checkpoint.write_inputs(case, folder, tokenizer)
        config = checkpoint.build_config(case, tokenizer)
        pixel_values = expected.load_pixels(folder, images)
        seed, model = choose_weights(case, config, tokenizer, pixel_values, rank)
        checkpoint.write_model(case, folder, model, tokenizer)
        if case.finish:
            case.finish(folder)
        try:
            fill(case, folder, images)
            break
        except Unstable as reason:
            print(f"{case.name}: seed {seed}: {reason}", flush=True)
            rank = seed - case.seed + 1
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > case.limit_kb * 1000:
        sys.exit(f"{case.name}: {size} bytes, at most {case.limit_kb} kB are allowed")
    print(f"{case.name}: seed {seed}, {size / 1000:.0f} kB", flush=True)


def fill(case: Case, folder: Path, images: list[str]) -> None:
    """Reads the written folder as a user would and writes what it must give."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    attention = checkpoint.attention(case)
    model = checkpoint.settle(
        VisionEncoderDecoderModel.from_pretrained(folder, attn_implementation=attention).eval()
    )
    assert model.dtype == torch.float32
    models = [model, expected.perturbed(model)]
    pixel_values = expected.load_pixels(folder, images)
    tensors = expected.forward(model, pixel_values, expected.labels(tokenizer, len(images)))
    if tensors["logits_noise"] > 5e-5:
        raise Unstable(f"ill-conditioned: f32 and f64 differ by {tensors['logits_noise']:.1e}")
    greedy = {"num_beams": 1, "no_repeat_ngram_size": 0, "max_new_tokens": case.max_new_tokens}
    record = expected.run_checked(models, tokenizer, pixel_values, greedy)
    context = Context(record["ids"], tokenizer)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    records = generations(case, folder, models, tokenizer, tensors, context)
    scores = processed(case, models, tokenizer, tensors, context)
    if case.demand and not case.demand([record["ids"] for record in records]):
        raise Unstable("the demand of the case is not met")
    write_expected(folder, images, tensors, records, scores)


def main(names: list[str]) -> None:
    check_versions()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    import cases

    for name in names:
        if not fnmatch.filter(cases.CASES, name):
            sys.exit(f"no case is called {name!r}; there are: {' '.join(cases.CASES)}")
    for name, case in cases.CASES.items():
        if not names or any(fnmatch.fnmatch(name, pattern) for pattern in names):
            make(case)


if __name__ == "__main__":
    main(sys.argv[1:])
