"""Rules of docs/architecture.md and CONTRIBUTING.md that hold for the whole repository."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

import deepmtdr
from deepmtdr.cli import app

T = TypeVar("T", bound=ast.AST)
ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "deepmtdr"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [
    path
    for folder in ("tests", "docs", "benchmarks", "release", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINES = 400
VERB_LINES = 15
NEVER = {"torchvision", "timm", "segmentation_models_pytorch", "pytorch_grad_cam", "lpips", "piq", "pickle"}
FOREIGN_ATTRIBUTES = {
    # Attributes of other libraries' objects, which not all versions or kinds of the object have.
    "datasets/mask_files.py": {"n_frames"},
    "dicom/deidentify.py": {"file_meta", "TransferSyntaxUID"},
    "dicom/source.py": {"file_meta"},
    "model/precision.py": {"get_capabilities"},
    "photographs/decode.py": {"strerror", "n_frames"},
    "photographs/decode_dicom.py": {"name"},
    "toml_config.py": {"__name__"},
}
"""`getattr` and `hasattr` with a fixed name are allowed for these attributes only. Our own objects have typed seams."""
FILE_WRITERS = {
    "csv_tables.py": {"writer"},
    "files.py": {"fdopen"},
    "dicom/deidentify.py": {"fdopen"},  # a key, created in one step if there is none
    "photographs/decoder_child.py": {"fdopen"},  # a pipe
    "preparation/prepare.py": {"open"},  # a journal, to which rows are appended
    "service/spool.py": {"fdopen"},  # the lock, and objects whose names follow in a second step
    "service/worker_child.py": {"write_text"},  # a file of the kernel
    "training/log.py": {"open"},  # logs, to which rows are appended
    "training/peak_memory.py": {"write_text"},  # a file of the kernel
}
"""Functions that write files besides `write_atomically`, and why."""
FREE_KEYWORDS = {
    # Entries of the checkpoint's card: anything that JSON can hold.
    "checkpoint.py": {"save", "update_card"},
}
"""Functions that may take `**keywords: Any`."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def verbs() -> dict[str, ast.FunctionDef]:
    """Source of each command by its name; hidden commands (old names) are left out."""
    trees = [tree_of(path) for path in SOURCES if path.parent.name == "cli"]
    functions = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = {}
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__
        if not command.hidden:
            found[command.name or name.replace("_", "-")] = functions[name]
    return found


def hidden_verbs() -> set[str]:
    """Old names of commands that still work."""
    return {str(command.name) for command in app.registered_commands if command.hidden}


def nodes(kind: type[T]) -> Iterator[tuple[str, T]]:
    """Every syntax node of a kind in the package, with its file."""
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, kind):
                yield str(path.relative_to(PACKAGE)), node


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def run_in_new_process(program: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_package_is_at_most_two_levels_deep() -> None:
    assert [name_of(path) for path in SOURCES if len(path.relative_to(PACKAGE).parts) > 2] == []


def test_no_file_is_longer_than_the_ceiling() -> None:
    long = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES + SCRIPTS}
    assert {name: lines for name, lines in long.items() if lines > LINES} == {}


def test_nothing_imports_torchvision_or_pickle() -> None:
    assert {name_of(path): hit for path in SOURCES + SCRIPTS if (hit := NEVER.intersection(imports(path)))} == {}


def test_torch_load_always_has_weights_only() -> None:
    loads = [(path, call) for path in SOURCES for call in re.findall(r"torch\.load\([^)]*\)", path.read_text("utf-8"))]
    assert [(name_of(path), call) for path, call in loads if "weights_only=True" not in call] == []


JSON_WITH_NAN = {"experiments/study_runs.py"}
"""Modules whose JSON may contain NaN: scores of a study, which only this module reads."""


def test_json_is_never_written_with_nan() -> None:
    """Without `allow_nan=False`, Python writes NaN and Infinity, which no JSON reader accepts."""
    lenient = set()
    for name, call in nodes(ast.Call):
        function = call.func
        is_writer = isinstance(function, ast.Attribute) and function.attr in ("dump", "dumps")
        if is_writer and isinstance(function.value, ast.Name) and function.value.id == "json":
            strict = [k for k in call.keywords if k.arg == "allow_nan" and isinstance(k.value, ast.Constant)]
            if [k.value.value for k in strict if isinstance(k.value, ast.Constant)] != [False]:
                lenient.add(name)
    assert lenient - JSON_WITH_NAN == set()


def test_every_public_name_can_be_imported_and_is_typed() -> None:
    assert sorted(deepmtdr.__all__) == sorted(deepmtdr._LAZY_NAMES)
    typed = re.search(r"if TYPE_CHECKING:\n((?:    .*\n)+)", (PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert typed is not None
    names = {name for line in re.findall(r"import (.*)", typed[1]) for name in line.split(", ")}
    assert names == set(deepmtdr.__all__)
    for name in deepmtdr.__all__:
        assert getattr(deepmtdr, name) is getattr(importlib.import_module(deepmtdr._LAZY_NAMES[name]), name)
    assert set(deepmtdr.__all__) <= set(dir(deepmtdr))


def test_an_unknown_public_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Grad'.*Grade"):
        _ = deepmtdr.Grad  # type: ignore[attr-defined]


@pytest.mark.parametrize("program", ["import deepmtdr", "import deepmtdr.cli"])
def test_importing_the_package_or_the_cli_does_not_load_torch(program: str, tmp_path: Path) -> None:
    loaded = run_in_new_process(f"{program}; import sys; print(*sys.modules)", tmp_path).split()
    assert not {"torch", "pandas", "matplotlib", "lightning", "scipy"}.intersection(loaded)


def test_help_does_not_load_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from deepmtdr.cli import app\n"
        f"for verb in {['', *verbs(), *hidden_verbs()]!r}:\n"
        "    try: app([*verb.split(), '--help'])\n"
        "    except SystemExit as end: assert not end.code, end\n"
        "    assert 'torch' not in sys.modules, f'{verb} --help imported torch'"
    )
    assert run_in_new_process(program, tmp_path).count("Usage") == 1 + len(verbs()) + len(hidden_verbs())


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
    assert run_in_new_process(program, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_every_verb_has_help_and_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert len(verbs()) >= 10
    assert [verb for verb, function in verbs().items() if len(ast.get_docstring(function) or "") < 20] == []
    assert [verb for verb in verbs() if f"## `deepmtdr {verb}`" not in page] == []


def test_old_names_of_verbs_are_not_in_the_help() -> None:
    text = run_in_new_process("from deepmtdr.cli import app\napp(['--help'], standalone_mode=False)", ROOT)
    assert re.search("^│ grade ", text, re.MULTILINE)
    assert {verb for verb in hidden_verbs() if re.search(rf"^│ {verb} ", text, re.MULTILINE)} == set()


def test_every_verb_is_a_thin_layer() -> None:
    bodies = {verb: function.body[1:] for verb, function in verbs().items()}  # [0] is the docstring
    lines = {verb: (body[-1].end_lineno or 0) - body[0].lineno + 1 for verb, body in bodies.items()}
    assert {verb: count for verb, count in lines.items() if count > VERB_LINES} == {}


def test_attributes_are_not_looked_up_by_name_instead_of_type() -> None:
    found = defaultdict(set)
    for file, call in nodes(ast.Call):
        by_name = isinstance(call.func, ast.Name) and call.func.id in ("getattr", "hasattr", "setattr")
        if by_name and len(call.args) > 1 and isinstance(call.args[1], ast.Constant):
            found[file].add(call.args[1].value)
    assert {
        file: names for file, known in found.items() if (names := known - FOREIGN_ATTRIBUTES.get(file, set()))
    } == {}


def test_files_and_csv_tables_are_written_by_the_functions_for_it() -> None:
    """`write_atomically` is durable and follows no planted link; `format_table` leaves no formula in a CSV."""
    found = defaultdict(set)
    for file, call in nodes(ast.Call):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        is_open = name in ("open", "fdopen") and any(re.fullmatch("[rbt]*[wax+][bt+]*", mode) for mode in modes)
        if is_open or name in ("write_text", "write_bytes", "writer", "DictWriter", "to_csv", "savefig", "save_file"):
            found[file].add(name)
    assert {file: names for file, known in found.items() if (names := known - FILE_WRITERS.get(file, set()))} == {}


def test_functions_name_their_keywords() -> None:
    found = defaultdict(set)
    for file, function in nodes(ast.FunctionDef):
        keywords = function.args.kwarg
        if keywords is not None and ast.unparse(keywords.annotation or ast.Name("Any")) == "Any":
            found[file].add(function.name)
    assert not any(names - FREE_KEYWORDS.get(file, set()) for file, names in found.items()), found


def test_every_class_name_exists_once() -> None:
    files = defaultdict(list)
    for file, node in nodes(ast.ClassDef):
        if not node.name.startswith("_"):
            files[node.name].append(file)
    assert {name: found for name, found in files.items() if len(found) > 1} == {}


def test_docs_name_only_verbs_that_exist() -> None:
    named = {
        (page.name, verb)
        for page in PAGES
        for block in re.findall(
            r"```(?:\w+)?\n(.*?)```|`(deepmtdr [^`]*)`", page.read_text(encoding="utf-8"), re.DOTALL
        )
        for verb in re.findall(r"^(?:\S*/)?deepmtdr ([a-z][a-z-]*)", "".join(block), re.MULTILINE)
    }
    old_names_allowed = {("CHANGELOG.md", verb) for verb in hidden_verbs()}
    assert {name for name in named - old_names_allowed if name[1] not in verbs()} == set()


def test_links_in_docs_lead_to_files_that_exist() -> None:
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


@pytest.mark.parametrize(("page", "count"), [("README.md", 1), ("docs/tutorial.md", 3)])
def test_python_in_the_docs_runs(page: str, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(page)
    assert len(blocks) == count
    for block in blocks:
        exec(compile(block, page, "exec"), {"__name__": "docs"})


def test_version_is_the_same_everywhere() -> None:
    assert importlib.metadata.version("deepmtdr") == deepmtdr.__version__
    assert f"\nversion: {deepmtdr.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {deepmtdr.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_name_no_host_and_no_local_build() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in pins
    assert [pin for pin in pins if not re.fullmatch(r"#.*|[\w.\-]+==[\w.]+", pin)] == []
