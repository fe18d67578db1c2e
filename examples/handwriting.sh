#!/bin/sh
# Reads handwriting: trained on 24 writers, measured on 6 others.
#
#     examples/handwriting.sh DHSD OUT [OPTIONS OF train...]
#
# DHSD holds labels.csv (image,text,writer) and its images, 256 x 64 pixels each. The model is put together
# from encoder and decoder of the shipped reader of print, with an image processor that stretches these
# small images to the reader's width; START=nothing draws all weights of a model of its own instead.
set -eu
data=$(cd "$1" && pwd)
out=$2
shift 2
vedm=${VEDM:-vedm}
here=$(dirname "$0")
mkdir -p "$out"

# Writers from number 30 on are unseen. The names of the images become paths.
split() { awk -F, -v d="$data/" "NR == 1 { print \"image,text\" } NR > 1 && $1 { print d \$1 \",\" \$2 }" "$data/labels.csv"; }
split "\$3 + 0 < 30" > "$out/train.csv"
split "\$3 + 0 >= 30" > "$out/unseen.csv"

# HEIGHT WIDTH
processor() {
    cat > "$out/preprocessor_config.json" <<JSON
{"image_processor_type": "ViTImageProcessor", "size": {"height": $1, "width": $2}, "resample": 2,
 "do_resize": true, "do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true,
 "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
JSON
}
train() {
    "$vedm" train --model "$out/start" --data "$out/train.csv" --eval-data "$out/unseen.csv" \
        --output "$out/model" --per-device-train-batch-size 16 --warmup-ratio 0.05 --weight-decay 0.05 \
        --lr-scheduler-type cosine --label-smoothing-factor 0.1 --ctc-weight 0.3 --augment ocr \
        --seed 1 --threads 1 "$@"
}

if [ "${START:-print}" = nothing ]; then
    python3 "$here/make_tokenizer.py" "$data/labels.csv" "$out/characters"
    processor 64 256
    "$vedm" init "$out/start" --force --seed 1 --encoder vit --decoder trocr \
        --tokenizer "$out/characters" --image-processor "$out" \
        --set encoder.hidden_size=128 --set encoder.num_hidden_layers=5 --set encoder.num_attention_heads=4 \
        --set encoder.intermediate_size=512 --set 'encoder.image_size=[64,256]' --set 'encoder.patch_size=[64,4]' \
        --set encoder.hidden_dropout_prob=0.1 \
        --set decoder.d_model=128 --set decoder.decoder_layers=2 --set decoder.decoder_attention_heads=4 \
        --set decoder.decoder_ffn_dim=512 --set decoder.max_position_embeddings=48 --set decoder.dropout=0.1
    train --learning-rate 1e-3 --num-train-epochs 20 "$@"
else
    "$vedm" convert vedm-ocr-printed "$out/parts" --split --force
    processor 28 768
    "$vedm" init "$out/start" --force --seed 1 --encoder "$out/parts/encoder" --decoder "$out/parts/decoder" \
        --tokenizer vedm-ocr-printed --image-processor "$out"
    train --learning-rate 5e-4 --num-train-epochs 30 "$@"
fi
