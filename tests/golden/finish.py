"""Last changes to a written folder: files as older or other tools left them. Each takes the folder."""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from checkpoint import edit_json


def full_config(folder: Path) -> None:
    """config.json in the style of transformers 4.2x: both halves with every field, generation defaults among them."""
    config = AutoConfig.from_pretrained(folder)
    halves = {"encoder": config.encoder.to_dict(), "decoder": config.decoder.to_dict()}
    for half in halves.values():
        half["torch_dtype"] = half.pop("dtype", None)
        half["transformers_version"] = "4.26.1"

    def change(value):
        value.update(halves)
        value["torch_dtype"] = value.pop("dtype")
        value["transformers_version"] = None

    edit_json(folder / "config.json", change)


def vocab_and_merges(folder: Path) -> None:
    """vocab.json and merges.txt in place of tokenizer.json."""
    AutoTokenizer.from_pretrained(folder).save_vocabulary(str(folder))
    (folder / "tokenizer.json").unlink()


def vocab_txt(folder: Path) -> None:
    """vocab.txt in place of tokenizer.json."""
    vocab_and_merges(folder)


def old_vit_processor(folder: Path) -> None:
    """preprocessor_config.json as ViTFeatureExtractor wrote it: one number for the size, no rescaling keys."""

    def change(value):
        height = value["size"]["height"]
        value.clear()
        value.update(
            do_normalize=True, do_resize=True, feature_extractor_type="ViTFeatureExtractor",
            image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5], resample=2, size=height,
        )

    edit_json(folder / "preprocessor_config.json", change)


def old_deit_processor(folder: Path) -> None:
    """preprocessor_config.json as DeiTFeatureExtractor wrote it, with resample left out too."""

    def change(value):
        crop, height = value["crop_size"]["height"], value["size"]["height"]
        value.clear()
        value.update(
            crop_size=crop, do_center_crop=True, do_normalize=True, do_resize=True,
            feature_extractor_type="DeiTFeatureExtractor",
            image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], size=height,
        )

    edit_json(folder / "preprocessor_config.json", change)


def from_model_config(folder: Path) -> None:
    """generation_config.json with nothing but ids, marked as derived from config.json, as older versions wrote it."""

    def change(value):
        for key in [key for key in value if not key.endswith("_token_id")]:
            del value[key]
        value.update(_from_model_config=True, transformers_version="4.27.4")

    edit_json(folder / "generation_config.json", change)
