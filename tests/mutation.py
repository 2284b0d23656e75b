"""Mutation testing: change the code in one place, and see whether a fast test fails.

    .venv/bin/python tests/mutation.py coverage                 # once: which test runs which line
    .venv/bin/python tests/mutation.py run --sample 200 --jobs 2

`coverage` runs the fast tests under coverage.py and writes `out/mutation/lines.json`. `run` draws a sample of mutants
with a fixed seed, runs for each the fast tests that execute the changed line (those of the module's own test file
first), and writes `out/mutation/results.csv`, one row for each mutant: killed, survived, or not covered. It can be
stopped and started again: finished mutants are not repeated.

Mutants are made in `model/`, the losses, `training/step_losses.py`, `training/backward.py` and `evaluation/`.
Docstrings, annotations, decorators, error messages and `raise` statements are left alone.
"""

from __future__ import annotations

import argparse
import ast
import copy
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
OUT = ROOT / "out" / "mutation"
TARGETS = (
    "model/*.py",
    "losses.py",
    "grading_losses.py",
    "training/step_losses.py",
    "training/backward.py",
    "evaluation/*.py",
)
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
TESTS = (
    "model",
    "evaluation",
    "metrics",
    "calibration",
    "test_losses.py",
    "test_grading_losses.py",
    "test_systems.py",
    "training/test_step*.py",
    "training/test_backward.py",
)
"""The tests that are run: those of the code that is mutated."""
MAX_SECONDS = 20.0
"""Tests of one mutant are chosen up to this total duration."""


class Mutant(NamedTuple):
    """One change: which node of a file, in the order of `ast.walk`, and what is done to it."""

    file: str
    line: int
    node: int
    kind: str
    change: str


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = _left_alone(tree)
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in kept or not hasattr(node, "lineno"):
            continue
        for kind, mutate in _changes(node):
            changed = mutate(copy.deepcopy(node))
            change = f"{_text(node)} -> {_text(changed)}"
            yield Mutant(str(path.relative_to(ROOT)), node.lineno, index, kind, change)


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:100]


def _left_alone(tree: ast.AST) -> set[int]:
    """Nodes inside annotations, docstrings, raise statements, imports, `__all__` and formatted strings."""
    kept: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr):
            parts = [node]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.ClassDef):
            parts = [*node.decorator_list]
        elif isinstance(node, ast.FunctionDef):
            parts = [
                node.returns,
                *node.decorator_list,
                *(a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)),
            ]
        elif _is_not_code(node):
            parts = [node]
        kept.update(id(inner) for part in parts if part is not None for inner in ast.walk(part))
    return kept


def _is_not_code(node: ast.AST) -> bool:
    """Docstrings, `__all__`, and imports for type checkers."""
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """What can be done to a node."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "boolean", lambda n: ast.Constant(not n.value)  # type: ignore[attr-defined]
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield "number", lambda n: ast.Constant(n.value + 1)  # type: ignore[attr-defined]
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield "number", lambda n: ast.Constant(n.value * 0.5 if n.value else 1.0)  # type: ignore[attr-defined]
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPPED:
        yield "operator", _swap_operator
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED:
        yield "comparison", _swap_comparison
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "unary", lambda n: n.operand  # type: ignore[attr-defined]
    elif isinstance(node, ast.Call):
        plain = [a for a in node.args if not isinstance(a, ast.Starred)]
        if len(plain) >= 2 and ast.dump(plain[0]) != ast.dump(plain[1]):
            yield "arguments swapped", _swap_arguments
        if node.keywords and node.keywords[-1].arg:
            yield "keyword dropped", _drop_keyword
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call | ast.Subscript | ast.BinOp):
            yield "method call removed", lambda n: n.func.value  # type: ignore[attr-defined]
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "statement removed", lambda n: ast.Pass()


def _swap_operator(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.BinOp | ast.BoolOp)
    node.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]
    return node


def _swap_comparison(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Compare)
    node.ops = [SWAPPED[type(node.ops[0])]()]  # type: ignore[list-item]
    return node


def _swap_arguments(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Call)
    first, second = [i for i, a in enumerate(node.args) if not isinstance(a, ast.Starred)][:2]
    node.args[first], node.args[second] = node.args[second], node.args[first]
    return node


def _drop_keyword(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Call)
    node.keywords = node.keywords[:-1]
    return node


def mutated_source(mutant: Mutant) -> str:
    """The file's source with the mutant's change."""
    tree = ast.parse((ROOT / mutant.file).read_text(encoding="utf-8"))
    target = list(ast.walk(tree))[mutant.node]
    mutate = dict(_changes(target))[mutant.kind]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return mutate(node) if node is target else super().generic_visit(node)

    return ast.unparse(ast.fix_missing_locations(Replace().visit(tree)))


def measure_coverage() -> None:
    """Run the fast tests under coverage.py; keep the tests of each line and the duration of each test."""
    OUT.mkdir(parents=True, exist_ok=True)
    config = OUT / "coveragerc"
    config.write_text(f"[run]\ndata_file = {OUT / 'coverage'}\ndynamic_context = test_function\nsource = {SOURCE}\n")
    program = f"{sys.executable} -m coverage run --rcfile={config} -m pytest -q -n0 -p mutation".split()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT / 'tests'}",
        "DURATIONS": str(OUT / "durations.json"),
    }
    tests = sorted(str(path) for name in TESTS for path in (ROOT / "tests").glob(name))
    subprocess.run([*program, *tests], cwd=ROOT, env=environment, check=False)
    import coverage

    data = coverage.CoverageData(str(OUT / "coverage"))
    data.read()
    lines = {
        str(path.relative_to(ROOT)): {
            line: sorted({context for context in contexts if context})
            for line, contexts in data.contexts_by_lineno(str(path)).items()
        }
        for path in target_files()
    }
    (OUT / "lines.json").write_text(json.dumps(lines))


def pytest_runtest_logreport(report) -> None:  # type: ignore[no-untyped-def]
    """As a pytest plugin: keep each test's node id and duration."""
    if report.when == "call" and "DURATIONS" in os.environ:
        path = Path(os.environ["DURATIONS"])
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | {report.nodeid: report.duration}))


def target_files() -> list[Path]:
    """The files that are mutated."""
    package = SOURCE / "deepmtdr"
    return sorted(path for pattern in TARGETS for path in package.glob(pattern) if path.name != "__init__.py")


def draw_sample(count: int, seed: int) -> list[Mutant]:
    """Equally many of each kind of change; the same sample for the same code, count and seed."""
    kinds: dict[str, list[Mutant]] = {}
    for mutant in (mutant for path in target_files() for mutant in mutants(path)):
        kinds.setdefault(mutant.kind, []).append(mutant)
    generator, each = random.Random(seed), -(-count // len(kinds))
    drawn = [m for _, found in sorted(kinds.items()) for m in generator.sample(found, min(each, len(found)))]
    return sorted(generator.sample(drawn, min(count, len(drawn))))


def choose_tests(mutant: Mutant, lines: dict[str, dict[str, list[str]]], durations: dict[str, float]) -> list[str]:
    """Node ids of the tests that run the changed line: the module's own test file first, then the quickest.

    A line that runs when the module is imported belongs to no test: all tests of the file's other lines are taken.
    """
    of_file = lines.get(mutant.file, {})
    contexts = of_file.get(str(mutant.line)) or [context for found in of_file.values() for context in found]
    covering = {".".join(context.split(".")[-2:]) for context in contexts}
    own = f"test_{Path(mutant.file).stem}.py"
    found = []
    for node, seconds in durations.items():
        file, _, name = node.partition("::")
        if f"{Path(file).stem}.{name.partition('[')[0]}" in covering:
            found.append((not file.endswith(own), seconds, node))
    chosen, total = [], 0.0
    for _, seconds, node in sorted(found):
        if total + seconds <= MAX_SECONDS:
            chosen.append(node)
            total += seconds
    return chosen


def try_mutant(mutant: Mutant, tests: list[str]) -> str:
    """Run the tests on a copy of the package with the change: "killed", "survived" or "not covered"."""
    if not tests:
        return "not covered"
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "src"
        shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
        weights = Path("deepmtdr", "weights")
        for file in (SOURCE / weights).glob("*.safetensors"):
            (package / weights / file.name).symlink_to(file)
        (package / Path(mutant.file).relative_to("src")).write_text(mutated_source(mutant), encoding="utf-8")
        program = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-n0",
            "-p",
            "no:cacheprovider",
            f"--basetemp={folder}/t",
        ]
        environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [*program, *tests], cwd=ROOT, env=environment, capture_output=True, timeout=20 * MAX_SECONDS
            )
        except subprocess.TimeoutExpired:
            return "killed"
    return "survived" if done.returncode == 0 else "killed"


def run(count: int, seed: int, jobs: int) -> None:
    """Try every mutant of the sample, and print the share that is killed."""
    lines = json.loads((OUT / "lines.json").read_text())
    durations = json.loads((OUT / "durations.json").read_text())
    path = OUT / "results.csv"
    done = {tuple(row[:5]) for row in csv.reader(path.open())} if path.exists() else set()
    sample = draw_sample(count, seed)
    waiting = [m for m in sample if tuple(map(str, m)) not in done]
    random.Random(seed).shuffle(waiting)  # so that the part done so far is a random sample too

    def one(mutant: Mutant) -> None:
        started = time.monotonic()
        result = try_mutant(mutant, choose_tests(mutant, lines, durations))
        with path.open("a", newline="") as file:
            csv.writer(file).writerow([*mutant, result, f"{time.monotonic() - started:.0f}"])

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, waiting))
    wanted = {tuple(map(str, m)) for m in sample}
    results = [row[5] for row in csv.reader(path.open()) if tuple(row[:5]) in wanted]
    print(f"{results.count('killed')} of {len(results)} mutants killed, {results.count('survived')} survived, "
          f"{results.count('not covered')} not covered")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["coverage", "run", "list"])
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if options.what == "coverage":
        measure_coverage()
    elif options.what == "list":
        print(*draw_sample(options.sample, options.seed), sep="\n")
    else:
        run(options.sample, options.seed, options.jobs)
