"""Parts of a picture beside the whole: boxes by a rule or by a detector, cut out and encoded as pictures of their own.

The number of parts is fixed and every slot is filled, and boxes are proposed from the picture alone: crops made with
the text's mentions or types in mind give the label away (the released crops of MNRE do).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...tasks.images import Image
from .image import ImageEncoder

#: Corners of a box as shares of the picture's width and height: left, top, right, bottom.
Box = tuple[float, float, float, float]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

#: Side of a salient part, as a share of the picture's.
SALIENT_SIDE = 0.5

#: Boxes that a detector is less sure of than this are left out.
SUREST = 0.3


class RegionEncoder(ImageEncoder):
    """An `ImageEncoder` whose levels hold the cells of the whole picture, then those of each of its parts.

    Args:
        name, grid, depths, pretrained: as `ImageEncoder` has them.
        crops: how many parts.
        proposals: ``grid`` (parts of an even grid), ``salient`` (where the network's last map is strongest), or a
            transformers object detector by name or path. A detector that finds too few leaves the whole picture in
            the slots that remain.

    Attributes:
        levels: ``((1 + crops) * cells, channels)`` of each level.
    """

    def __init__(
        self, name: str, grid: int, depths: int, crops: int, proposals: str = "salient", pretrained: bool = True
    ) -> None:
        super().__init__(name, pretrained=pretrained, grid=grid, depths=depths)
        self.crops, self.proposals = crops, proposals
        self.levels = [((1 + crops) * cells, channels) for cells, channels in self.levels]

    def encode(self, images: Sequence[Image]) -> list[Tensor]:
        """Features of some pictures: one ``[B, (1 + crops) * cells, channels]`` a level, in fp32."""
        if not images:
            return [torch.zeros(0, *level) for level in self.levels]
        device = next(self.network.parameters()).device
        opened = [image.open() for image in images]
        views = [_cut(one, box) for one in opened for box in (WHOLE, *self.boxes(one))]
        pixels = torch.stack([self._preprocess(view) for view in views]).to(device)
        return [level.unflatten(0, (len(images), -1)).flatten(1, 2) for level in self(pixels)]

    @torch.no_grad()
    def boxes(self, picture: Any) -> list[Box]:
        """The boxes of a picture's parts, surest first; as many as there are slots."""
        found = self._propose(picture)[: self.crops]
        return [*found, *[WHOLE] * (self.crops - len(found))]

    def _propose(self, picture: Any) -> list[Box]:
        if self.proposals == "grid":
            return even(self.crops)
        return self._salient(picture) if self.proposals == "salient" else self._detector.boxes(picture)

    def _salient(self, picture: Any) -> list[Box]:
        device = next(self.network.parameters()).device
        last = self._maps(self.network, self._preprocess(picture)[None].to(device), self._indices[-1:])[0][0]
        return salient(last[0].float().abs().mean(0).cpu(), self.crops)

    @cached_property
    def _detector(self) -> Detector:
        return Detector(self.proposals)

    def identity(self) -> str:
        """That of the network, and how parts are proposed."""
        return f"{super().identity()}-{self.crops}-{self.proposals.replace('/', '_')}"


def even(count: int) -> list[Box]:
    """The first ``count`` cells, row by row, of the smallest even grid that has as many."""
    side = next(s for s in range(1, count + 1) if s * s >= count)
    return [(x / side, y / side, (x + 1) / side, (y + 1) / side) for y in range(side) for x in range(side)][:count]


def salient(strength: Tensor, count: int) -> list[Box]:
    """Boxes of `SALIENT_SIDE` of the picture's sides around the strongest cells of a map ``[h, w]``.

    Each next box is put where most is left once what lies inside the earlier ones is taken away (ties: the first in
    reading order). A box stays inside the picture.
    """
    left = strength.clone()
    height, width = left.shape
    rows, columns = (max(1, round(SALIENT_SIDE * n)) for n in (height, width))
    found: list[Box] = []
    for _ in range(count):
        sums = torch.nn.functional.avg_pool2d(left[None, None], (rows, columns), stride=1)[0, 0]
        top, start = divmod(int(sums.flatten().argmax()), sums.shape[1])
        found.append((start / width, top / height, (start + columns) / width, (top + rows) / height))
        left[top : top + rows, start : start + columns] = 0.0
    return found


class Detector:
    """A transformers object detector: boxes of a picture with their labels."""

    def __init__(self, name: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        self.processor = AutoImageProcessor.from_pretrained(name)
        self.model = AutoModelForObjectDetection.from_pretrained(name, use_safetensors=True).eval()

    @torch.no_grad()
    def objects(self, picture: Any) -> list[tuple[Box, str, float]]:
        """Boxes, labels and probabilities, surest first, of those above `SUREST`."""
        said = self.model(**self.processor(images=picture, return_tensors="pt"))
        found = self.processor.post_process_object_detection(said, SUREST, torch.tensor([[1.0, 1.0]]))[0]
        order = found["scores"].argsort(descending=True).tolist()
        names = self.model.config.id2label
        at = lambda i: tuple(float(min(1.0, max(0.0, edge))) for edge in found["boxes"][i])
        return [(at(i), names[int(found["labels"][i])], float(found["scores"][i])) for i in order]  # type: ignore[misc]

    def boxes(self, picture: Any) -> list[Box]:
        """The boxes alone, without those that are all but empty."""
        return [box for box, _, _ in self.objects(picture) if box[2] - box[0] > 0.01 and box[3] - box[1] > 0.01]


def _cut(picture: Any, box: Box) -> Any:
    """The part of a picture in a box; at least a pixel."""
    width, height = picture.size
    left, top = int(box[0] * width), int(box[1] * height)
    right, bottom = max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))
    return picture.crop((left, top, right, bottom))
