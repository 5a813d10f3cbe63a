"""What a student sees by: an image encoder, one that cuts out parts, or a reader of captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from .captions import PREFIX, CaptionEncoder
from .image import ImageEncoder
from .regions import RegionEncoder


class Sight(Protocol):
    """Features of pictures (or of what stands for them).

    Attributes:
        levels: ``(cells, channels)`` of each level.
    """

    levels: list[tuple[int, int]]

    def encode(self, images: Sequence[Any]) -> list[Tensor]:
        """One ``[B, cells, channels]`` a level, in fp32."""
        ...


def sight(name: str, grid: int, depths: int, crops: int = 0, proposals: str = "salient") -> Sight:
    """The encoder of that name (``caption:TEXT_ENCODER``, or an image encoder's); with ``crops`` parts of a picture."""
    if reads_captions(name):
        return CaptionEncoder(name, grid, depths, crops)
    if crops:
        return RegionEncoder(name, grid, depths, crops, proposals)
    return ImageEncoder(name, grid=grid, depths=depths)


def reads_captions(name: str | None) -> bool:
    """Whether an image encoder of that name reads captions instead."""
    return bool(name) and str(name).startswith(PREFIX)
