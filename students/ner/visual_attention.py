"""Visual attention: a sentence looks at regions of its picture, its words take it by gates (Lu et al., ACL 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..fusion.region_attention import Looking, RegionAttention, VisualGate
from ..system import Picture
from .words import WordTagger, WordTaggerConfig


class VisualAttentionConfig(WordTaggerConfig):
    """What a `VisualAttention` is made of.

    Attributes:
        looking: what the weights of the regions depend on (`fusion.region_attention`): ``sentence``, ``regions`` (the
            paper's equations to the letter) or ``mean``.
        inner: width in which sentence and regions are compared.
        gate: whether each word gates itself and the picture; without, the picture is added to it.
    """

    looking: Looking = "sentence"
    inner: int = Field(100, ge=1)
    gate: bool = True


class VisualAttention(WordTagger):
    """GVATT: after the BiLSTM the sentence picks out regions of its picture, and each word how much it takes of them.

    Text: word vectors of its own with a reader of letters (`encoders.words`); the sentence is the last state of either
    direction of the same BiLSTM. Picture: 7 x 7 cells of the frozen encoder's last stage, brought to the width of the
    states. One look a sentence: words differ in what they take, not in where they look.
    """

    NAME = "visual_attention"
    Config = VisualAttentionConfig
    GRID, DEPTHS = 7, 1

    def parts(self) -> None:
        """The projection of regions, the attention and the gates."""
        if not self.levels:
            return
        config = self.config
        # Without a bias, so that nothing seen is nothing taken: U v_c = 0.
        self.regions = nn.Linear(self.levels[0][1], self.width, bias=False)
        self.attention = RegionAttention(self.width, self.width, config.inner, config.looking)
        self.gate = VisualGate(self.width, self.width, config.gate)

    def after(self, states: Tensor, mask: Tensor, picture: Picture | None) -> Tensor:
        """The states ``w [B, W, 2 * hidden]``, gated; those of posts without a picture as they were."""
        if picture is None:
            return states
        cells = picture.levels[0]
        regions = self.regions(F.layer_norm(cells, cells.shape[-1:]))
        seen = self.attention(final(states, mask), regions)
        fused: Tensor = self.gate(states, seen, picture.present)
        return fused


def final(states: Tensor, mask: Tensor) -> Tensor:
    """The last state of either direction ``[B, 2 * h]``: forward at the last word, backward at the first."""
    forward, backward = states.chunk(2, 2)
    last = mask.sum(1) - 1
    return torch.cat([forward[torch.arange(len(states), device=states.device), last], backward[:, 0]], 1)
