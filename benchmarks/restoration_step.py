"""Processor time of a restoration step (Sec. IV-C, stage 1a) with several memory allocators, and where the time goes.

The network of the recipe `small` on a batch of crops at x4, one thread. Large tensors that are freed return to the
system and cost page faults when they are allocated again; another allocator, or other thresholds of glibc, keep them.
Each case runs in a separate process; the cases take turns, so that a change of the machine's speed affects all alike.
Processor time (user and system) is compared, because other programs do not lengthen it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

RECIPE = "small"
BATCH, STEPS, ROUNDS = 8, 3, 3
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}
CASES: dict[str, dict[str, str]] = {
    "default": {},
    "glibc, thresholds at their limits": {
        "MALLOC_MMAP_THRESHOLD_": str(2**25),
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**26),
    },
    "glibc, never mmap, never trim": KEEP,
    "the same with transparent huge pages": {**KEEP, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "jemalloc": {"LD_PRELOAD": str(LIBRARIES / "libjemalloc.so.2")},
    "jemalloc, kept for ever": {
        "LD_PRELOAD": str(LIBRARIES / "libjemalloc.so.2"),
        "MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0",
    },
    "tcmalloc": {"LD_PRELOAD": str(LIBRARIES / "libtcmalloc_minimal.so.4")},
    "default, denormal numbers flushed": {"DEEPMTDR_BENCHMARK_FLUSH": "1"},
    "default, float32": {"DEEPMTDR_BENCHMARK_FP32": "1"},
}
"""Name of a case -> environment variables. Cases whose library is not installed are left out."""


class StepCost(NamedTuple):
    """Cost of one step."""

    user: float
    """Processor time in the program, s."""
    system: float
    """Processor time in the kernel, such as page faults, s."""
    faults: int
    """Page faults."""
    peak_mib: int = 0


def measure() -> dict[str, object]:
    """Medians of all rounds, and the ratio of the processor time to that of the default."""
    cases = {name: env for name, env in CASES.items() if Path(env.get("LD_PRELOAD", "/")).exists()}
    costs: dict[str, list[StepCost]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, env in cases.items():
            child = subprocess.run(
                [sys.executable, "-m", __name__],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env={**os.environ, **env},
            )
            costs[name] += [StepCost(*cost) for cost in json.loads(child.stdout)]
    seconds = {name: median(cost.user + cost.system for cost in own) for name, own in costs.items()}
    rows = {
        name: {
            "seconds": round(seconds[name], 2),
            "ratio": round(seconds[name] / seconds["default"], 2),
            "system seconds": round(median(cost.system for cost in own), 2),
            "page faults": round(median(cost.faults for cost in own)),
            "peak_mib": max(cost.peak_mib for cost in own),
        }
        for name, own in costs.items()
    }
    return {"cases": rows}


def profile(rows: int = 12) -> str:
    """Return the table of the operations that take most of a step."""
    import torch

    step = _make_step()
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiled:
        step()
    return profiled.key_averages(group_by_input_shape=True).table("self_cpu_time_total", rows, 60, 90)


def _make_step() -> Callable[[], None]:
    """Make the network and a batch; the result does one step."""
    import torch

    from deepmtdr.model.deepmtdr import DeepMTDR
    from deepmtdr.model.precision import resolve_precision
    from deepmtdr.recipe import load_recipe
    from deepmtdr.training.backward import backward_by_subnet
    from deepmtdr.training.batches import Batch
    from deepmtdr.training.step_losses import restoration_losses

    torch.set_num_threads(1)
    torch.set_flush_denormal("DEEPMTDR_BENCHMARK_FLUSH" in os.environ)
    torch.manual_seed(0)
    recipe = load_recipe(RECIPE)
    model = DeepMTDR(recipe.model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    side, lesions = recipe.restoration.crop, len(model.labels.lesions)
    hr = torch.rand(BATCH, 3, side, side).to(memory_format=torch.channels_last)
    masks, known = (torch.rand(BATCH, lesions, side, side) > 0.99).float(), torch.ones(BATCH, dtype=torch.bool)
    labels = known[:, None].expand(BATCH, lesions), torch.zeros(BATCH, dtype=torch.long), known
    batch = Batch(hr, hr, masks, *labels, local_mean=torch.full_like(hr, 0.5))
    bf16 = resolve_precision(recipe.precision) == "bf16" and "DEEPMTDR_BENCHMARK_FP32" not in os.environ
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = restoration_losses(model, batch, 4, recipe.restoration.loss)
        backward_by_subnet(losses, model, end_to_end=False)
        optimiser.step()

    return step


def _case() -> list[StepCost]:
    """Cost of each step after a warm-up step, and the process's peak memory."""
    step = _make_step()
    step()
    costs = []
    for _ in range(STEPS):
        before = resource.getrusage(resource.RUSAGE_SELF)
        step()
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        costs.append(StepCost(*used, after.ru_minflt - before.ru_minflt, round(after.ru_maxrss / 1024)))
    return costs


if __name__ == "__main__":
    print(profile() if "profile" in sys.argv else json.dumps(_case()))
