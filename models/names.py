"""From a model's name, as recipes and cards keep it, to what ``from_pretrained`` takes on this machine."""

from __future__ import annotations

from .gemma import converted
from .packaged import PACKAGED, folder


def resolve(name: str) -> str:
    """A packaged model's folder for its short name, else the name as it is (a path or a hub name).

    Run folders and cards keep the short name, so that they mean the same on another machine.
    """
    if name == "gemma-270m":
        return str(converted())
    return str(folder(name)) if name in PACKAGED else name
