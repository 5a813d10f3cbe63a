"""Distilled masked language model: a tuned backbone is held to what the untouched one fills in (AVEQA, KDD 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.names import resolve
from ...models.torchvision_guard import guard
from ..collate import Row, stack
from ..encoders import text
from ..encoders.text import TextEncoder, UnsupportedBackbone

#: What turns a state into scores over the vocabulary: the input embeddings, or the backbone's own pretrained head.
Scores = Literal["embeddings", "head"]


class DistilledMaskedLM:
    """``L = T^2 * mean KL(softmax(z_frozen / T) || softmax(z_tuned / T))`` over the masked sub-tokens of some rows.

    The frozen side is the backbone as it was pretrained: the same one with its adapter switched off, or, where all
    weights are tuned, a second copy. It computes without dropout and no gradient reaches it. It keeps what the backbone
    knows in general, for attributes and values never seen in training (Wang et al., Learning to Extract Attribute Value
    from Product via Question Answering, section 3.4).

    Both sides are read by the same frozen scorer. ``head`` is the pretrained head of the backbone's masked language
    model; a backbone that ships without one (a sentence encoder) has ``embeddings``: ``z = W h`` with the pretrained
    input embeddings ``W``, which is no language model, but moves if the states move.

    It is no module: nothing of it is trained or kept, and what it needs is loaded at the first loss.

    Args:
        encoder: the student's.
        backbone: the name that the encoder was loaded by.
        scores: who scores the vocabulary.
        share: how much of a text is masked.
        temperature: ``T``.
    """

    def __init__(self, encoder: TextEncoder, backbone: str, scores: Scores, share: float, temperature: float) -> None:
        if encoder.sub_tokens.mask is None:
            raise UnsupportedBackbone(
                f"{backbone}: its tokenizer has no mask token to fill in; set masked_weight=0, or take an encoder"
            )
        self.encoder, self.backbone, self.scores = encoder, backbone, scores
        self.share, self.temperature = share, temperature

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The rows with a share of the text's sub-tokens masked (at least one), and ``masked [R, T]``."""
        tensors = stack(self.encoder, rows, range(len(rows)))
        drawn = torch.rand(tensors["text"].shape).masked_fill(~tensors["text"], 2.0)
        count = (self.share * tensors["text"].sum(1)).round().clamp(min=1)
        tensors["masked"] = (drawn.argsort(1).argsort(1) < count[:, None]) & tensors["text"]
        tensors["input_ids"] = tensors["input_ids"].masked_fill(tensors["masked"], self.encoder.sub_tokens.mask)
        return tensors

    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        """The loss (nats) of what `collate` gave."""
        inputs = tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"]
        masked = tensors["masked"]
        with torch.no_grad(), self._untouched() as frozen:
            # Where all weights are tuned, the student's own table drifts: both sides are read by the pretrained one.
            table: Any = frozen.embeddings.weight
            wanted = self._vocabulary(frozen(*inputs)[masked], table)
        said = self._vocabulary(self.encoder(*inputs)[masked], table.detach())
        warm = self.temperature
        said, wanted = (said / warm).log_softmax(-1), (wanted / warm).log_softmax(-1)
        return warm**2 * F.kl_div(said, wanted, reduction="batchmean", log_target=True)

    def _vocabulary(self, states: Tensor, table: Tensor) -> Tensor:
        """Scores ``[N, V]`` of states ``[N, d]``."""
        if self.scores == "embeddings":
            return (states @ table.T).float()
        logits: Tensor = self._head.to(states.device)(states)
        return logits.float()

    @contextmanager
    def _untouched(self) -> Iterator[TextEncoder]:
        """The backbone as it was pretrained, without dropout."""
        if not self.adapted:
            yield self._copy.to(next(self.encoder.parameters()).device)
            return
        training = self.encoder.training
        self.encoder.eval()
        try:
            with self.encoder.model.disable_adapter():
                yield self.encoder
        finally:
            self.encoder.train(training)

    @property
    def adapted(self) -> bool:
        """Whether the backbone wears an adapter, so that without it it is as pretrained."""
        return hasattr(self.encoder.model, "peft_config")

    @cached_property
    def _copy(self) -> TextEncoder:
        return text.load(self.backbone, max_tokens=self.encoder.limit).requires_grad_(False).eval()

    @cached_property
    def _head(self) -> Any:
        """The pretrained head; an `UnsupportedBackbone` if the backbone ships without one."""
        guard()
        from transformers import AutoModelForMaskedLM

        model: Any
        model, info = AutoModelForMaskedLM.from_pretrained(resolve(self.backbone), output_loading_info=True)
        heads = [part for name, part in model.named_children() if name != model.base_model_prefix]
        if len(heads) != 1 or info["missing_keys"]:
            raise UnsupportedBackbone(
                f"{self.backbone} ships without the head of a masked language model: set masked_scores=embeddings"
            )
        return heads[0].requires_grad_(False).eval()
