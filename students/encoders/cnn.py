"""The text CNN of Kim (EMNLP 2014): convolutions over windows of words, and a maximum over the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class KimCNN(nn.Module):
    """``t_f = max_i relu(w_f . [x_i; ...; x_{i+k-1}] + b_f)`` for the filters ``f`` of each window width ``k``.

    A text is read as if blank words stood around it: each window holds at least one of its words.

    Args:
        width: of a word's vector.
        windows: words that a filter sees at once.
        filters: how many there are, in equal parts for each window (the first one takes the rest).
    """

    def __init__(self, width: int, windows: Sequence[int], filters: int) -> None:
        super().__init__()
        each, rest = divmod(filters, len(windows))
        if not each:
            raise ValueError(f"{filters} filters are not enough for {len(windows)} windows")
        self.windows = tuple(windows)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, each + (rest if i == 0 else 0), k, padding=k - 1) for i, k in enumerate(windows)
        )

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """``[B, filters]`` of word vectors ``[B, T, width]``; zeros for a text without words.

        Args:
            vectors: what they say under the padding does not matter.
            mask: ``[B, T]``, true at the words, which stand without a gap.
        """
        mask = mask.bool()
        read = vectors.masked_fill(~mask[..., None], 0.0).transpose(1, 2)
        found = []
        for span, convolution in zip(self.windows, self.convolutions, strict=True):
            # Window i holds the words i - span + 1 ... i; it counts if one of them is there.
            ends = nn.functional.pad(mask.float(), (span - 1, span - 1)).unfold(1, span, 1).amax(-1) > 0
            found.append(convolution(read).relu().masked_fill(~ends[:, None], 0.0).amax(-1))
        return torch.cat(found, 1)
