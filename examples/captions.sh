#!/bin/sh
# Describes photographs: a small decoder on a frozen DINOv2-small, measured on photographs it has not seen.
#
#     examples/captions.sh FLICKR DINOV2 OUT [OPTIONS OF train...]
#
# FLICKR holds labels.csv (image,text, a row a caption) and its images; DINOV2 is what dinov2_from_onnx.py makes.
set -eu
data=$(cd "$1" && pwd)
encoder=$2
out=$3
shift 3
vedm=${VEDM:-vedm}
here=$(dirname "$0")
mkdir -p "$out"

# Every tenth image is held out, in the order of their names. Words in small letters.
python3 - "$data" "$out" <<'PY'
import csv, sys
from pathlib import Path
data, out = map(Path, sys.argv[1:])
with open(data / "labels.csv", encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
names = sorted({row["image"] for row in rows})
held_out = set(names[::10])
for name, keep in (("train.csv", lambda image: image not in held_out), ("unseen.csv", lambda image: image in held_out)):
    with open(out / name, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "text"])
        table.writerows([data / row["image"], row["text"].lower()] for row in rows if keep(row["image"]))
PY
python3 "$here/make_tokenizer.py" "$out/train.csv" "$out/words" 3
"$vedm" init "$out/start" --force --seed 1 --encoder "$encoder" --decoder trocr --tokenizer "$out/words" \
    --set decoder.d_model=384 --set decoder.decoder_layers=2 --set decoder.decoder_attention_heads=6 \
    --set decoder.decoder_ffn_dim=1024 --set decoder.max_position_embeddings=64 --set decoder.dropout=0.2
"$vedm" train --model "$out/start" --data "$out/train.csv" --eval-data "$out/unseen.csv" --output "$out/model" \
    --freeze-encoder --bf16 --per-device-train-batch-size 16 --learning-rate 5e-4 --warmup-ratio 0.1 \
    --weight-decay 0.05 --lr-scheduler-type cosine --label-smoothing-factor 0.1 --max-target-length 40 \
    --generation-num-beams 3 --seed 1 --threads 1 "$@"
