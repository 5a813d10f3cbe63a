"""Where a run or a record comes from: command, revision, versions."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import checkpoint
from .recipe import Recipe

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "datasets",
    "timm",
    "open_clip_torch",
)


def write(path: Path, recipe: Recipe, counts: dict[str, int]) -> None:
    """Write the origin of a run beside its recipe; a sitting that goes on adds itself."""
    sittings = json.loads(path.read_text())["sittings"] if path.exists() else []
    sittings.append({"command": command(), "revision": revision(), "packages": packages()})
    checkpoint.write(path, json.dumps({"counts": counts, "seed": recipe.seed, "sittings": sittings}, indent=1).encode())


def command() -> str:
    """The command line of this process, the program without its folder."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def revision() -> str:
    """The git revision of the package's own folder, ``+changes`` where files differ from it, or
    ``unknown``.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def packages() -> dict[str, Any]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
