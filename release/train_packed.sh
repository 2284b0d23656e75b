#!/usr/bin/env bash
# Train from a pack of prepared data sets on a machine that can be used for minutes only, such as one with a GPU.
#
#   release/train_packed.sh PACK OUT [ARGUMENT ...]
#
#   release/train_packed.sh pack out v1 --set restoration.minutes=3 --set grading.minutes=2 --set joint.minutes=3 \
#       --init-segmentation pack/efficientnet.safetensors --init-grading pack/efficientnet.safetensors
#
# The arguments are those of `deepmtdr train`; the default is the recipe v1. PACK is made by release/pack_data.py. OUT gets
# the run without its cached outputs. Files over 15 MiB are in parts of this size: join them with
# `cat FILE.part-* > FILE`. If the run has not ended, resume.safetensors continues it on any other machine.
set -euo pipefail
pack=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- v1
checkout=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
export PYTHONPATH=$checkout/src${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3}

"$python" "$checkout/release/pack_data.py" unpack "$pack" "$work/data"
"$python" -c "from deepmtdr.cli import app; app()" train "$@" --data "$work/data" --out "$work/out" || status=$?
mkdir -p "$out"
for name in weights.safetensors resume.safetensors run.json split.csv metrics.csv validation.csv report.html; do
    file=$work/out/$name
    [ -e "$file" ] || continue
    if [ "$(wc -c <"$file")" -gt $((15 * 1024 * 1024)) ]; then
        split --bytes=15M --numeric-suffixes --suffix-length=2 "$file" "$out/$name.part-"
    else
        cp "$file" "$out/$name"
    fi
done
exit "${status:-0}"
