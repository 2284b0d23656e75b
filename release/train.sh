#!/usr/bin/env bash
# Train a recipe in the background for as long as it takes: start it, or continue where it was.
#
#   release/train.sh RECIPE RUN DATA [OPTION ...]
#
#   release/train.sh v1 ~/deepmtdr-runs/v1 ../shared/data \
#       --init-segmentation ../shared/weights/efficientnet_lite0_imagenet.safetensors \
#       --init-grading ../shared/weights/efficientnet_lite0_imagenet.safetensors
#
# RUN is a folder outside the checkout. It gets
#   source/      the code of the commit at the first start: later commits do not change a run,
#   out/         what `deepmtdr train` writes, with the checkpoint to resume from,
#   train.log    its output, and one line for each start: date, commit, processor, threads,
#   pid          the process that is running.
# Threads: $THREADS (1). Lowest priority, so that other work goes on. Stop it with: kill "$(cat RUN/pid)"; it then writes
# a checkpoint. Killed without warning, it loses a few minutes. Start it again with the same command.
set -euo pipefail
recipe=$1 run=$2 data=$(realpath "$3")
shift 3
checkout=$(cd "$(dirname "$0")/.." && pwd)
python=$(realpath -s "${PYTHON:-$checkout/.venv/bin/python}")
threads=${THREADS:-1}

mkdir -p "$run"
run=$(realpath "$run")
if [ -e "$run/pid" ] && kill -0 "$(cat "$run/pid")" 2>/dev/null; then
    echo "$run: process $(cat "$run/pid") is running already; stop it first with kill" >&2
    exit 1
fi
if [ ! -d "$run/source" ]; then
    mkdir "$run/source.new"
    git -C "$checkout" archive HEAD src | tar -x -C "$run/source.new"
    git -C "$checkout" rev-parse HEAD >"$run/source.new/commit"
    mv "$run/source.new" "$run/source"
fi
options=(--data "$data" --out "$run/out")
for option in "$@"; do options+=("$option"); done
if [ -e "$run/out/resume.safetensors" ]; then options+=(--resume); fi

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
echo "$(date -u +%FT%TZ) start: commit $(cat "$run/source/commit"), $processor, $threads threads, ${options[*]}" >>"$run/train.log"
# Without these settings glibc returns large blocks to the system in every step: 9 % more time (benchmarks/restoration_step.py).
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1099511627776 MALLOC_TOP_PAD_=67108864
export OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads PYTHONPATH=$run/source/src
nohup nice -n 19 "$python" -c "from deepmtdr.cli import app; app()" train "$recipe" "${options[@]}" >>"$run/train.log" 2>&1 </dev/null &
echo $! >"$run/pid"
echo "$run: process $!, log in $run/train.log"
