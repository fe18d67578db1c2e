"""The tiny configs of `make_grid.py`: one row an encoder, one row a decoder.

A row is (name, config values, image size as height and width) or (name, config values). The name is the model_type,
behind it a word where a type has a second row. Sizes differ so that pairs with and without `enc_to_dec_proj` occur.
Rows of `MORE_...` meet the first row of the other side only.
"""

VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32,
    "patch_size": 8,
}
SWIN = {"patch_size": 4, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4, "mlp_ratio": 2.0}
DINOV2 = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "patch_size": 8,
    "image_size": 40,
}

ENCODERS = [
    ("vit", VIT | {"qkv_bias": False, "hidden_act": "gelu_new"}, (32, 32)),
    ("deit", VIT | {"hidden_size": 24, "num_attention_heads": 3, "image_size": [32, 24], "num_channels": 1}, (32, 24)),
    ("beit", VIT | {"use_relative_position_bias": True, "use_mean_pooling": False, "use_mask_token": True}, (32, 32)),
    (
        "data2vec-vision",
        VIT | {
            "hidden_size": 20, "use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True,
            "layer_scale_init_value": 0,
        },
        (32, 32),
    ),
    ("swin", SWIN | {"image_size": 28, "hidden_act": "relu"}, (28, 28)),
    (
        "donut-swin",
        SWIN | {"image_size": [32, 24], "embed_dim": 12, "depths": [1, 2], "num_heads": [1, 2], "window_size": 3},
        (32, 24),
    ),
    (
        "swinv2",
        SWIN | {
            "image_size": 28, "num_heads": [1, 2], "window_size": 3, "pretrained_window_sizes": [4, 2],
            "qkv_bias": False,
        },
        (28, 28),
    ),
    ("dinov2", DINOV2 | {"use_swiglu_ffn": True, "qkv_bias": False}, (32, 24)),
    (
        "dinov2_with_registers",
        DINOV2 | {"hidden_size": 24, "num_register_tokens": 3, "num_attention_heads": 4},
        (24, 32),
    ),
    (
        "dinov3_vit",
        VIT | {"use_gated_mlp": True, "num_register_tokens": 2, "rope_theta": 40.0, "mlp_bias": False},
        (32, 24),
    ),
    ("vit_mae", VIT | {"mask_ratio": 0.0}, (32, 32)),
    ("vit_msn", VIT | {"hidden_size": 20, "image_size": 24}, (24, 24)),
    ("ijepa", VIT | {"num_attention_heads": 4, "hidden_act": "relu"}, (32, 32)),
    ("clip_vision_model", VIT | {"projection_dim": 8, "image_size": 24, "layer_norm_eps": 1e-3}, (24, 24)),
    ("chinese_clip_vision_model", VIT | {"hidden_size": 24, "projection_dim": 8, "num_attention_heads": 3}, (32, 32)),
    ("siglip_vision_model", VIT | {"image_size": 36}, (36, 36)),
    ("aimv2_vision_model", VIT | {"hidden_size": 20, "qkv_bias": True}, (32, 32)),
    ("yolos", VIT | {"num_hidden_layers": 3, "image_size": [32, 24], "num_detection_tokens": 3}, (32, 24)),
]

TEXT = {"vocab_size": 37, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
BERT = TEXT | {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 20,
}
BART = TEXT | {
    "d_model": 16, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24,
    "max_position_embeddings": 20, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24,
    "decoder_start_token_id": 2,
}
TROCR = TEXT | {
    "d_model": 16, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24,
    "max_position_embeddings": 20,
}

DECODERS = [
    ("bert", BERT | {"position_embedding_type": "relative_key_query"}),
    ("roberta", BERT | {"hidden_size": 20, "tie_word_embeddings": False}),
    ("xlm-roberta", BERT | {"position_embedding_type": "relative_key"}),
    ("camembert", BERT | {"hidden_act": "relu", "type_vocab_size": 2}),
    ("data2vec-text", BERT | {"hidden_size": 24, "num_attention_heads": 3}),
    ("electra", BERT | {"embedding_size": 12}),
    ("ernie", BERT | {"use_task_id": True, "task_type_vocab_size": 3}),
    ("rembert", BERT | {"input_embedding_size": 12, "output_embedding_size": 20}),
    ("roformer", BERT | {"embedding_size": 12, "rotary_value": True}),
    ("bert-generation", BERT | {"hidden_size": 24}),
    ("megatron-bert", BERT | {"hidden_act": "gelu_new"}),
    ("xlm-roberta-xl", BERT | {"hidden_size": 20}),
    ("roberta-prelayernorm", BERT),
    (
        "gpt2",
        TEXT | {
            "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20, "n_inner": 20,
            "scale_attn_by_inverse_layer_idx": True,
        },
    ),
    (
        "trocr",
        TROCR | {"scale_embedding": True, "use_learned_position_embeddings": False, "layernorm_embedding": False},
    ),
    ("trocr cross", TROCR | {"d_model": 20, "cross_attention_hidden_size": 24, "tie_word_embeddings": False}),
    ("bart", BART | {"scale_embedding": True}),
    ("plbart", BART | {"d_model": 20, "activation_function": "relu"}),
    ("mvp", BART),
    ("mbart", BART | {"tie_word_embeddings": False}),
    ("marian", BART | {"decoder_vocab_size": 41, "share_encoder_decoder_embeddings": False}),
    ("pegasus", BART | {"d_model": 24, "scale_embedding": True}),
    ("bigbird_pegasus", BART | {"attention_type": "original_full", "use_bias": True}),
    ("blenderbot", BART | {"activation_function": "gelu_new"}),
    ("blenderbot-small", BART | {"d_model": 20}),
    (
        "xglm",
        TEXT | {
            "d_model": 16, "ffn_dim": 24, "num_layers": 2, "attention_heads": 2, "max_position_embeddings": 20,
            "decoder_start_token_id": 2,
        },
    ),
    (
        "prophetnet",
        # With a cache the class demands that the padding token is 0.
        TEXT | {
            "pad_token_id": 0, "bos_token_id": 1,
            "hidden_size": 16, "num_decoder_layers": 2, "num_decoder_attention_heads": 2, "decoder_ffn_dim": 24,
            "num_encoder_layers": 1, "num_encoder_attention_heads": 2, "encoder_ffn_dim": 24,
            "max_position_embeddings": 20, "ngram": 3, "num_buckets": 4, "relative_max_distance": 5,
        },
    ),
]

MORE_ENCODERS = [
    ("beit plain", VIT, (32, 32)),
    ("beit resized", VIT | {"use_relative_position_bias": True, "use_shared_relative_position_bias": True}, (48, 24)),
    ("swin padded", SWIN | {"image_size": 32, "window_size": 3, "qkv_bias": False, "num_channels": 1}, (45, 29)),
    ("dinov2 plain", DINOV2, (40, 40)),
    ("dinov3_vit biased", VIT | {"key_bias": True, "query_bias": False, "pos_embed_rescale": None}, (32, 32)),
    ("siglip_vision_model headless", VIT | {"vision_use_head": False, "hidden_act": "gelu"}, (32, 32)),
    ("aimv2_vision_model native", VIT | {"is_native": True, "use_head": False, "mlp_bias": True}, (48, 24)),
    (
        "yolos early",
        VIT | {"image_size": [32, 24], "num_detection_tokens": 3, "use_mid_position_embeddings": False},
        (40, 32),
    ),
]

MORE_DECODERS = [
    ("bert plain", BERT | {"hidden_act": "silu", "layer_norm_eps": 1e-3}),
    ("roberta relative", BERT | {"position_embedding_type": "relative_key_query"}),
    ("electra equal", BERT | {"embedding_size": 16, "tie_word_embeddings": False}),
    # Fields of other classes, which these do not read.
    ("rembert strange", BERT | {"position_embedding_type": "relative_key", "use_task_id": True}),
    ("roformer strange", BERT | {"position_embedding_type": "relative_key", "use_task_id": True}),
    ("gpt2 plain", TEXT | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20, "tie_word_embeddings": False}),
    ("trocr plain", TROCR),
    ("marian plain", BART),
    ("bigbird_pegasus plain", BART | {"attention_type": "original_full"}),
    ("prophetnet single", dict(DECODERS)["prophetnet"] | {"ngram": 1, "tie_word_embeddings": False}),
]
