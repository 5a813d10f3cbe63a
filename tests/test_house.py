"""The house: floors, no circles, the package list, light imports, the wheel."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "tasks": 1,
    "models": 1,
    "prompts": 2,
    "eval": 2,
    "teachers": 3,
    "students": 3,
    "distill": 4,
    "extraction": 5,
    "demo": 6,
    "cli": 7,
    "__init__": 8,
}
#: Heavy packages that the light part of Magister must not import.
HEAVY = ("torch", "transformers", "datasets", "vllm", "pyarrow", "timm", "open_clip", "onnxruntime", "PIL.ImageShow")


def sources() -> list[Path]:
    """The package's Python files: tracked rooms, not tests, benchmarks or build leftovers."""
    outside = {"tests", "benchmarks", "build", "dist", ".venv", ".venv-vllm", "docs", "runs"}
    return [p for p in sorted(ROOT.rglob("*.py")) if p.relative_to(ROOT).parts[0] not in outside]


def module(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def imports(path: Path) -> list[tuple[str, ...]]:
    """The modules of this package that a file imports, also inside functions, as paths from the root."""
    package = path.relative_to(ROOT).parts[:-1]
    found: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if not isinstance(node, ast.ImportFrom):
            if isinstance(node, ast.Import):
                found += [tuple(a.name.split(".")[1:]) for a in node.names if a.name.startswith("magister.")]
            continue
        if node.level:
            base = package[: len(package) - node.level + 1]
        elif (node.module or "").split(".")[0] == "magister":
            base = ()
        else:
            continue
        tail = tuple((node.module or "").split(".")) if node.module else ()
        if not node.level:
            tail = tail[1:]
        target = base + tail
        for alias in node.names:
            child = ROOT.joinpath(*target, alias.name)
            is_module = child.with_suffix(".py").exists() or (child / "__init__.py").exists()
            found.append((*target, alias.name) if is_module else target)
    return [f for f in found if f]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    room = module(path)[0]
    assert room in FLOORS, f"{room} is no room of the house"
    for target in imports(path):
        there = target[0]
        assert there == room or FLOORS[there] < FLOORS[room], f"{path}: {room} must not import {'.'.join(target)}"


def test_no_circles() -> None:
    graph = {module(p): {t for t in imports(p) if t != module(p)} for p in sources() if p.name != "__init__.py"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {error.args[1]}")


def test_package_list_is_complete() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {p.parent.relative_to(ROOT).parts for p in sources() if p.name != "setup.py"}
    assert listed == {".".join(("magister", *f)) for f in folders}


@pytest.mark.parametrize(
    "light",
    [
        "magister",
        "magister.cli",
        "magister.tasks.readers",
        "magister.prompts.render",
        "magister.prompts.parse",
        "magister.prompts.lint",
        "magister.eval.score",
        "magister.eval.report",
        "magister.teachers.engines.openai",
        "magister.teachers.ledger.ledger",
        "magister.teachers.spec",
        "magister.teachers.generation.generate",
        "magister.models.packaged",
    ],
)
def test_light_imports(light: str) -> None:
    code = f"import sys, {light}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_name_shadows_a_package() -> None:
    """A room named like a package we import would shadow it for whoever runs Python from the root."""
    taken = {"datasets", "evaluate", "tokenizers", "transformers", "torch", "peft", "accelerate", "jinja2", "rich"}
    assert not {p.stem if p.parent == ROOT else module(p)[0] for p in sources()} & taken


def test_the_wheel_works(tmp_path: Path) -> None:
    """Build the wheel, import it from elsewhere: every template, recipe and sample is inside."""
    kept_out = shutil.ignore_patterns(
        ".venv*", ".git", "build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache"
    )
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=kept_out)  # a build leaves files behind
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(source)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    suffixes = {".jinja", ".yaml", ".jsonl", ".png", ".jpg"}
    rooms = {"prompts", "distill", "tasks", "demo"}
    data = [p for p in ROOT.rglob("*") if p.suffix in suffixes and p.relative_to(ROOT).parts[0] in rooms]
    assert data
    missing = [str(p.relative_to(ROOT)) for p in data if f"magister/{p.relative_to(ROOT).as_posix()}" not in names]
    assert not missing
    assert not [n for n in names if n.startswith("magister/tests")]
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import magister, magister.cli, magister.tasks.readers; print(magister.__file__)"
    out = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(tmp_path / 'site'), *site()]!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert str(tmp_path) in out.stdout


def site() -> list[str]:
    return [p for p in sys.path if p.endswith("site-packages")]
