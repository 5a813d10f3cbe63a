"""What is added to a backbone's input vectors: the casing of words, and the marks around a pair's mentions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..collate import MARKERS, shape_count


class InputShapes(nn.Module):
    """A learned vector for each shape of a word (`collate.shape`) and for each mark (`collate.MARKERS`).

    Words' shapes begin at zero, as a backbone that was never told of them; marks begin apart from one another.

    Args:
        width: of an input vector.
        words: whether words' shapes are told.
        marks: whether there are marks.
    """

    def __init__(self, width: int, words: bool, marks: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape_count(), width)) if words else None
        self.marks = nn.Parameter(0.02 * torch.randn(len(MARKERS), width)) if marks else None

    def forward(self, shapes: Tensor) -> Tensor | None:
        """``[R, T]`` to ``[R, T, width]``, or None where nothing is told."""
        parts = []
        if self.weight is not None:
            parts.append(F.embedding(shapes * (shapes < shape_count()), self.weight, padding_idx=0))
        if self.marks is not None:
            mark = (shapes - shape_count()).clamp(min=0)
            parts.append(F.embedding(mark, self.marks) * (shapes >= shape_count())[..., None])
        return torch.stack(parts).sum(0) if parts else None
