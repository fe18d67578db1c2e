"""ViT and DeiT with GPT-2, BERT, RoBERTa and TrOCR: the first pairs, and the options of generation spread over them."""

import finish
from case import Case, Context, Generation

VIT = {
    "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 24, "patch_size": 8,
}
DEIT = VIT | {"model_type": "deit"}
VIT_PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 24}}
DEIT_PROCESSOR = {
    "image_processor_type": "DeiTImageProcessor", "size": {"height": 30, "width": 30},
    "crop_size": {"height": 24, "width": 24},
}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40,
}
ROBERTA = BERT | {"model_type": "roberta", "max_position_embeddings": 42, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
TROCR = {
    "model_type": "trocr", "d_model": 16, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32,
    "max_position_embeddings": 40,
}

THREE = ("blobs_37x23", "stripes_20x31_P", "glyphs_50x18_L")
TWO = ("noise_24x24", "glyphs_33x40")


def G(prompt=None, legacy=False, effect=False, **flags) -> Generation:
    """A generation whose flags are the other keywords."""
    return Generation(flags, prompt, legacy, effect)


def repetition(c: Context) -> list[Generation]:
    """Penalties and bans that look at what was generated before."""
    first, second = c.greedy[0], c.greedy[1]
    words = [[first[1]], [second[0], second[1]], [first[0], first[1], first[2]]]
    return [
        G(),
        G(no_repeat_ngram_size=1, effect=True),
        G(no_repeat_ngram_size=2, effect=True),
        G(no_repeat_ngram_size=3, max_new_tokens=16),
        G(num_beams=3, no_repeat_ngram_size=2),
        G(repetition_penalty=1.4, effect=True),
        G(repetition_penalty=0.7, max_new_tokens=9, effect=True),
        G(num_beams=3, repetition_penalty=1.5, effect=True),
        G(bad_words_ids=words, effect=True),
        G(num_beams=4, bad_words_ids=words, no_repeat_ngram_size=3, effect=True),
        G(bad_words_ids=words, remove_invalid_values=True),
        G(num_beams=2, remove_invalid_values=True, no_repeat_ngram_size=1),
    ]


def lengths(c: Context) -> list[Generation]:
    """Limits of length and tokens forced or barred at certain steps."""
    eos = c.tokenizer.eos_token_id
    shortest = min(map(len, c.greedy))
    starts = sorted({row[0] for row in c.greedy})
    return [
        G(),
        G(num_beams=4),
        G(num_beams=4, early_stopping=True, length_penalty=2.0),
        G(min_length=shortest + 2, effect=True),
        G(min_new_tokens=shortest + 1, max_new_tokens=shortest + 3, effect=True),
        G(num_beams=3, min_length=7, length_penalty=0.0, effect=True),
        G(max_length=6),
        G(max_length=6, max_new_tokens=8),
        G(num_beams=2, max_length=5, early_stopping=True),
        G(forced_bos_token_id=40, effect=True),
        G(num_beams=3, forced_bos_token_id=40, max_new_tokens=8, effect=True),
        G(forced_eos_token_id=eos, effect=True),
        G(forced_eos_token_id=[50, eos], max_new_tokens=5),
        G(num_beams=3, forced_eos_token_id=eos, length_penalty=2.0),
        G(suppress_tokens=sorted({c.greedy[0][0], c.greedy[1][1], eos}), effect=True),
        G(begin_suppress_tokens=starts, effect=True),
        G(num_beams=3, begin_suppress_tokens=starts, effect=True),
        G(forced_bos_token_id=40, begin_suppress_tokens=[40, 41, 42]),
    ]


def shaping(c: Context) -> list[Generation]:
    """Biases, decays, several ends, stop strings, prompts."""
    eos = c.tokenizer.eos_token_id
    first, second = c.greedy[0], c.greedy[1]
    bias = [[[first[0]], -3.5], [[second[0], 77], 6.0], [[60], 1.5]]
    return [
        G(),
        G(num_beams=3),
        G(num_beams=3, num_return_sequences=2, early_stopping=True),
        G(exponential_decay_length_penalty=[2, 1.6], effect=True),
        G(num_beams=3, exponential_decay_length_penalty=[1, 0.6], max_new_tokens=14),
        G(sequence_bias=bias, effect=True),
        G(num_beams=4, sequence_bias=bias, effect=True),
        G(num_beams=3, sequence_bias=bias, renormalize_logits=True, effect=True),
        G(renormalize_logits=True, repetition_penalty=1.3),
        G(eos_token_id=[eos, first[2], 90], effect=True),
        G(num_beams=3, eos_token_id=[eos, first[2], second[1]], effect=True),
        G(stop_strings=[c.tokenizer.decode(first[1:3]).strip(), "zz"], effect=True),
        G(prompt="a black"),
        G(prompt="a black", num_beams=3, length_penalty=2.0),
        G(prompt="two", max_length=9),
        G(prompt="Total", begin_suppress_tokens=list(range(20, 90)), max_new_tokens=6),
        G(prompt="the", min_length=8, no_repeat_ngram_size=2),
        G(prompt="the", exponential_decay_length_penalty=[2, 1.5], max_new_tokens=9),
    ]


def groups(_: Context) -> list[Generation]:
    """Group beam search and contrastive search."""
    return [
        G(),
        G(num_beams=4, num_beam_groups=2, diversity_penalty=1.0, legacy=True, effect=True),
        G(num_beams=4, num_beam_groups=4, diversity_penalty=0.5, num_return_sequences=4, legacy=True),
        G(num_beams=6, num_beam_groups=3, diversity_penalty=2.0, num_return_sequences=3, length_penalty=0.0, legacy=True),
        G(num_beams=4, num_beam_groups=2, diversity_penalty=0.8, early_stopping=True, no_repeat_ngram_size=2, legacy=True),
        G(num_beams=4, num_beam_groups=2, diversity_penalty=0.8, early_stopping="never", repetition_penalty=1.2, legacy=True),
        G(penalty_alpha=0.6, top_k=4, legacy=True, effect=True),
        G(penalty_alpha=0.3, top_k=6, max_new_tokens=14, legacy=True, effect=True),
        G(penalty_alpha=0.8, top_k=3, repetition_penalty=1.3, min_new_tokens=5, legacy=True),
    ]


SAMPLING = [
    {"top_k": 0},
    {"temperature": 0.7},
    {"temperature": 1.6, "top_k": 5},
    {"top_k": 3},
    {"top_k": 0, "top_p": 0.6},
    {"top_p": 0.9, "temperature": 1.3},
    {"top_k": 0, "min_p": 0.2},
    {"top_k": 0, "typical_p": 0.5},
    {"top_k": 20, "typical_p": 0.9},
    {"top_k": 0, "epsilon_cutoff": 0.03},
    {"top_k": 0, "eta_cutoff": 0.05},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.95, "epsilon_cutoff": 0.01},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "top_k": 8, "min_new_tokens": 3},
    {"top_k": 10, "top_p": 0.7, "renormalize_logits": True},
    {"num_beams": 2, "top_k": 0, "top_p": 0.05},
    {"num_beams": 3, "top_k": 1, "temperature": 0.5, "repetition_penalty": 1.2},
]

BEAMS = [
    G(),
    G(num_beams=3, length_penalty=0.5),
    G(num_beams=4, num_return_sequences=2, early_stopping="never", length_penalty=-1.0),
]

CASES = [
    Case(
        "vit-gpt2",
        encoder=VIT,
        decoder=GPT2 | {"n_ctx": 40, "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}},
        tokenizer="gpt2",
        processor=VIT_PROCESSOR,
        pictures=THREE,
        generation_config={"max_length": 12},
        finish=finish.full_config,
        generations=[
            G(),
            G(max_new_tokens=6),
            G(num_beams=4),
            G(num_beams=4, length_penalty=0.0, max_new_tokens=12),
            G(num_beams=4, length_penalty=2.0, early_stopping=True),
            G(num_beams=2, early_stopping="never", length_penalty=0.5),
            G(num_beams=3, num_return_sequences=3, length_penalty=-1.0),
            G(num_beams=4, early_stopping=True, max_new_tokens=18),
            G(num_beams=4, early_stopping=False, max_new_tokens=18),
            G(num_beams=4, early_stopping="never", max_new_tokens=18),
        ],
        seed=186,
        demand=lambda ids: ids[-3] != ids[-2] != ids[-1] and ids[2] != ids[4],
    ),
    Case(
        "vit-bert",
        encoder=VIT,
        decoder=BERT,
        tokenizer="bert",
        processor=VIT_PROCESSOR,
        pictures=THREE,
        parent={
            "num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "early_stopping": True, "max_length": 14,
        },
        generation_config=None,
        generations=[
            G(),
            G(num_beams=1),
            G(num_beams=1, no_repeat_ngram_size=0),
            G(num_beams=2, early_stopping=False),
            G(num_return_sequences=4),
            G(num_beams=4, early_stopping="never", max_new_tokens=8),
        ],
    ),
    Case(
        "deit-roberta",
        encoder=DEIT,
        decoder=ROBERTA,
        tokenizer="roberta",
        processor=DEIT_PROCESSOR,
        pictures=THREE,
        generation_config={"max_length": 12},
        generations=shaping,
    ),
    Case(
        "deit-trocr",
        encoder=DEIT,
        decoder=TROCR | {
            "d_model": 24, "decoder_attention_heads": 3, "cross_attention_hidden_size": 16, "scale_embedding": True,
            "activation_function": "relu", "tie_word_embeddings": False, "layernorm_embedding": True,
            "use_learned_position_embeddings": True,
        },
        tokenizer="roberta",
        processor=DEIT_PROCESSOR | {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        pictures=THREE,
        start="eos",
        generation_config={"max_length": 12},
        gains={"embedding": 0.2},
        generations=lengths,
    ),
    Case(
        "vit-gpt2-odd",
        encoder=VIT | {
            "qkv_bias": False, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-3, "num_attention_heads": 4,
            "intermediate_size": 24, "num_hidden_layers": 3,
        },
        decoder=GPT2 | {
            "n_embd": 20, "n_inner": 36, "activation_function": "relu", "scale_attn_by_inverse_layer_idx": True,
            "tie_word_embeddings": False, "n_layer": 3, "layer_norm_epsilon": 1e-3, "reorder_and_upcast_attn": True,
        },
        tokenizer="gpt2",
        processor=VIT_PROCESSOR | {"resample": 3, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.25, 0.2]},
        generation_config={"max_length": 12},
        generations=repetition,
    ),
    Case(
        "vit-gpt2-noscale",
        encoder=VIT | {"hidden_act": "gelu_new"},
        decoder=GPT2 | {"scale_attn_weights": False, "activation_function": "silu", "n_embd": 24, "n_head": 3},
        tokenizer="gpt2:120",
        processor=VIT_PROCESSOR | {"do_rescale": True, "rescale_factor": 0.01, "resample": 1},
        gains={"sharp": 1.0, "attention": 1.0},
        generation_config={"max_length": 12},
        generations=BEAMS,
    ),
    Case(
        "vit-trocr-sinusoidal",
        encoder=VIT,
        decoder=TROCR | {
            "d_model": 20, "use_learned_position_embeddings": False, "layernorm_embedding": False, "scale_embedding": True,
        },
        tokenizer="roberta",
        processor=VIT_PROCESSOR | {"do_normalize": False},
        pictures=THREE,
        start="eos",
        generation_config={"max_length": 12},
        generations=[*BEAMS, G(prompt="a black cat"), G(prompt="the man", num_beams=2)],
    ),
    Case(
        "deit-roberta-pad-start",
        encoder=DEIT,
        decoder=ROBERTA | {"max_position_embeddings": 30, "hidden_size": 24, "hidden_act": "relu", "num_attention_heads": 3},
        tokenizer="roberta",
        processor=DEIT_PROCESSOR | {"do_center_crop": False, "size": {"height": 24, "width": 24}},
        start="pad",
        generation_config={"max_length": 12},
        generations=[
            *BEAMS, G(use_cache=False, effect=True), G(num_beams=3, use_cache=False, effect=True), G(prompt="a black"),
            G(prompt="a black", num_beams=2),
        ],
    ),
    Case(
        "vit-bert-relative-key",
        encoder=VIT | {"num_channels": 3, "image_size": [24, 24]},
        decoder=BERT | {"position_embedding_type": "relative_key", "max_position_embeddings": 24},
        tokenizer="bert",
        processor=VIT_PROCESSOR,
        generation_config={"max_length": 12},
        generations=BEAMS,
    ),
    Case(
        "vit-bert-relative-key-query",
        encoder=VIT,
        decoder=BERT | {
            "position_embedding_type": "relative_key_query", "max_position_embeddings": 24, "hidden_act": "gelu_new",
            "tie_word_embeddings": False,
        },
        tokenizer="bert",
        processor=VIT_PROCESSOR,
        generation_config={"max_length": 12},
        generations=BEAMS,
    ),
    Case(
        "vit-trocr-usecache-false",
        encoder=VIT,
        decoder=TROCR | {"max_position_embeddings": 30},
        tokenizer="roberta",
        processor=VIT_PROCESSOR,
        start="eos",
        generation_config={"max_length": 12, "use_cache": False},
        generations=BEAMS,
    ),
    Case(
        "deit-roberta-usecache-false",
        encoder=DEIT,
        decoder=ROBERTA,
        tokenizer="roberta",
        processor=DEIT_PROCESSOR,
        start="pad",
        generation_config={"max_length": 12, "use_cache": False},
        generations=BEAMS,
    ),
    Case(
        "vit-bert-rebuilt",
        encoder=VIT,
        decoder=BERT,
        tokenizer="bert",
        processor=VIT_PROCESSOR,
        parent={"num_beams": 3, "max_length": 9, "length_penalty": 0.5},
        generation_config={},
        finish=finish.from_model_config,
        generations=[G(), G(num_beams=2)],
    ),
    Case(
        "vit-gpt2-groups",
        encoder=VIT,
        decoder=GPT2,
        tokenizer="gpt2:120",
        processor=VIT_PROCESSOR,
        generation_config={"max_length": 12},
        generations=groups,
    ),
    Case(
        "vit-gpt2-sampling",
        encoder=VIT,
        decoder=GPT2,
        tokenizer="gpt2:100",
        processor=VIT_PROCESSOR,
        max_new_tokens=8,
        generation_config={"max_length": 9},
        generations=[G()],
        processed=SAMPLING,
    ),
    Case(
        "deit-bert-sharded",
        encoder=DEIT,
        decoder=BERT,
        tokenizer="bert",
        processor=DEIT_PROCESSOR,
        generation_config={"max_length": 12},
        shard="35KB",
        generations=BEAMS,
    ),
    Case(
        "vit-roberta-fp16",
        encoder=VIT,
        decoder=ROBERTA,
        tokenizer="roberta",
        processor=VIT_PROCESSOR,
        generation_config={"max_length": 12},
        dtype="float16",
        generations=BEAMS,
    ),
    Case(
        "vit-gpt2-old-files",
        encoder=VIT,
        decoder=GPT2,
        tokenizer="gpt2",
        processor=VIT_PROCESSOR,
        generation_config={"max_length": 12},
        finish=lambda folder: (finish.old_vit_processor(folder), finish.vocab_and_merges(folder)),
        generations=[*BEAMS, G(prompt="a plate of")],
    ),
    Case(
        "deit-bert-old-files",
        encoder=DEIT,
        decoder=BERT,
        tokenizer="bert",
        processor=DEIT_PROCESSOR,
        generation_config={"max_length": 12},
        finish=lambda folder: (finish.old_deit_processor(folder), finish.vocab_txt(folder)),
        generations=[*BEAMS, G(prompt="a plate of")],
    ),
    Case(
        "vit-trocr-vocab-merges",
        encoder=VIT,
        decoder=TROCR | {"tie_word_embeddings": False},
        tokenizer="roberta",
        processor=VIT_PROCESSOR,
        start="eos",
        generation_config={"max_length": 12},
        finish=finish.vocab_and_merges,
        generations=[*BEAMS, G(prompt="paid in cash")],
    ),
    Case(
        "vit-roberta-oblong",
        encoder=VIT | {"image_size": [16, 36], "patch_size": [8, 6]},
        decoder=ROBERTA,
        tokenizer="roberta",
        processor=VIT_PROCESSOR | {"size": {"height": 16, "width": 36}},
        generation_config={"max_length": 12},
        generations=BEAMS,
    ),
    Case(
        "deit-gpt2-oblong",
        encoder=DEIT | {"image_size": [32, 16], "patch_size": [4, 8]},
        decoder=GPT2,
        tokenizer="gpt2",
        processor=DEIT_PROCESSOR | {"size": {"height": 40, "width": 18}, "crop_size": {"height": 32, "width": 16}},
        generation_config={"max_length": 12},
        generations=BEAMS,
    ),
]
