"""Run the benchmarks of this folder and write their results to out/bench/NAME.json: `make bench`.

Each benchmark is a module with a function `measure() -> dict`. Variants are compared within one run, so that their
ratios hold on any machine. `python -m benchmarks --quick metrics` runs a part that takes about a minute, for benchmarks
whose `measure` has a parameter `quick`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import platform
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent


def machine() -> dict[str, object]:
    """Hardware and versions, on which the results depend."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.platform(), **versions}


def main(names: list[str]) -> None:
    """Run the benchmarks of the given names, or all."""
    quick = "--quick" in names
    names = [name for name in names if name != "--quick"]
    known = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    if unknown := set(names) - set(known):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    out = Path("out/bench")
    out.mkdir(parents=True, exist_ok=True)
    for name in names or known:
        measure = importlib.import_module(f"benchmarks.{name}").measure
        results = measure(quick=quick) if "quick" in inspect.signature(measure).parameters else measure()
        text = json.dumps({"benchmark": name, "machine": machine(), **results}, indent=2)
        (out / f"{name}.json").write_text(text + "\n")
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
