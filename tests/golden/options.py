"""Lists of generations: every option of `generate` that changes ids or scores, some made from the greedy ids."""

from case import Context, Generation


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
    two = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.8}
    return [
        G(),
        G(num_beams=4, num_beam_groups=2, diversity_penalty=1.0, legacy=True, effect=True),
        G(num_beams=4, num_beam_groups=4, diversity_penalty=0.5, num_return_sequences=4, legacy=True),
        G(num_beams=6, num_beam_groups=3, diversity_penalty=2.0, length_penalty=0.0, num_return_sequences=3, legacy=True),
        G(**two, early_stopping=True, no_repeat_ngram_size=2, legacy=True),
        G(**two, early_stopping="never", repetition_penalty=1.2, legacy=True),
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
