"""MKGformer: vision layers beside text layers, with two interactions at every level (Chen et al., SIGIR 2022)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from ..fused import Fused, FusedConfig, Fusion
from ..fusion.mkg import MEncoder
from ..system import Picture


class MKGformerConfig(FusedConfig):
    """What an `MKGformer` is made of.

    Attributes:
        layers: ``M``, the last layers of the backbone that a vision layer runs beside; at most all but the first.
        pgi: whether vision's attention reads the text's keys and values (prefix-guided interaction).
        caf: whether a token reads the vision states that it correlates with (correlation-aware fusion); without, each
            token gains their mean. With neither, nothing of the picture would reach the text: ``images: false``.
    """

    crops: ClassVar[int] = 3

    layers: int = Field(4, ge=1)
    pgi: bool = True
    caf: bool = True


class MKGformer(Fused):
    """The last ``M`` layers of a text encoder, each beside a vision layer (`fusion.mkg.MEncoder`).

    - PGI: the vision layer attends to ``[K_text; K_vis]``, keys and values of the text layer before and its own.
    - CAF: ``Z = softmax(C H_v^T) H_v`` of the attention's context ``C`` and the vision states ``H_v``; the text FFN's
      inner states are ``act(W_1 h + b_1 + W_f Z + b_f)``.

    Text states: any transformers encoder of BERT's build, with LoRA or trained whole. Here pictures come as
    features of a frozen encoder, so the vision side is not CLIP's ViT: it is ``M`` layers, trained from scratch, over
    the cells of the whole picture and three crops, as wide and with as many heads as the text side, their FFN twice as
    wide. The paper has 16 patches of each of three grounded crops and 4 of each of three detected ones, and none
    of the whole picture; here all have 4 cells, and the encoder's own vector where it has one. Crops are proposed
    from the picture alone: the released ones of MNRE tell whether there is a relation.

    ``W_f`` starts at 0, so that training begins from the text encoder. The published optimiser for relations leaves
    the pair head out; here it learns.
    """

    NAME = "mkgformer"
    Config = MKGformerConfig
    GRID, DEPTHS = 2, 1
    config: MKGformerConfig

    def parts(self) -> None:
        """The vision side and both interactions."""
        config = self.config
        if self.levels:
            self.fusion = MEncoder(self.levels, self.encoder.plain, config.layers, config.pgi, config.caf)

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """The backbone's states, with vision beside it."""
        if picture is None:
            return Fusion(self.encode(tensors))
        with self.fusion.attached(self.encoder.plain, picture.levels, picture.present, tensors["attention_mask"]):
            return Fusion(self.encode(tensors))
