"""Modality attention: each word weighs itself, its letters and the picture; BiLSTM, CRF (Moon et al., NAACL 2018)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ..fusion.by_dimension import DimensionAttention
from ..system import Picture
from .words import WordTagger, WordTaggerConfig


class ModalityAttentionConfig(WordTaggerConfig):
    """What a `ModalityTagger` is made of.

    Attributes:
        width: of the word, its letters and the picture when they are weighed.
        attention: whether they are weighed; without, the BiLSTM reads them side by side.
        bounded: whether the weights are those of the paper, none of which can come near 0 (`fusion.by_dimension`).
    """

    width: int = Field(100, ge=1)
    attention: bool = True
    bounded: bool = True


class ModalityTagger(WordTagger):
    """Word, letters and the whole picture as vectors of one width; the BiLSTM reads their weighed sum.

    Text: word vectors of its own with a reader of letters (`encoders.words`); casing, where ``word_shapes`` says so,
    counts with the letters. Picture: the frozen encoder's own vector of the whole, the same for every word. It is
    constant over the post, so a bias could stand in for it: exchange the pictures at test to see whether it is read.
    The words of side texts weigh the picture as those of the post do.
    """

    NAME = "modality_attention"
    Config = ModalityAttentionConfig
    GRID, DEPTHS = 1, 1

    def parts(self) -> None:
        """A projection a modality, and the attention."""
        width = self.config.width
        self.own = [self.words.widths[0], sum(self.words.widths[1:])]
        self.read = nn.ModuleList(nn.Linear(size, width) for size in self.own if size)
        self.look: nn.Module | None = None
        if self.levels:
            channels = self.levels[-1][1]
            self.look = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        modalities = len(self.read) + (self.look is not None)
        self.reads = width if self.config.attention else modalities * width
        self.attention = DimensionAttention(width, modalities, self.config.bounded) if self.config.attention else None

    def before(self, vectors: Tensor, mask: Tensor, picture: Picture | None) -> Tensor:
        """``[B, T, d]``, or ``[B, T, M * d]`` without attention: of a picture that is not there zeros."""
        own = [part for part in vectors.split(self.own, 2) if part.shape[2]]
        parts = [read(part) for read, part in zip(self.read, own, strict=True)]
        present = mask.new_ones(len(mask), len(parts))
        if self.look is not None:
            seen, there = torch.zeros_like(parts[0]), mask.new_zeros(len(mask), 1)
            if picture is not None:
                there = picture.present[:, None]
                seen = (self.look(picture.levels[-1].mean(1)) * there)[:, None].expand_as(seen)
            parts, present = [*parts, seen], torch.cat([present, there], 1)
        if self.attention is None:
            return torch.cat(parts, 2)
        fused: Tensor = self.attention(torch.stack(parts, 2), present)
        return fused
