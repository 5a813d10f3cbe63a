"""HVPNeT: a gated visual prefix in every attention layer (Chen et al., Findings of NAACL 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..fused import Fused, FusedConfig, Fusion
from ..fusion.prefix import PrefixStates, VisualPrefix, attached
from ..settings import BackboneConfig, StudentConfig
from ..system import Picture


class HVPNeTConfig(FusedConfig):
    """What an `HVPNeT` is made of.

    Attributes:
        length: rows of the prefix that each picture, the whole or a crop, has.
        width: ``h`` of these rows before they become keys and values; 800 as published.
        gate: whether each layer weighs the depths of the image encoder by a gate; without, it takes their mean.
        crops_seen: whether crops have rows beside the whole picture's.
    """

    crops: ClassVar[int] = 3

    length: int = Field(4, ge=1)
    width: int = Field(256, ge=1)
    gate: bool = True
    crops_seen: bool = True

    def pretrained(self, images: bool) -> str:
        """The backbone, and what sees; without crops, where they are not read."""
        return super().pretrained(images) if self.crops_seen else BackboneConfig.pretrained(self, images)


class HVPNeT(Fused):
    """Each of the whole picture and its crops becomes ``P`` keys and values before the text's own, in every layer.

    Depth ``b`` of the image encoder, in 2 x 2 cells, is projected to ``F_b [P, h]``. Layer ``l`` mixes the depths by
    ``g^l = softmax(LeakyReLU(W_l flatten(mean_b F_b)))`` and takes ``sum_b g^l_b F_b`` to its keys and values
    (`fusion.prefix.VisualPrefix`). Weights and gates are shared by the whole and the crops, but each has gate values of
    its own. Queries, positions and the text's own keys stay as they are. Text states: any transformers encoder (or
    decoder) whose attention a prefix reaches; a tagging or a pair head reads them.

    Unlike the release: a depth has its own projection (there one layer sees all depths, and its reshape mixes cells and
    channels), the image encoder is frozen (there its batch statistics move), crops are proposed from the picture alone
    (the released ones of MNRE tell whether there is a relation), none of them is a black picture whose rows are
    constant, and the pair head learns (there no optimiser group holds it). An image encoder's own vector of
    the whole picture, where it has one, is one more depth.

    Ablations: ``gate: false``, ``crops_seen: false``, and ``images: false`` for no prefix at all.
    """

    NAME = "hvpnet"
    Config: ClassVar[type[StudentConfig]] = HVPNeTConfig
    GRID, DEPTHS = 2, 4
    config: HVPNeTConfig

    def parts(self) -> None:
        """The prefix."""
        config = self.config
        if self.levels:
            levels = [(cells // (1 + config.crops), channels) for cells, channels in self.levels]
            self.prefix = VisualPrefix(levels, self.encoder.plain.config, config.length, config.width, config.gate)

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """The backbone's states with the prefix attached."""
        states = None if picture is None else self.prefixes(picture)
        with attached(self.encoder.plain, states):
            return Fusion(self.encode(tensors))

    def prefixes(self, picture: Picture) -> PrefixStates:
        """Keys and values of rows' pictures: those of the whole, then of each crop; 4 x ``length`` of them."""
        views = 1 + self.config.crops
        shown = views if self.config.crops_seen else 1
        levels = [level.unflatten(1, (views, -1))[:, :shown].flatten(0, 1) for level in picture.levels]
        states: PrefixStates = self.prefix(levels, torch.repeat_interleave(picture.present, shown))
        return states.join(shown)
