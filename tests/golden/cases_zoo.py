"""Every further encoder and decoder, with a well-known partner; the main ones also in unusual settings."""

from case import Case
from cases_first import BERT, DEIT_PROCESSOR, GPT2, ROBERTA, THREE, VIT, VIT_PROCESSOR
from options import G

GREEDY_AND_BEAM = [G(), G(num_beams=3, length_penalty=0.8, early_stopping=True)]

# Partners have one layer: they are tested elsewhere.
VIT1 = VIT | {"num_hidden_layers": 1}
BERT1 = BERT | {"num_hidden_layers": 1, "max_position_embeddings": 24}
GPT1 = GPT2 | {"n_layer": 1, "n_positions": 24}
ROBERTA1 = ROBERTA | {"num_hidden_layers": 1, "max_position_embeddings": 26}

# Encoders -------------------------------------------------------------------------------------------------------------

BEIT = VIT | {"model_type": "beit"}
BEIT_PROCESSOR = DEIT_PROCESSOR | {"image_processor_type": "BeitImageProcessor"}
SWIN = {
    "model_type": "swin", "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4],
    "window_size": 4, "mlp_ratio": 2.0,
}
DONUT_SWIN = SWIN | {"model_type": "donut-swin", "image_size": [32, 24], "window_size": 3}
SWINV2 = SWIN | {"model_type": "swinv2", "depths": [2, 1], "num_heads": [1, 2]}
DINOV2 = {
    "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2,
    "image_size": 24, "patch_size": 8,
}
CLIP = VIT | {"model_type": "clip_vision_model", "projection_dim": 8}
SIGLIP = VIT | {"model_type": "siglip_vision_model"}


def size(height, width=None):
    return VIT_PROCESSOR | {"size": {"height": height, "width": width or height}}


def bit(edge, crop, kind="BitImageProcessor"):
    """DINOv2's and CLIP's processor: shortest edge, then a crop from the centre."""
    return {
        "image_processor_type": kind, "size": {"shortest_edge": edge}, "crop_size": {"height": crop, "width": crop},
    }


def donut(height, width, **more):
    return {"image_processor_type": "DonutImageProcessor", "size": {"height": height, "width": width}} | more


# Decoders -------------------------------------------------------------------------------------------------------------

BART = {
    "model_type": "bart", "d_model": 16, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32,
    "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "max_position_embeddings": 40,
}
MBART = BART | {"model_type": "mbart", "scale_embedding": True}
MARIAN = BART | {"model_type": "marian"}
PEGASUS = BART | {"model_type": "pegasus"}


def case(name, encoder, decoder, tokenizer="bert:120", processor=VIT_PROCESSOR, **more) -> Case:
    """A small case: greedy and one beam search."""
    settings = {"generation_config": {"max_length": 11}, "generations": GREEDY_AND_BEAM, "limit_kb": 124}
    return Case(name, encoder, decoder, tokenizer, processor, **(settings | more))


ENCODERS = [
    case(
        "beit-bert",
        BEIT | {"use_relative_position_bias": True, "use_mean_pooling": True, "layer_scale_init_value": 0.1},
        BERT1,
        processor=BEIT_PROCESSOR,
    ),
    case(
        "beit-gpt2-shared",
        BEIT | {"use_shared_relative_position_bias": True, "use_mean_pooling": False, "use_mask_token": True},
        GPT1,
        "gpt2:120",
        BEIT_PROCESSOR,
    ),
    case(
        "beit-roberta-absolute",
        BEIT | {
            "use_absolute_position_embeddings": True, "layer_scale_init_value": 0, "use_mean_pooling": False,
            "hidden_act": "relu",
        },
        ROBERTA1,
        "roberta:120",
        BEIT_PROCESSOR | {"do_center_crop": False, "size": {"height": 24, "width": 24}},
    ),
    case(
        "data2vec-vision-bert",
        BEIT | {"model_type": "data2vec-vision", "use_relative_position_bias": True, "use_mean_pooling": True},
        BERT1,
        processor=BEIT_PROCESSOR,
    ),
    case("swin-gpt2", SWIN | {"depths": [2, 1]}, GPT1, "gpt2:120", size(32)),
    case("swin-bart", SWIN | {"depths": [2, 1]}, BART | {"decoder_layers": 1}, "bart:120", size(32), start="eos"),
    case("swin-bert-padded", SWIN | {"window_size": 3, "image_size": 28, "qkv_bias": False}, BERT1, processor=size(28)),
    case(
        "swin-roberta-oblong",
        SWIN | {"image_size": [24, 36], "window_size": 3, "depths": [2, 1], "num_heads": [1, 2], "hidden_act": "relu"},
        ROBERTA1,
        "roberta:120",
        size(24, 36),
    ),
    case("donut-swin-bert", DONUT_SWIN, BERT1, processor=donut(32, 24)),
    case(
        "donut-swin-gpt2-aligned",
        DONUT_SWIN | {"image_size": [36, 24], "depths": [1, 2]},
        GPT1,
        "gpt2:120",
        donut(36, 24, do_align_long_axis=True, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
        pictures=("glyphs_60x33", "stripes_31x70"),
    ),
    case(
        "donut-swin-mbart",
        DONUT_SWIN | {"embed_dim": 6},
        MBART | {"decoder_layers": 1, "encoder_layers": 1, "add_final_layer_norm": True},
        "mbart:140",
        donut(32, 24) | {"size": [24, 32]},
        start="eos",
    ),
    case(
        "donut-swin-mbart-nougat",
        DONUT_SWIN | {"embed_dim": 6},
        MBART | {"decoder_layers": 1, "encoder_layers": 1},
        "mbart:120",
        {"image_processor_type": "NougatImageProcessor", "size": {"height": 32, "width": 24}},
        pictures=("glyphs_60x33", "glyphs_31x70_L"),
    ),
    case("swinv2-bert", SWINV2 | {"window_size": 3, "image_size": 24}, BERT1, processor=size(24)),
    case(
        "swinv2-gpt2-odd",
        SWINV2 | {"window_size": 3, "image_size": 28, "pretrained_window_sizes": [4, 2], "qkv_bias": False},
        GPT1,
        "gpt2:100",
        size(28),
    ),
    case("dinov2-bert", DINOV2, BERT1, processor=bit(28, 24)),
    case(
        "dinov2-gpt2-interpolated",
        DINOV2 | {"image_size": 40, "qkv_bias": False, "layerscale_value": 0.5},
        GPT1,
        "gpt2:120",
        bit(28, 24),
    ),
    case("dinov2-roberta-swiglu", DINOV2 | {"use_swiglu_ffn": True}, ROBERTA1, "roberta:120", bit(24, 24)),
    case(
        "dinov2-with-registers-bert",
        DINOV2 | {"model_type": "dinov2_with_registers", "num_register_tokens": 3},
        BERT1,
        processor=bit(28, 24),
    ),
    case(
        "dinov2-with-registers-gpt2-interpolated",
        DINOV2 | {
            "model_type": "dinov2_with_registers", "num_register_tokens": 2, "image_size": 40, "use_swiglu_ffn": True,
        },
        GPT1,
        "gpt2:120",
        bit(28, 24),
    ),
    case("vit-mae-bert", VIT | {"model_type": "vit_mae", "mask_ratio": 0.0}, BERT1),
    case("vit-msn-bert", VIT | {"model_type": "vit_msn"}, BERT1),
    case("clip-gpt2", CLIP, GPT1, "gpt2:120", bit(24, 24, "CLIPImageProcessor"), pictures=THREE),
    case(
        "clip-roberta",
        CLIP | {"hidden_act": "gelu", "layer_norm_eps": 1e-3, "num_attention_heads": 4},
        ROBERTA1 | {"hidden_size": 20},
        "roberta:120",
        bit(30, 24, "CLIPImageProcessor"),
    ),
    case("siglip-bert", SIGLIP, BERT1, processor=size(24) | {"image_processor_type": "SiglipImageProcessor"}),
    case(
        "siglip-gpt2",
        SIGLIP | {"hidden_act": "gelu", "image_size": 32, "num_attention_heads": 4, "vision_use_head": False},
        GPT1 | {"n_embd": 12},
        "gpt2:120",
        size(32) | {"image_processor_type": "SiglipImageProcessor", "resample": 2},
    ),
    case(
        "yolos-bert",
        VIT | {"model_type": "yolos", "image_size": [32, 24], "num_detection_tokens": 5, "num_hidden_layers": 3},
        BERT1,
        processor=size(24),
    ),
    case(
        "yolos-gpt2",
        VIT | {
            "model_type": "yolos", "image_size": [24, 24], "num_detection_tokens": 3,
            "use_mid_position_embeddings": False,
        },
        GPT1,
        "gpt2:120",
    ),
    # With their own image processors.
    case(
        "dinov3-vit-bert",
        VIT | {"model_type": "dinov3_vit", "num_register_tokens": 2, "rope_theta": 40.0},
        BERT1,
        processor={"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 24, "width": 32}},
        pictures=THREE,
    ),
    case(
        "chinese-clip-gpt2",
        CLIP | {"model_type": "chinese_clip_vision_model"},
        GPT1,
        "gpt2:120",
        # Its own default, a shortest edge, is a KeyError in it.
        size(30, 28) | {"image_processor_type": "ChineseCLIPImageProcessor", "crop_size": {"height": 24, "width": 24}},
    ),
    case(
        "yolos-bert-edges",
        VIT | {"model_type": "yolos", "image_size": [32, 24], "num_detection_tokens": 3, "num_hidden_layers": 3},
        BERT1,
        processor={
            "image_processor_type": "YolosImageProcessor", "size": {"shortest_edge": 24, "longest_edge": 40},
        },
        # Both come to 16x32, so that one tensor holds them.
        pictures=("blobs_37x23", "stripes_45x27"),
    ),
]

DECODERS = [
    case("vit-bart", VIT1, BART, "bart:120", start="eos"),
    case(
        "vit-bart-odd",
        VIT1,
        BART | {
            "d_model": 18, "decoder_attention_heads": 3, "activation_function": "relu", "scale_embedding": True,
            "encoder_layers": 3, "decoder_ffn_dim": 20, "tie_word_embeddings": False,
        },
        "bart:110",
        gains={"embedding": 0.3},
    ),
    case("vit-bart-inherited", VIT1, BART, "bart:120", start="eos", generation_config=None, generations=[
        G(max_new_tokens=9), G(num_beams=3, max_length=9),
    ]),
    case(
        "vit-mbart",
        VIT1,
        MBART | {"max_position_embeddings": 20},
        "mbart:130",
        start="eos",
        gains={"embedding": 0.3},
    ),
    case(
        "vit-mbart-odd",
        VIT1,
        MBART | {
            "d_model": 18, "decoder_ffn_dim": 20, "scale_embedding": False, "activation_function": "gelu_new",
            "tie_word_embeddings": False, "decoder_layers": 1, "encoder_layers": 1,
        },
        "mbart:140",
        start="bos",
    ),
    case("vit-electra", VIT1, BERT | {"model_type": "electra", "embedding_size": 12}, "electra:120"),
    case(
        "vit-electra-relative",
        VIT1,
        BERT | {
            "model_type": "electra", "embedding_size": 20, "hidden_size": 20, "position_embedding_type": "relative_key",
            "hidden_act": "relu", "tie_word_embeddings": False, "num_hidden_layers": 1, "max_position_embeddings": 20,
        },
        "electra:120",
    ),
    case("vit-marian", VIT1, MARIAN, "marian:120", start="pad"),
    case(
        "vit-marian-odd",
        VIT1,
        MARIAN | {
            "d_model": 18, "scale_embedding": True, "activation_function": "swish",
            "share_encoder_decoder_embeddings": False,
            "tie_word_embeddings": False,
        },
        "marian:110",
        start="pad",
        gains={"embedding": 0.3},
    ),
    case("vit-pegasus", VIT1, PEGASUS, "pegasus:120", start="pad"),
    case(
        "vit-pegasus-odd",
        VIT1,
        PEGASUS | {"d_model": 20, "scale_embedding": True, "activation_function": "relu", "max_position_embeddings": 12},
        "pegasus:120",
        start="pad",
        gains={"embedding": 0.3},
    ),
    case(
        "vit-blenderbot",
        VIT1,
        BART | {"model_type": "blenderbot", "scale_embedding": True},
        "blenderbot:120",
        gains={"embedding": 0.3},
    ),
    case("vit-blenderbot-small", VIT1, BART | {"model_type": "blenderbot-small", "scale_embedding": True}, "blenderbot:120"),
    case("vit-xlm-roberta", VIT1, ROBERTA | {"model_type": "xlm-roberta"}, "xlmr:120"),
    case("vit-camembert", VIT1, ROBERTA | {"model_type": "camembert"}, "camembert:120"),
    case("vit-data2vec-text", VIT1, ROBERTA | {"model_type": "data2vec-text"}, "roberta:120"),
    case(
        "vit-roberta-relative",
        VIT1,
        ROBERTA | {"position_embedding_type": "relative_key_query", "type_vocab_size": 2},
        "roberta:120",
    ),
    case(
        "vit-xglm",
        VIT1,
        {
            "model_type": "xglm", "d_model": 16, "ffn_dim": 32, "num_layers": 2, "attention_heads": 2,
            "max_position_embeddings": 40, "scale_embedding": True,
        },
        "xglm:120",
        start="eos",
    ),
    case("vit-plbart", VIT1, BART | {"model_type": "plbart"}, "bart:120", start="eos"),
    case("vit-mvp", VIT1, BART | {"model_type": "mvp"}, "bart:120", start="eos"),
    case(
        "vit-bigbird-pegasus",
        VIT1,
        BART | {"model_type": "bigbird_pegasus", "attention_type": "original_full", "use_bias": False},
        "pegasus:120",
        start="pad",
    ),
    case("vit-megatron-bert", VIT1, BERT | {"model_type": "megatron-bert"}),
    case(
        "vit-rembert",
        VIT1,
        BERT | {"model_type": "rembert", "num_hidden_layers": 1, "input_embedding_size": 12, "output_embedding_size": 20},
    ),
    case("vit-roformer", VIT1, BERT | {"model_type": "roformer", "embedding_size": 16}),
    case(
        "vit-roformer-odd",
        VIT1,
        BERT | {"model_type": "roformer", "embedding_size": 12, "rotary_value": True, "hidden_act": "relu"},
    ),
    case("vit-ernie", VIT1, BERT | {"model_type": "ernie"}),
    case("vit-ernie-task", VIT1, BERT | {"model_type": "ernie", "use_task_id": True, "task_type_vocab_size": 3}),
    case("vit-bert-generation", VIT1, BERT | {"model_type": "bert-generation"}),
    case("vit-roberta-prelayernorm", VIT1, ROBERTA | {"model_type": "roberta-prelayernorm"}, "roberta:120"),
    case("vit-xlm-roberta-xl", VIT1, ROBERTA | {"model_type": "xlm-roberta-xl"}, "xlmr:120"),
]

CASES = ENCODERS + DECODERS
