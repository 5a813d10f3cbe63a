"""UMGF: words and objects of the picture as one graph with gated edges between them (Zhang et al., AAAI 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..fused import Fused, FusedConfig, Fusion
from ..fusion.graph import GraphLayer, linked, part_vectors
from ..settings import Clash
from ..system import Picture


class UMGFConfig(FusedConfig):
    """What a `UMGF` is made of.

    Attributes:
        layers, width, attention_heads, inner: how many graph layers, and of each the width of a node, the heads of its
            attentions and the width of its feed-forward layers; published: 6, 512, 8 and 256.
        objects: the picture's nodes: its ``parts``, or the ``whole`` alone (the paper's comparison).
        gates: whether edges between words and objects have gates.
        per_word: divide what an object takes of the words by their number (`fusion.graph.GraphLayer`).
    """

    tasks = ("ner",)

    layers: int = Field(2, ge=1)
    width: int = Field(128, ge=1)
    attention_heads: int = Field(4, ge=1)
    inner: int = Field(256, ge=1)
    objects: Literal["parts", "whole"] = "parts"
    gates: bool = True
    per_word: bool = False
    crops: ClassVar[int] = 4

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Heads that do not divide the width."""
        yield from super().clashes(recipe)
        if self.width % self.attention_heads:
            yield ("width", "attention_heads"), "width must be a multiple of attention_heads"


class UMGF(Fused):
    """Unified multi-modal graph fusion: ``tags = CRF(W [h; x])``.

    ``h`` are the last states of any transformers encoder, ``x`` the same, projected and taken through the graph layers
    (`fusion.graph`) with four objects: vectors of a frozen image encoder, one a part of the picture, through
    ``relu(W relu(W LN(v)))``. Objects are linked to the sub-tokens of the text; the marks and side texts around it are
    linked to words alone.

    Unlike the paper: its parts are found by phrase grounding with the four types' names; here parts are proposed from
    the picture alone (``proposals``). Its ResNet learns; here the image encoder is frozen, so that features are encoded
    once, and a LayerNorm makes up for their different sizes. Its tags stand on sub-tokens; here on words, read at their
    first sub-token.
    """

    NAME = "umgf"
    Config = UMGFConfig
    GRID, DEPTHS = 1, 1
    config: UMGFConfig

    def parts(self) -> None:
        """Projections and graph layers."""
        config, hidden, width = self.config, self.encoder.hidden, self.config.width
        self.project = nn.Linear(hidden, width)
        self.look: nn.Module | None = None
        if self.levels:
            channels = self.levels[-1][1]
            first, second = nn.Linear(channels, width), nn.Linear(width, width)
            self.look = nn.Sequential(
                nn.LayerNorm(channels), first, nn.ReLU(), nn.Dropout(config.dropout), second, nn.ReLU()
            )
        self.layers = nn.ModuleList(
            GraphLayer(
                width,
                config.attention_heads,
                config.inner,
                config.dropout,
                config.gates,
                config.per_word,
                last=number == config.layers - 1,
            )
            for number in range(config.layers)
        )
        self.width = hidden + width

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """``[h; x]`` of each sub-token."""
        states = self.encode(tensors)
        words, mask = self.project(states), tensors["attention_mask"].bool()
        objects = links = None
        if picture is not None and self.look is not None:
            vectors = part_vectors(picture.levels[-1], self.config.crops)
            objects = self.look(vectors[:, 1:] if self.config.objects == "parts" else vectors[:, :1])
            links = linked(tensors["text"], picture.present, objects.shape[1])
        for layer in self.layers:
            words, objects = layer(words, mask, objects, links)
        return Fusion(torch.cat([states, words], -1))
