#!/usr/bin/env bash
# Run `deepmtdr train`, `benchmark-baselines`, `ablate` or `leave-one-out` in the background for as long as it takes: start it, or
# continue where it was.
#
#   release/background.sh RUN COMMAND [ARGUMENT ...]
#
#   weights=../shared/weights/efficientnet_lite0_imagenet.safetensors
#   release/background.sh ~/deepmtdr-runs/v1 train v1 --data ../shared/data \
#       --init-segmentation $weights --init-grading $weights
#
# RUN is a folder outside the checkout. It gets
#   source/      the code of the commit at the first start: later commits do not change a run,
#   out/         the output of the command,
#   run.log      what it prints, and one line for each start: date, commit, processor, threads, arguments,
#   pid          the number of the process that is running.
# Threads: $THREADS (1). The priority is the lowest, so that other work goes on. Stop it with: kill "$(cat RUN/pid)"; it
# then writes a checkpoint. If it is killed without warning, a few minutes are lost. Start it again with the same command.
set -euo pipefail
run=$1 command=$2
shift 2
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
    rm -rf "$run/source.new"
    mkdir "$run/source.new"
    git -C "$checkout" archive HEAD src | tar -x -C "$run/source.new"
    git -C "$checkout" rev-parse HEAD >"$run/source.new/commit"
    mv "$run/source.new" "$run/source"
fi
arguments=("$command" "$@" --out "$run/out")
if [ "$command" = train ] && [ -e "$run/out/resume.safetensors" ]; then arguments+=(--resume); fi

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
echo "$(date -u +%FT%TZ) start: commit $(cat "$run/source/commit"), $processor, $threads threads, ${arguments[*]}" >>"$run/run.log"
# Without these settings glibc returns large blocks to the system in every step: 9 % more time (benchmarks/restoration_step.py).
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1099511627776 MALLOC_TOP_PAD_=67108864
export OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads PYTHONPATH=$run/source/src
# Linux may share the processor among sessions first (autogroup): then `nice` counts within a session only.
setsid nohup bash -c '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$@"' - \
    "$python" -c "from deepmtdr.cli import app; app()" "${arguments[@]}" >>"$run/run.log" 2>&1 </dev/null &
echo $! >"$run/pid"
echo "$run: process $!, log in $run/run.log"
