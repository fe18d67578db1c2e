"""What a golden case is: the rows of `cases_*.py` are `Case` objects."""

from dataclasses import dataclass, field
from typing import Any, Callable

Flags = dict[str, Any]


@dataclass
class Generation:
    """One call of `generate`: `flags` carry generation-config names, `prompt` is decoder text after the start token.

    `legacy` runs it with the older transformers named in `legacy.py` (group beam search, contrastive search).
    `effect` demands that the ids differ from the plain run with the same beams and lengths.
    """

    flags: Flags
    prompt: str | None = None
    legacy: bool = False
    effect: bool = False


@dataclass
class Context:
    """What a list of generations may be made from: the greedy rows (no limit set by other flags) and the tokenizer."""

    greedy: list[list[int]]
    tokenizer: Any

    def token(self, text: str) -> int:
        """The id of a piece of the vocabulary."""
        found = self.tokenizer.convert_tokens_to_ids(text)
        assert found is not None and found != self.tokenizer.unk_token_id, text
        return found


@dataclass
class Case:
    """One folder `tests/golden/<name>/`.

    `encoder`, `decoder`: config values, `model_type` among them. `tokenizer`: a kind of `tokenizer.py`.
    `processor`: preprocessor_config values, `image_processor_type` among them. `pictures`: names of `picture.py`.
    `start`: which special token starts the decoder. `parent`: more top-level config values.
    `generation_config`: more values of generation_config.json, or None for no such file.
    `generations`, `processed`: lists, or functions of a `Context`. `finish`: last changes to the written files,
    called with the folder. `demand`: what the ids of all generations must fulfil for a seed to be taken. `seed`: first
    seed tried. `dtype`: stored number type. `shard`: max_shard_size. `gains`: changes to `checkpoint.GAINS`.
    """

    name: str
    encoder: dict[str, Any]
    decoder: dict[str, Any]
    tokenizer: str = "bert"
    processor: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ("blobs_37x23", "stripes_20x31")
    start: str = "bos"
    parent: dict[str, Any] = field(default_factory=dict)
    generation_config: dict[str, Any] | None = field(default_factory=dict)
    generations: list[Generation] | Callable[[Context], list[Generation]] = field(default_factory=list)
    processed: list[Flags] | Callable[[Context], list[Flags]] = field(default_factory=list)
    finish: Callable[[Any], None] | None = None
    demand: Callable[[list], bool] | None = None
    seed: int = 1
    dtype: str = "float32"
    shard: str = "5GB"
    max_new_tokens: int = 10
    gains: dict[str, float] = field(default_factory=dict)
    limit_kb: int = 200
