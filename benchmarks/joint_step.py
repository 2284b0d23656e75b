"""Speed and memory of the joint training step (Sec. IV-C, stage 2), with and without Eq. (5).

At the full frame, batch size 1. The second-order term of the classification-aware loss is the expensive part. Each case
runs in a separate process, so that peak memory is measured separately.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median

CASES = {"with Eq. (5)": 10.0, "without Eq. (5)": 0.0}
"""lambda_ca of each case."""
RECIPE = "small"
REPEATS = 3


def measure() -> dict[str, object]:
    """Both cases of the `small` recipe's network at x4, and the ratio of their times."""
    cases = {}
    for name in CASES:
        child = subprocess.run([sys.executable, "-m", __name__, name], stdout=subprocess.PIPE, text=True, check=True)
        cases[name] = json.loads(child.stdout)
    one, other = (cases[name]["seconds"] for name in CASES)
    return {"cases": cases, "ratio of seconds": round(one / other, 2)}


def _case(lambda_ca: float) -> dict[str, float]:
    """Median seconds of a step after a warm-up step, and the process's peak memory in MiB."""
    import torch

    from deepmtdr.model.deepmtdr import DeepMTDR
    from deepmtdr.model.precision import resolve_precision
    from deepmtdr.recipe import load_recipe
    from deepmtdr.training.backward import backward_by_subnet
    from deepmtdr.training.batches import Batch
    from deepmtdr.training.step_losses import joint_losses

    recipe = load_recipe(RECIPE)
    torch.manual_seed(0)
    model, side = DeepMTDR(recipe.model), recipe.data.frame
    masks = (torch.rand(1, len(model.labels.lesions), side, side) > 0.99).float()
    known = torch.ones(1, dtype=torch.bool)
    hr = torch.rand(1, 3, side, side)
    batch = Batch(hr, hr, masks, known.expand(1, masks.shape[1]), torch.tensor([2]), known)
    weights = replace(recipe.joint.loss, lambda_ca=lambda_ca)
    taken = []
    for _ in range(1 + REPEATS):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=resolve_precision(recipe.precision) == "bf16"):
            step = joint_losses(model, batch, 4, weights)
        backward_by_subnet(step, model, end_to_end=True)
        taken.append(time.perf_counter() - begun)
        model.zero_grad(set_to_none=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {"seconds": round(median(taken[1:]), 2), "peak_mib": round(peak)}


if __name__ == "__main__":
    print(json.dumps(_case(CASES[sys.argv[1]])))
