"""ITA: the picture as text beside the text, and both views taught to agree (Wang et al., NAACL 2022).

The picture is put into words: tags of its objects, captions, writing in it (``context`` strings ``tags``, ``caption``,
``ocr``). They stand behind the post in one row, one text encoder lets them meet, and a CRF reads the post's own words
alone (its first sub-token each). The post is never cut for them: side text goes first, from its end.

Cross-view alignment is the objective ``cross_view`` (`distill.objectives`): what the view with the side texts says of
each word, its gradient stopped, teaches the view of the text alone. So one checkpoint answers from either view.

In the paper detectors tag the pictures (VinVL) and a reader finds the writing (Tesseract); here these are texts of the
data set, and one that is not there is left out.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..fused import Fused, FusedConfig, Fusion
from ..system import Picture


class ITAConfig(FusedConfig):
    """What an `ITA` is made of.

    Attributes:
        word_dropout: share of the sub-tokens whose whole state is zeroed in training, as published.
    """

    tasks = ("ner",)
    objectives = ("gold", "cross_view")

    word_dropout: float = Field(0.1, ge=0, lt=1)
    sees: ClassVar[bool] = False


class ITA(Fused):
    """An encoder over ``[x; tags; captions; writing]`` and a CRF over the words of ``x``."""

    NAME = "ita"
    Config = ITAConfig

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """The encoder's states, some of them zeroed in training."""
        states = self.encode(tensors)
        if self.training and self.config.word_dropout:
            kept = torch.rand(states.shape[:2], device=states.device) >= self.config.word_dropout
            states = states * kept[..., None]
        return Fusion(states)
