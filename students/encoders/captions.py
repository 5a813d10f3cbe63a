"""A picture's caption in the picture's place: the states of its words are the cells that a fusion looks at.

For data sets whose pictures are gone and whose captions are left. A student that reads them sees words, not pixels, and
its records say so (``caption:minilm``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import text

#: How an image encoder's name begins if it reads captions; the rest names a text encoder.
PREFIX = "caption:"

#: The side text that is read.
CAPTION = "caption"


class CaptionEncoder:
    """A frozen text encoder with the face of an image encoder; it is no module: no student trains it or keeps it.

    Its levels are states at even depths of the encoder, averaged over as many even pieces of the caption as there are
    cells; parts of the "picture" are even pieces of the caption. The last level holds means over the whole caption and
    over each part. What it said of a caption is remembered.

    Args:
        name: ``caption:`` and a text encoder by name or path.
        grid, depths: as `image.ImageEncoder` has them: ``grid * grid`` cells, ``depths`` levels of them.
        crops: how many parts.

    Attributes:
        levels: ``((1 + crops) * cells, channels)`` of each level.
    """

    def __init__(self, name: str, grid: int, depths: int, crops: int = 0) -> None:
        self._encoder = text.load(name.removeprefix(PREFIX)).eval().requires_grad_(False)
        self.cells, self.depths, self.crops = grid * grid, depths, crops
        width = self._encoder.hidden
        self.levels = [*[((1 + crops) * self.cells, width)] * depths, (1 + crops, width)]
        self._said: dict[str, list[Tensor]] = {}

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Features of some captions: one ``[B, (1 + crops) * cells, channels]`` a level, in fp32."""
        for caption in captions:
            if caption not in self._said:
                self._said[caption] = self._read(caption)
        return [torch.stack([self._said[c][n].float() for c in captions]) for n in range(len(self.levels))]

    @torch.no_grad()
    def _read(self, caption: str) -> list[Tensor]:
        encoder = self._encoder
        pieces = encoder.sub_tokens.text(caption)[: encoder.limit - 2]
        first = [] if encoder.sub_tokens.first is None else [encoder.sub_tokens.first]
        ids = torch.tensor([[*first, *pieces, encoder.sub_tokens.separator]])
        with torch.autocast(ids.device.type, enabled=False):  # whoever reads it first, it says the same
            states = encoder.plain(input_ids=ids, output_hidden_states=True).hidden_states[1:]
        inside = slice(len(first), max(len(first) + 1, ids.shape[1] - 1))
        at = [len(states) * (n + 1) // self.depths - 1 for n in range(self.depths)]
        words = [states[i][0, inside] for i in at]
        levels = [torch.cat([_pooled(part, self.cells) for part in self._parts(level)]) for level in words]
        return [level.half() for level in [*levels, torch.cat([_pooled(part, 1) for part in self._parts(words[-1])])]]

    def _parts(self, words: Tensor) -> list[Tensor]:
        """The whole, then its even pieces; a caption of fewer words than pieces gives some words to several."""
        count = len(words)
        edges = [(k * count // self.crops, max(-(-(k + 1) * count // self.crops), 1)) for k in range(self.crops)]
        return [words, *(words[a:b] for a, b in edges)]


def _pooled(words: Tensor, cells: int) -> Tensor:
    """``[n, d]`` to ``[cells, d]``: means of even pieces, repeated where there are fewer words than cells."""
    return F.adaptive_avg_pool1d(words.T[None], cells)[0].T
