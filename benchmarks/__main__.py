"""`make bench`: run every benchmark of this folder and keep its figures as out/bench/<name>.json.

Each benchmark is a module with `measure() -> dict`; what it compares is measured side by side in the same run, so that
the ratios mean something on any machine. `python -m benchmarks --quick metrics` runs what of it takes a minute, where
`measure` knows the word `quick`.
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
    """What the figures depend on."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.platform(), **versions}


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all."""
    quick = "--quick" in names
    names = [name for name in names if name != "--quick"]
    known = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    if unknown := set(names) - set(known):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    out = Path("out/bench")
    out.mkdir(parents=True, exist_ok=True)
    for name in names or known:
        measure = importlib.import_module(f"benchmarks.{name}").measure
        figures = measure(quick=quick) if "quick" in inspect.signature(measure).parameters else measure()
        text = json.dumps({"benchmark": name, "machine": machine(), **figures}, indent=2)
        (out / f"{name}.json").write_text(text + "\n")
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
