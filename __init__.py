"""Magister turns what a multimodal LLM knows into compact students for multimodal knowledge graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .extraction import Product as Product
    from .extraction import extract as extract
    from .students import load as load
    from .tasks.readers import read as read
    from .teachers.spec import teacher as teacher

#: The front door: public name to the module that holds it, imported when it is first asked for.
_DOORS = {
    "Product": ".extraction",
    "extract": ".extraction",
    "load": ".students",
    "read": ".tasks.readers",
    "teacher": ".teachers.spec",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module
    from importlib.metadata import version

    if name == "__version__":
        return version("magister")
    if name in _DOORS:
        return getattr(import_module(_DOORS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_DOORS])
