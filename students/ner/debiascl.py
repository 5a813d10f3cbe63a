"""DebiasCL: texts and pictures aligned by a debiased contrast, then co-attention (Zhang et al., WSDM 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ..encoders.text import UnsupportedBackbone
from ..fused import Fused, FusedConfig, Fusion
from ..fusion.coattention import Block
from ..fusion.contrast import debiased_contrast, different, hard_weights
from ..fusion.graph import part_vectors
from ..settings import Clash
from ..system import Picture


class DebiasCLConfig(FusedConfig):
    """What a `DebiasCL` is made of.

    Attributes:
        layers, attention_heads, inner: how many layers, and of each the heads of its attentions (they divide the
            backbone's width) and the width of its feed-forward parts.
        cross_attention: whether the text attends to the objects; without it they act through the contrast alone.
        contrast: weight of the contrastive loss; 0 leaves it out.
        contrast_width, contrast_temperature: of the space in which texts and pictures are compared.
        tau_plus: prior probability that a text and another's picture fit; 0 leaves the debiasing out.
        hardness: how much more a negative with alike objects and another text counts; 0 leaves the weights out.
    """

    tasks = ("ner",)

    layers: int = Field(2, ge=1)
    attention_heads: int = Field(4, ge=1)
    inner: int = Field(256, ge=1)
    cross_attention: bool = True
    contrast: float = Field(0.3, ge=0)
    contrast_width: int = Field(128, ge=1)
    contrast_temperature: float = Field(0.2, gt=0)
    tau_plus: float = Field(0.1, ge=0, lt=1)
    hardness: float = Field(1.0, ge=0)
    crops: ClassVar[int] = 4

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Pictures that nothing looks at."""
        yield from super().clashes(recipe)
        if recipe.images and not (self.contrast or self.cross_attention):
            yield ("contrast", "cross_attention"), "contrast: 0 and cross_attention: false leave the pictures no part"


class DebiasCL(Fused):
    """Visual objects without their bias: ``h + g * x`` with ``g = sigmoid(W [h; x] + b)``, then a CRF.

    ``h`` are the last states of any transformers encoder. ``x`` begins as ``h`` and goes through layers of
    self-attention, of words and of objects, and of cross-attention, in which words ask objects: vectors of a frozen
    image encoder, one a part of the picture. The loss adds ``contrast`` times `fusion.contrast.debiased_contrast`
    between the mean state of each text and the mean of its picture's objects; rows without a picture take no part.

    No code was released. The abstract gives the parts; the form of the loss is that of the debiasing it builds on, and
    the form of the weights for hard samples (`fusion.contrast.hard_weights`) is ours. A detector's objects are the
    picture's parts here.
    """

    NAME = "debiascl"
    Config = DebiasCLConfig
    GRID, DEPTHS = 1, 1
    config: DebiasCLConfig

    def parts(self) -> None:
        """Projections, layers, the gate, and the space of the contrast."""
        config, width = self.config, self.encoder.hidden
        if width % config.attention_heads:
            raise UnsupportedBackbone(f"{config.backbone}: {config.attention_heads} heads do not divide its {width}")
        layers = lambda: nn.ModuleList(
            Block(width, config.attention_heads, config.inner, config.dropout) for _ in range(config.layers)
        )
        self.text_layers = layers()
        self.gate = nn.Linear(2 * width, width)
        if self.levels is None:
            return
        channels = self.levels[-1][1]
        self.look = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        if config.cross_attention:
            self.object_layers, self.cross_layers = layers(), layers()
        if config.contrast:
            self.text_space = nn.Linear(width, config.contrast_width)
            self.picture_space = nn.Linear(width, config.contrast_width)

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """``h + g * x`` of each sub-token, and in training the contrast."""
        states, mask = self.encode(tensors), tensors["attention_mask"].bool()
        if picture is None:
            return Fusion(self.read(states, mask, None, None))
        frozen = part_vectors(picture.levels[-1], self.config.crops)[:, 1:]
        objects, there = self.look(frozen), picture.present[:, None].expand(-1, frozen.shape[1])
        losses = {}
        if self.training and self.config.contrast:
            own = tensors["text"].float()[..., None]
            text = (states * own).sum(1) / own.sum(1)
            rows = picture.present
            losses["contrast"] = self.config.contrast * self.align(text[rows], objects[rows], frozen[rows])
        return Fusion(self.read(states, mask, objects, there), losses)

    def read(self, states: Tensor, mask: Tensor, objects: Tensor | None, there: Tensor | None) -> Tensor:
        """``[R, T, d]`` of states ``[R, T, d]``, objects ``[R, K, d]`` and the masks ``[R, T]`` and ``[R, K]``."""
        words = states
        for number, layer in enumerate(self.text_layers):
            words = layer(words, words, mask)
            if self.config.cross_attention and self.levels is not None:
                if objects is not None:
                    objects = self.object_layers[number](objects, objects, there)
                words = self.cross_layers[number](words, objects, there)
        fused: Tensor = states + self.gate(torch.cat([states, words], -1)).sigmoid() * words
        return fused

    def align(self, texts: Tensor, objects: Tensor, frozen: Tensor) -> Tensor:
        """The contrast of texts ``[N, d]`` and their objects ``[N, K, d]``, whose frozen features are ``[N, K, c]``."""
        config = self.config
        texts, pictures = self.text_space(texts), self.picture_space(objects.mean(1))
        weights = hard_weights(frozen, texts, config.hardness) if config.hardness else None
        return debiased_contrast(
            texts, pictures, config.contrast_temperature, config.tau_plus, different(frozen), weights
        )
