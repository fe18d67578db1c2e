"""Writes tests/fixtures/generation/: what the reference's generate() makes of a scripted model.

    python tests/golden/make_generation.py search      # with transformers 4.57.6: greedy, beams, rules, config
    python tests/golden/make_generation.py groups      # with transformers 4.46.3: group beams, contrastive

The model is a hash: its state is mixed from the image's number and the ids so far, its logits and
hidden states from the state. src/ved/generation/tests/mod.rs computes the same.
"""

import json
import os
import random
import sys
import tempfile
import warnings

import torch
import transformers
from transformers import (
    AutoConfig,
    GenerationConfig,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
)
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
OUT = os.path.join(os.path.dirname(__file__), "..", "fixtures", "generation")
MASK = 0xFFFFFFFF
WORDS = ["", "<s>", "</s>", "a", "b", "c", "d", "e", "f", "ab", "bc", "ca", "abc", "de", "x", "ef"]


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


def read(state, ids):
    for i in ids:
        state = mix((state * 31 + i + 1) & MASK)
    return state


def logits_of(state, boost, size):
    row = [((mix((state + (v + 1) * 0x9E3779B9) & MASK) >> 8) - (1 << 23)) / (1 << 21) for v in range(size)]
    for token, by in boost:
        row[token] += by
    return row


def hidden_of(state):
    return [((state >> 8 * i & 255) - 128) / 128 for i in range(4)]


class Config(PretrainedConfig):
    model_type = "scripted"

    def __init__(self, **kwargs):
        super().__init__(is_encoder_decoder=True, **kwargs)


class Scripted(PreTrainedModel, GenerationMixin):
    config_class = Config
    main_input_name = "pixel_values"
    _supports_cache_class = True
    _is_stateful = False

    def __init__(self, size, boost):
        super().__init__(Config(vocab_size=size))
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.boost = boost

    def get_encoder(self):
        return None

    def prepare_inputs_for_generation(self, input_ids, encoder_outputs=None, past_key_values=None, **kwargs):
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            input_ids = input_ids[:, -1:]
        return dict(decoder_input_ids=input_ids, encoder_outputs=encoder_outputs, past_key_values=past_key_values)

    def forward(
        self,
        decoder_input_ids=None,
        encoder_outputs=None,
        past_key_values=None,
        use_cache=None,
        output_hidden_states=None,
        output_attentions=None,
        return_dict=True,
        **kwargs,
    ):
        ids = decoder_input_ids
        if isinstance(past_key_values, EncoderDecoderCache):
            keys = ids[:, None, :, None].float()
            keys, _ = past_key_values.self_attention_cache.update(keys, keys, 0)
            if not past_key_values.is_updated.get(0):
                one = torch.ones(ids.shape[0], 1, 1, 1)
                past_key_values.cross_attention_cache.update(one, one, 0)
                past_key_values.is_updated[0] = True
            all_ids = keys[:, 0, :, 0].long()
        else:
            all_ids = ids
        new = ids.shape[1]
        logits, hidden = [], []
        for row, image in zip(all_ids.tolist(), encoder_outputs.last_hidden_state[:, 0, 0].tolist()):
            state = read(mix(int(image)), row[: len(row) - new])
            logits.append([]), hidden.append([])
            for i in row[len(row) - new :]:
                state = read(state, [i])
                logits[-1].append(logits_of(state, self.boost, self.config.vocab_size))
                hidden[-1].append(hidden_of(state))
        return Seq2SeqLMOutput(
            logits=torch.tensor(logits),
            decoder_hidden_states=(torch.tensor(hidden),),
            past_key_values=past_key_values,
        )


class Tokenizer:
    """As much of a tokenizer as StopStringCriteria asks for."""

    def get_vocab(self):
        return {word or "<pad>": i for i, word in enumerate(WORDS)}

    def __call__(self, text, add_special_tokens=False):
        return {"input_ids": [WORDS.index(c) for c in text]}

    def _convert_id_to_token(self, i):
        return WORDS[i]

    def convert_tokens_to_string(self, tokens):
        return "".join("" if t == "<pad>" else t for t in tokens)


def generate(case, images, prompt):
    model = Scripted(case["size"], case["boost"]).eval()
    settings = dict(case["config"])
    extra = {"tokenizer": Tokenizer()} if "stop_strings" in settings else {}
    contrastive = settings.get("penalty_alpha")
    model.generation_config = GenerationConfig()
    states = torch.tensor(images, dtype=torch.float)[:, None, None]
    with torch.no_grad():
        out = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            decoder_input_ids=torch.tensor(prompt),
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
            use_cache=bool(contrastive),
            **settings,
            **extra,
        )
    eos = settings.get("eos_token_id", [])
    eos = [eos] if isinstance(eos, int) else eos
    beams = settings.get("num_beams", 1) > 1
    start = len(prompt[0])
    groups = settings.get("num_beam_groups", 1) > 1
    if groups:
        steps = None  # The reference mixes up the beam indices of the groups.
    elif beams:
        steps = model.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    else:
        steps = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    rows = []
    for row, ids in enumerate(out.sequences.tolist()):
        ids = ids[start:]
        if beams and not groups:
            ids = ids[: int((out.beam_indices[row] >= 0).sum())]
        else:
            end = next((n for n, i in enumerate(ids) if i in eos), len(ids) - 1)
            # A row without eos that is done was stopped otherwise: only in batches of one is it as long
            # as the output.
            ids = ids[: end + 1]
        logprobs = [round(x, 5) for x in steps[row].tolist()[: len(ids)]] if steps is not None else None
        score = round(out.sequences_scores[row].item(), 6) if beams else None
        if beams and score < -1e8:
            ids = logprobs = None  # Nothing possible was left; which of equals comes is left to topk.
        rows.append({"ids": ids, "score": score, "logprobs": logprobs})
    return rows


def random_case(r, groups):
    size = r.choice([9, 12, 16, 16, 24, 40])
    eos = r.choice([2, 2, 2, [2, 5], [2]])
    many = eos if isinstance(eos, list) else [eos]
    config = {"eos_token_id": eos, "pad_token_id": r.choice([0, 1, 2]), "decoder_start_token_id": 1}
    p = r.choice([1, 1, 1, 2, 4])
    mode = r.choice(["group", "group", "contrastive"]) if groups else r.choice(["greedy", "beam", "beam"])
    if mode == "beam":
        config["num_beams"] = r.choice([2, 3, 3, 4, 5])
        if size < 12:
            config["num_beams"] = 2
    if mode == "group":
        config["num_beam_groups"] = r.choice([2, 3])
        config["num_beams"] = config["num_beam_groups"] * r.choice([1, 2])
        config["diversity_penalty"] = r.choice([0.3, 1.0, 2.5])
    if mode == "contrastive":
        config["penalty_alpha"] = r.choice([0.2, 0.6, 0.9])
        config["top_k"] = r.choice([2, 4, 5])
    if mode in ("beam", "group"):
        config["num_return_sequences"] = r.randint(1, config["num_beams"])
        config["length_penalty"] = r.choice([1.0, 1.0, 0.0, 2.0, -1.0, 0.6])
        config["early_stopping"] = r.choice([True, False, False, "never"])
    some = lambda n: [r.randrange(3, size) for _ in range(n)]
    options = {
        "repetition_penalty": lambda: r.choice([0.7, 1.3, 2.0]),
        "no_repeat_ngram_size": lambda: r.choice([1, 2, 2, 3]) if size > 12 else r.choice([2, 3]),
        "bad_words_ids": lambda: [some(r.choice([1, 2, 2, 3])) for _ in range(4)] + [[2]],
        "min_length": lambda: r.choice([3, 5]),
        "min_new_tokens": lambda: r.choice([2, 4]),
        "forced_bos_token_id": lambda: 4,
        "forced_eos_token_id": lambda: r.choice([2, [2, 6]]) if mode == "greedy" else 2,
        "remove_invalid_values": lambda: True,
        "exponential_decay_length_penalty": lambda: [r.choice([1, 3]), r.choice([1.2, 1.5])],
        "suppress_tokens": lambda: some(2) + [size + 3],
        "begin_suppress_tokens": lambda: some(3) + [2],
        "sequence_bias": lambda: [[some(r.choice([1, 2, 2])), r.choice([1.5, -2.0, 4.0])] for _ in range(3)],
        "renormalize_logits": lambda: True,
        "stop_strings": lambda: r.sample(["ab", "cab", "bca", "de", "xx", "f"], 2),
    }
    for key in r.sample(sorted(options), r.choice([0, 0, 1, 1, 2, 3])):
        if key == "stop_strings" and (size != 16 or groups):
            continue
        if key == "exponential_decay_length_penalty" and ({"min_length", "min_new_tokens"} & set(config)):
            continue
        if key.startswith("min_") and "exponential_decay_length_penalty" in config:
            continue
        if key.startswith("forced") and mode == "contrastive":
            continue  # The reference may choose a forbidden token.
        config[key] = options[key]()
    if r.random() < 0.3:
        config["max_new_tokens"] = r.choice([1, 3, 6, 10])
    else:
        config["max_length"] = p + r.choice([1, 4, 7, 9, 12])
    images = [r.randrange(1, 1 << 16) for _ in range(r.choice([1, 2, 3]))]
    prompt = [[1] + [r.randrange(3, size) for _ in range(p - 1)] for _ in images]
    boost = [[token, r.choice([0.5, 1.0, 2.0, 3.0])] for token in many]
    if r.random() < 0.1:
        del config["eos_token_id"]
        for key in ("exponential_decay_length_penalty",):
            config.pop(key, None)
        if groups:
            config["eos_token_id"] = eos
    return {"size": size, "boost": boost, "images": images, "prompt": prompt, "config": config}


def cases(name, count, groups):
    r = random.Random(20260101 + groups)
    lines = []
    while len(lines) < count:
        case = random_case(r, groups)
        try:
            expected = [generate(case, [i], [p]) for i, p in zip(case["images"], case["prompt"])]
            case["expected"] = expected
            line = json.dumps(case, separators=(",", ":"), allow_nan=False)
        except (ValueError, RuntimeError) as error:
            print("skipped:", str(error)[:100], case["config"])
            continue
        lines.append(line)
    write(name, lines)


def resolved(decoder, top, nested, file, flags, prompt):
    """What generate() works with: the settings, and what it makes of them for a prompt."""
    config = {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit"}, **top}
    config["decoder"] = {"model_type": decoder, **nested}
    model = type("Model", (GenerationMixin,), {})()
    model.config = VisionEncoderDecoderConfig.from_dict(json.loads(json.dumps(config)))
    model.generation_config = GenerationConfig.from_model_config(model.config)
    if file is not None:
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "generation_config.json"), "w") as out:
                json.dump(file, out)
            model.generation_config = GenerationConfig.from_pretrained(directory)
    settings, rest = model._prepare_generation_config(None, **flags)
    written = json.loads(model.generation_config.to_json_string())
    assert not rest
    model._prepare_special_tokens(settings, True, device="cpu")
    mode = settings.get_generation_mode().value
    model._prepare_generated_length(
        settings,
        flags.get("max_length") is None and settings.max_length is not None,
        flags.get("min_length") is None and settings.min_length is not None,
        "pixel_values",
        prompt,
        None,
    )
    number = lambda tensor: None if tensor is None else tensor.item()
    result = {
        "mode": mode,
        "total_length": settings.max_length,
        "total_min_length": settings.min_length,
        "pad": number(settings._pad_token_tensor),
        "start": number(settings._decoder_start_token_tensor),
        "eos": [] if settings._eos_token_tensor is None else settings._eos_token_tensor.tolist(),
    }
    for key in ("forced_eos_token_id", "no_repeat_ngram_size", "num_beams", "length_penalty", "use_cache", "early_stopping"):
        result[key] = getattr(settings, key)
    return config, result, written


def resolutions():
    ids = {"decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0}
    derived = {**ids, "_from_model_config": True}
    table = [
        # decoder, top level, nested, generation_config.json, flags
        ("bert", {"max_length": 20, **ids}, {"max_length": 12}, None, {}),
        ("bert", ids, {"max_length": 12}, None, {}),
        ("bert", ids, {"num_beams": 4}, None, {}),
        ("bert", {"num_beams": 1, **ids}, {"num_beams": 4}, None, {}),
        ("bert", {"num_beams": 3, "max_length": 9, **ids}, {"max_length": 12}, None, {}),
        ("bert", {"max_length": 20, **ids}, {"max_length": 12}, ids, {}),
        ("bert", {"max_length": 8, **ids}, {"max_length": 12}, {**ids, "max_length": 30}, {}),
        ("bert", ids, {"max_length": 12}, derived, {}),
        ("bert", {"num_beams": 3, "max_length": 9, **ids}, {}, derived, {}),
        ("bert", {"num_beams": 3, "max_length": 9, **ids}, {}, ids, {}),
        ("bert", {"num_beams": 3, "max_length": 9, **ids}, {"no_repeat_ngram_size": 3}, derived, {"num_beams": 2}),
        ("bert", ids, {}, {**ids, "max_length": 20}, {}),
        ("bert", ids, {}, ids, {"max_length": 20}),
        ("bert", ids, {}, {**ids, "max_new_tokens": 7}, {}),
        ("bert", ids, {}, {**ids, "max_new_tokens": 7}, {"max_length": 12}),
        ("bert", ids, {}, {**ids, "max_length": 9}, {"max_new_tokens": 4}),
        ("bert", ids, {}, {**ids, "min_length": 9}, {"min_new_tokens": 4}),
        ("bert", ids, {}, {**ids, "min_new_tokens": 3}, {"min_length": 8}),
        ("bert", {"decoder_start_token_id": 101}, {}, None, {}),
        ("bert", {"eos_token_id": 102, "bos_token_id": 101}, {}, None, {}),
        ("gpt2", {}, {}, None, {}),
        ("gpt2", {}, {"eos_token_id": [50256, 198]}, None, {}),
        ("gpt2", {"eos_token_id": 5, "pad_token_id": 6}, {"pad_token_id": 7}, None, {}),
        ("gpt2", {"decoder_start_token_id": 50256, "eos_token_id": 50256}, {"bos_token_id": 1, "eos_token_id": None}, None, {}),
        ("gpt2", {}, {"use_cache": False}, None, {}),
        ("gpt2", {}, {"task_specific_params": {"text-generation": {"max_length": 50}}}, None, {}),
        ("gpt2", {"max_length": 16, "num_beams": 4}, {}, {"eos_token_id": 50256, "bos_token_id": 50256}, {}),
        ("bart", {}, {}, None, {}),
        ("bart", {}, {"forced_eos_token_id": None}, None, {}),
        ("bart", {"forced_eos_token_id": 5}, {}, None, {}),
        ("bart", {}, {}, {"eos_token_id": 2, "decoder_start_token_id": 2}, {}),
        ("mbart", {"decoder_start_token_id": 57525, "pad_token_id": 1}, {"max_length": 768}, None, {}),
        ("mbart", {"pad_token_id": 1}, {"max_length": 768}, {"bos_token_id": 0, "eos_token_id": 2, "forced_eos_token_id": 2, "pad_token_id": 1, "max_length": 768}, {}),
        ("trocr", {"decoder_start_token_id": 2, "early_stopping": True, "length_penalty": 2.0, "max_length": 64, "no_repeat_ngram_size": 3, "num_beams": 4}, {}, None, {}),
        ("trocr", {"early_stopping": True, "length_penalty": 2.0, "max_length": 64, "no_repeat_ngram_size": 3, "num_beams": 4}, {}, derived, {"num_beams": 1, "early_stopping": False}),
        ("trocr", {}, {"use_cache": False}, {"decoder_start_token_id": 2, "eos_token_id": 2, "use_cache": False, "pad_token_id": 1}, {}),
        ("roberta", {}, {"eos_token_id": [2, 3]}, None, {"eos_token_id": [7]}),
        ("roberta", {}, {"do_sample": True, "temperature": 0.7, "top_k": 5}, None, {}),
        ("roberta", {}, {}, {"penalty_alpha": 0.6, "eos_token_id": 2, "bos_token_id": 0}, {"top_k": 4}),
        ("roberta", {}, {}, {"penalty_alpha": 0.6, "eos_token_id": 2, "bos_token_id": 0}, {"num_beams": 4, "num_beam_groups": 2}),
        ("marian", {}, {}, None, {}),
        ("opt", {}, {}, None, {}),
        ("blenderbot", {}, {}, None, {}),
        ("blenderbot", {}, {}, derived, {}),
        ("bert", ids, {}, {**ids, "my_own_key": {"a": [1]}, "length_penalty": 1, "early_stopping": "never", "num_beams": 2, "suppress_tokens": [3, 4], "forced_eos_token_id": [2], "top_k": 50, "cache_implementation": "static", "bad_words_ids": [[5]]}, {}),
    ]
    lines = []
    for decoder, top, nested, file, flags in table:
        config, result, written = resolved(decoder, top, nested, file, flags, 1)
        _, longer, _ = resolved(decoder, top, nested, file, flags, 3)
        for key in ("total_length", "total_min_length"):
            result[key] = [result[key], longer[key]]  # for a prompt of 1 and of 3 tokens
        known = GenerationConfig().to_dict()
        defaults = type(AutoConfig.for_model(decoder))().to_dict()
        defaults = {k: v for k, v in defaults.items() if k in known and v != known[k] and k != "transformers_version"}
        line = {"config": config, "defaults": defaults, "file": file, "flags": flags}
        lines.append(json.dumps({**line, "expected": result, "written": written}, separators=(",", ":")))
    write("resolve.jsonl", lines)


def rules():
    """Scores after all rules of a config, at some lengths."""
    size, rows = 20, 3
    table = [
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.4},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"no_repeat_ngram_size": 9},
        {"bad_words_ids": [[4], [2], [5, 6], [6, 5, 6], [5, 6, 5, 6, 5, 6, 5, 6]]},
        {"sequence_bias": [[[4], 1.5], [[5, 6], -3.0], [[6, 5, 6], 2.0], [[5, 6], 1.0], [[7, 6], 9.0]]},
        {"min_length": 6},
        {"min_new_tokens": 3},
        {"forced_bos_token_id": 9},
        {"forced_eos_token_id": [2, 3]},
        {"exponential_decay_length_penalty": [1, 1.4]},
        {"exponential_decay_length_penalty": [9, 1.4]},
        {"suppress_tokens": [3, 4, 99]},
        {"begin_suppress_tokens": [2, 7]},
        {"begin_suppress_tokens": [2, 7], "forced_bos_token_id": 9},
        {"renormalize_logits": True},
        {"suppress_tokens": [3, 4], "remove_invalid_values": True},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "min_length": 4, "renormalize_logits": True},
        {"do_sample": True, "top_k": 0, "temperature": 0.6},
        {"do_sample": True, "top_k": 0, "temperature": 1.9},
        {"do_sample": True, "top_k": 3},
        {"do_sample": True, "top_k": 1},
        {"do_sample": True, "top_k": 500},
        {"do_sample": True, "top_k": 0, "top_p": 0.8},
        {"do_sample": True, "top_k": 0, "top_p": 0.0},
        {"do_sample": True, "top_k": 0, "min_p": 0.2},
        {"do_sample": True, "top_k": 0, "min_p": 1.0},
        {"do_sample": True, "top_k": 0, "typical_p": 0.3},
        {"do_sample": True, "top_k": 0, "typical_p": 0.9},
        {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.03},
        {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.9},
        {"do_sample": True, "top_k": 0, "eta_cutoff": 0.1},
        {"do_sample": True, "top_k": 0, "eta_cutoff": 0.002},
        {"do_sample": True, "top_k": 8, "top_p": 0.9, "typical_p": 0.95, "temperature": 1.5, "renormalize_logits": True},
        {"do_sample": True, "top_k": 8, "eta_cutoff": 0.2, "suppress_tokens": [3, 4, 5]},
        {"do_sample": True, "num_beams": 3, "top_k": 1},
        {"do_sample": True, "num_beams": 3, "top_k": 0, "top_p": 0.1, "eos_token_id": [2, 3]},
        {"do_sample": True, "num_beams": 3, "top_k": 0, "min_p": 0.9},
        {"do_sample": True, "num_beams": 3, "top_k": 0, "typical_p": 0.1},
        {"do_sample": True, "num_beams": 3, "top_k": 0, "epsilon_cutoff": 0.9},
        {"do_sample": True, "num_beams": 3, "top_k": 0, "eta_cutoff": 0.9},
        {"do_sample": True, "num_beams": 3, "top_k": 4, "temperature": 0.5, "renormalize_logits": True},
    ]
    lines = []
    for number, settings in enumerate(table):
        lengths = [3] if settings.get("do_sample") else [1, 3, 7]
        for length in lengths:
            prompt = min(length, 2)
            config = GenerationConfig(**{"eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 1, **settings})
            model = Scripted(size, [])
            model._prepare_special_tokens(config, True, device="cpu")
            config.max_length = 8
            if config.min_new_tokens is not None:
                config.min_length = config.min_new_tokens + prompt
            processors = model._get_logits_processor(config, prompt, torch.zeros(1, 3, 8, 8), device="cpu")
            ids = [[1, 5, 6, 5, 6, 5, 6][:length], [1, 5, 6, 7, 2, 5, 6][:length], [1] + [9] * (length - 1)]
            states = [mix(100 * number + row) for row in range(rows)]
            scores = torch.tensor([logits_of(state, [], size) for state in states])
            scores = processors(torch.tensor(ids), scores)
            keep = lambda x: None if x == -float("inf") else float(f"{x:.6g}")
            expected = [[keep(x) for x in row] for row in scores.tolist()]
            settings = {"eos_token_id": 2, **settings}
            line = {"config": settings, "prompt": prompt, "ids": ids, "states": states, "expected": expected}
            lines.append(json.dumps(line, separators=(",", ":")))
    write("rules.jsonl", lines)


def write(name, lines):
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, name), "w") as file:
        file.write("\n".join(lines) + "\n")
    print(name, len(lines), os.path.getsize(os.path.join(OUT, name)))


if __name__ == "__main__":
    assert transformers.__version__ == {"search": "4.57.6", "groups": "4.46.3"}[sys.argv[1]]
    if sys.argv[1] == "search":
        cases("search.jsonl", 400, False)
        resolutions()
        rules()
    else:
        cases("groups.jsonl", 150, True)
