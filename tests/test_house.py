"""The house rules of docs/architecture.md and CONTRIBUTING.md, each as a claim that can fail."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import deepmtdr

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "deepmtdr"
SOURCES = sorted(PACKAGE.rglob("*.py"))
EVERYTHING = SOURCES + [
    path for room in ("tests", "docs", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINES = 400
VERB_LINES = 15
NEVER = {"torchvision", "timm", "segmentation_models_pytorch", "pytorch_grad_cam", "lpips", "piq", "pickle"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def verbs() -> dict[str, ast.FunctionDef]:
    """Each function of cli/ that is decorated as a command, by the verb a person types."""
    found = {}
    sources = (path.read_text(encoding="utf-8") for path in sorted((PACKAGE / "cli").glob("*.py")))
    for node in (node for source in sources for node in ast.parse(source).body):
        if isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(d) for d in node.decorator_list):
            named = [d.args[0].value for d in node.decorator_list if isinstance(d, ast.Call) and d.args]  # type: ignore[union-attr]
            found[named[0] if named else node.name.replace("_", "-")] = node
    return found


def in_a_fresh_python(program: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_package_is_at_most_two_levels_deep() -> None:
    assert [name_of(path) for path in SOURCES if len(path.relative_to(PACKAGE).parts) > 2] == []


def test_no_file_is_longer_than_the_ceiling() -> None:
    long = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING}
    assert {name: lines for name, lines in long.items() if lines > LINES} == {}


def test_nothing_imports_torchvision_or_pickle() -> None:
    assert {name_of(path): hit for path in EVERYTHING if (hit := NEVER.intersection(imports(path)))} == {}


def test_torch_load_is_never_let_unpickle() -> None:
    loads = [(path, call) for path in SOURCES for call in re.findall(r"torch\.load\([^)]*\)", path.read_text("utf-8"))]
    assert [(name_of(path), call) for path, call in loads if "weights_only=True" not in call] == []


def test_every_public_name_can_be_imported() -> None:
    assert sorted(deepmtdr.__all__) == sorted(deepmtdr._LAZY_NAMES)
    for name in deepmtdr.__all__:
        assert getattr(deepmtdr, name) is getattr(importlib.import_module(deepmtdr._LAZY_NAMES[name]), name)
    assert set(deepmtdr.__all__) <= set(dir(deepmtdr))


def test_an_unknown_public_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Grad'.*Grade"):
        _ = deepmtdr.Grad  # type: ignore[attr-defined]


@pytest.mark.parametrize("program", ["import deepmtdr", "import deepmtdr.cli"])
def test_importing_the_package_or_the_cli_leaves_torch_alone(program: str, tmp_path: Path) -> None:
    loaded = in_a_fresh_python(f"{program}; import sys; print(*sys.modules)", tmp_path).split()
    assert not {"torch", "pandas", "matplotlib", "lightning", "scipy"}.intersection(loaded)


def test_help_leaves_torch_alone(tmp_path: Path) -> None:
    for verb in ["", *verbs()]:
        program = (
            "import sys; from deepmtdr.cli import app\n"
            f"try: app({[*verb.split(), '--help']!r})\n"
            "except SystemExit as end: assert not end.code, end\n"
            "assert 'torch' not in sys.modules, 'torch was imported'"
        )
        assert "Usage" in in_a_fresh_python(program, tmp_path)


def test_no_import_has_a_side_effect(tmp_path: Path) -> None:
    modules = [module_of(path) for path in SOURCES if path.stem != "__main__"]
    program = (
        "import importlib, os, random, sys, threading, numpy, pydicom, torch, rich.progress\n"
        "state = lambda: (os.getcwd(), dict(os.environ), random.getstate(), torch.get_default_dtype(),\n"
        "    torch.get_num_threads(), torch.initial_seed(), torch.is_grad_enabled(), threading.active_count(),\n"
        "    str(numpy.random.get_state()), numpy.geterr(), list(sys.path))\n"
        "before = state()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "changed = [i for i, (a, b) in enumerate(zip(before, state())) if a != b]\n"
        "assert not changed, changed"
    )
    assert in_a_fresh_python(program, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_every_verb_has_help_and_stands_in_the_docs() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert verbs()
    assert [verb for verb, function in verbs().items() if len(ast.get_docstring(function) or "") < 20] == []
    assert [verb for verb in verbs() if f"## `deepmtdr {verb}`" not in page] == []


def test_every_verb_is_a_thin_door() -> None:
    bodies = {verb: function.body[1:] for verb, function in verbs().items()}  # [0] is the docstring
    lines = {verb: (body[-1].end_lineno or 0) - body[0].lineno + 1 for verb, body in bodies.items()}
    assert {verb: count for verb, count in lines.items() if count > VERB_LINES} == {}


def test_docs_name_only_verbs_that_exist() -> None:
    named = {
        (page.name, verb)
        for page in PAGES
        for block in re.findall(
            r"```(?:\w+)?\n(.*?)```|`(deepmtdr [^`]*)`", page.read_text(encoding="utf-8"), re.DOTALL
        )
        for verb in re.findall(r"^(?:\S*/)?deepmtdr ([a-z][a-z-]*)", "".join(block), re.MULTILINE)
    }
    assert {name for name in named if name[1] not in verbs()} == set()


def test_docs_link_only_to_what_exists() -> None:
    for page in PAGES:
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
        assert missing == [], f"{page.name} links to {missing}"


def test_readme_maps_the_paper_to_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\|[^|]*\|[^|]*\|\s*`([^`|]+)`\s*\|$", readme.split("## From the paper to the code")[1], re.MULTILINE
    )
    assert len(rows) >= 10
    assert [row for row in rows if not (PACKAGE / row).exists()] == []


def test_docs_name_only_python_objects_that_exist() -> None:
    for page in PAGES:
        for dotted in set(re.findall(r"`(deepmtdr(?:\.\w+)+)`", page.read_text(encoding="utf-8"))):
            home, _, name = dotted.rpartition(".")
            found = dotted in map(module_of, SOURCES) or hasattr(importlib.import_module(home), name)
            assert found, f"{page.name} names {dotted}"


def test_python_of_the_tutorial_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/tutorial.md", "exec"), {"__name__": "tutorial"})


def test_version_is_said_once() -> None:
    assert importlib.metadata.version("deepmtdr") == deepmtdr.__version__
    assert f"\nversion: {deepmtdr.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {deepmtdr.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_name_no_host_and_no_local_build() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in pins
    assert [pin for pin in pins if not re.fullmatch(r"#.*|[\w.\-]+==[\w.]+", pin)] == []
