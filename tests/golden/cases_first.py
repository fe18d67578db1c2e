"""ViT and DeiT with GPT-2, BERT, RoBERTa and TrOCR: the first pairs, and the options of generation spread over them."""

from case import Case, Generation

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


def G(prompt=None, legacy=False, effect=False, **flags):
    return Generation(flags, prompt, legacy, effect)


CASES = [
    Case(
        "vit-gpt2",
        encoder=VIT,
        decoder=GPT2 | {"n_ctx": 40, "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}},
        tokenizer="gpt2",
        processor=VIT_PROCESSOR | {"resample": 2},
        pictures=THREE,
        generation_config={"max_length": 12},
        generations=[
            G(),
            G(max_new_tokens=6),
            G(num_beams=4),
            G(num_beams=4, length_penalty=0.0, max_new_tokens=12),
            G(num_beams=4, length_penalty=2.0, early_stopping=True),
            G(num_beams=2, early_stopping="never", length_penalty=0.5),
            G(num_beams=3, num_return_sequences=3, length_penalty=-1.0),
        ],
    ),
    Case(
        "vit-bert",
        encoder=VIT,
        decoder=BERT,
        tokenizer="bert",
        processor=VIT_PROCESSOR,
        pictures=THREE,
        start="bos",
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
        generations=[G(), G(num_beams=3), G(num_beams=3, num_return_sequences=2, early_stopping=True)],
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
        generations=[G(), G(num_beams=4), G(num_beams=4, early_stopping=True, length_penalty=2.0)],
    ),
]
