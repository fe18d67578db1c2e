"""Group beam search and contrastive search, which transformers 4.57 moved out of the library.

They run under transformers 4.46.3 in an interpreter of its own, named by the environment variable
`GOLDEN_LEGACY_PYTHON`. That version must agree with the pinned one on the logits of the checkpoint.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # as in make.py

VERSION = "4.46.3"


def run(folder: Path, generations):
    """The records of these generations, in order."""
    python = os.environ.get("GOLDEN_LEGACY_PYTHON")
    if not python:
        sys.exit(f"set GOLDEN_LEGACY_PYTHON to a Python with transformers {VERSION}")
    request = json.dumps([{"flags": g.flags, "prompt": g.prompt} for g in generations])
    done = subprocess.run([python, __file__, str(folder)], input=request, capture_output=True, text=True)
    if done.returncode == 3:
        import expected

        raise expected.Unstable(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        sys.exit(done.stderr)
    return iter(json.loads(done.stdout))


def main(folder: Path) -> None:
    import torch
    import transformers
    from transformers import AutoTokenizer, VisionEncoderDecoderModel

    import expected

    assert transformers.__version__ == VERSION, transformers.__version__
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    model = VisionEncoderDecoderModel.from_pretrained(folder).eval()
    model.config.vocab_size = model.config.decoder.vocab_size  # its `compute_transition_scores` wants it there
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pixel_values, reference = expected.stored(folder)
    logits = model(pixel_values=pixel_values, labels=reference["labels"], use_cache=False).logits
    torch.testing.assert_close(logits, reference["logits"], rtol=1e-5, atol=1e-5)
    models = [model, expected.perturbed(model)]
    try:
        records = [
            expected.run_checked(models, tokenizer, pixel_values, r["flags"], r["prompt"])
            for r in json.load(sys.stdin)
        ]
    except expected.Unstable as reason:
        print(reason, file=sys.stderr)
        sys.exit(3)
    json.dump(records, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
