"""The sides of transformers and of ONNX Runtime through optimum. Started by the benchmark, which tells it the arguments.

    reference.py serve MODEL --threads N --dtype f32              answers requests, a JSON object a line
    reference.py once MODEL IMAGE --beams K --tokens N ...        one text, then the peak memory on stderr
    reference.py export MODEL FOLDER                              MODEL as optimum writes it for ONNX Runtime

With --onnx, MODEL is such a folder.
"""

import argparse
import json
import resource
import sys
import time

import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Reference:
    def __init__(self, args):
        transformers.logging.set_verbosity_error()
        if args.threads:
            torch.set_num_threads(args.threads)
        self.dtype = DTYPES[args.dtype]
        self.model = onnx(args) if args.onnx else self.torch(args)
        self.images = AutoImageProcessor.from_pretrained(args.model)
        self.tokenizer = AutoTokenizer.from_pretrained(args.model)

    def torch(self, args):
        model = VisionEncoderDecoderModel.from_pretrained(args.model, torch_dtype=self.dtype)
        return model.eval().to(args.device)

    def pixels(self, paths):
        images = [Image.open(path).convert("RGB") for path in paths]
        return self.images(images, return_tensors="pt").pixel_values.to(self.model.device, self.dtype)

    def generate(self, beams, tokens, **inputs):
        return self.model.generate(
            **inputs, num_beams=beams, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False
        )

    def texts(self, paths, beams, tokens):
        ids = self.generate(beams, tokens, pixel_values=self.pixels(paths))
        return ids, self.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def answer(self, request):
        beams, tokens = request["beams"], request["tokens"]
        start = time.perf_counter()
        ids, _ = self.texts(request["images"], beams, tokens)
        answer = {"whole_ms": ms(start), "ids": ids[:, 1:].tolist()}
        if request["parts"]:
            answer.update(self.parts(request))
        return answer

    def parts(self, request):
        beams, tokens = request["beams"], request["tokens"]
        pixels = self.pixels(request["images"])
        start = time.perf_counter()
        states = self.model.encoder(pixel_values=pixels).last_hidden_state
        states[:, :1].sum().item()  # waits for the device
        encoder = ms(start)

        def decode(tokens):
            start = time.perf_counter()
            self.generate(beams, tokens, encoder_outputs=BaseModelOutput(last_hidden_state=states)).tolist()
            return ms(start)

        few = max(tokens // 2, 1)
        less, more = decode(few), decode(tokens)
        return {"encoder_ms": encoder, "step_ms": (more - less) / max(tokens - few, 1)}


def onnx(args):
    import onnxruntime
    from optimum.onnxruntime import ORTModelForVision2Seq

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads or 0
    provider = "CPUExecutionProvider" if args.device == "cpu" else "CUDAExecutionProvider"
    return ORTModelForVision2Seq.from_pretrained(args.model, session_options=options, provider=provider)


def export(args):
    from optimum.exporters.onnx import main_export

    main_export(args.model, output=args.folder, task="image-to-text-with-past", do_validation=False)


def ms(start):
    return (time.perf_counter() - start) * 1e3


def serve(args):
    reference = Reference(args)
    version = f"transformers {transformers.__version__}, torch {torch.__version__}"
    if args.onnx:
        import onnxruntime

        version = f"onnxruntime {onnxruntime.__version__}, {version}"
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        try:
            answer = reference.answer(json.loads(line))
        except Exception as error:  # told by the benchmark, which goes on
            answer = {"whole_ms": 0, "ids": [], "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def once(args):
    _, texts = Reference(args).texts([args.image], args.beams, args.tokens)
    print(texts[0], flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak_kib {peak}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("serve", serve), ("once", once)):
        command = commands.add_parser(name)
        command.add_argument("model")
        if name == "once":
            command.add_argument("image")
            command.add_argument("--beams", type=int, default=1)
            command.add_argument("--tokens", type=int, default=16)
        command.add_argument("--threads", type=int)
        command.add_argument("--dtype", choices=DTYPES, default="f32")
        command.add_argument("--device", default="cpu")
        command.add_argument("--onnx", action="store_true")
        command.set_defaults(run=run)
    command = commands.add_parser("export")
    command.add_argument("model")
    command.add_argument("folder")
    command.set_defaults(run=export)
    args = parser.parse_args()
    with torch.no_grad() if args.command == "export" else torch.inference_mode():
        args.run(args)


if __name__ == "__main__":
    main()
