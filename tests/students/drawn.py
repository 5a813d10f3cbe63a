"""Pictures that no encoder has to look at: features drawn from each picture's source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from magister.tasks.images import Image, ImageFault
from torch import Tensor


def pictures_of(levels: Sequence[tuple[int, int]]) -> Callable[[Sequence[Image]], list[Tensor]]:
    """Stands for ``student.features``: ``[B, cells, channels]`` a level; a picture called ``broken`` is a fault."""

    def features(images: Sequence[Image]) -> list[Tensor]:
        if any(image.source == "broken" for image in images):
            raise ImageFault("e", "broken", "broken picture")
        drawn = lambda image, level: torch.randn(*level, generator=torch.Generator().manual_seed(len(image.source)))
        return [torch.stack([drawn(image, level) for image in images]) for level in levels]

    return features


def seen(examples: Sequence[Any], *sources: str) -> list[Any]:
    """The examples with a picture each; an empty source is none."""
    return [
        e.model_copy(update={"images": (Image(source=s),) if s else ()}) for e, s in zip(examples, sources, strict=True)
    ]
