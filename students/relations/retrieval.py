"""Cross-modal retrieval and synthesis: a pair is judged beside retrieved evidence (Hu et al., ACL 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ..collate import Layout, Row, Text, group, stack
from ..encoders.text import UnsupportedBackbone
from ..fused import Fusion
from ..fusion.coattention import Attend
from ..fusion.modalities import ModalityAttention
from ..fusion.prefix import attached
from ..settings import Clash
from ..student import View
from ..system import Picture
from .hvpnet import HVPNeT, HVPNeTConfig


class RetrievalConfig(HVPNeTConfig):
    """What a `Retrieval` is made of, beside the prefix's settings.

    Attributes:
        evidence: the side texts that are evidence, one a kind; none leaves `HVPNeT`.
        evidence_tokens: the most sub-tokens of a kind's evidence, or None for as many as fit.
        attention_heads: of the attention to evidence; 12 as published.
    """

    tasks = ("relations",)

    evidence: tuple[str, ...] = ("knowledge",)
    evidence_tokens: int | None = Field(96, ge=2)
    attention_heads: int = Field(8, ge=1)

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Evidence that is read twice, or that no file holds."""
        yield from super().clashes(recipe)
        twice = [name for name in self.evidence if name in recipe.context or self.evidence.count(name) > 1]
        if twice:
            yield ("evidence", "context"), f"{twice[0]} is read twice: name it once, in evidence or in context"
        if "knowledge" in self.evidence and not recipe.knowledge:
            said = "evidence names knowledge, but knowledge (the file of pinned evidence) is not set"
            yield ("evidence", "knowledge"), said


class Retrieval(HVPNeT):
    """Evidence ``R_k`` of each kind is encoded as the text is, with the picture's prefix, and read from ``[CLS]``::

        A_k = MHA(query = H_cls, key = R_k, value = R_k)     logits = W drop([h_head; h_tail; A])

    ``A`` is ``A_1`` where there is one kind, as in the release; of several kinds (the paper's evidence by object, by
    sentence and by image) it is the sum that a learned attention weighs (`fusion.modalities.ModalityAttention`). The
    release keeps the ``[CLS]`` row of an attention of all rows; here that row alone is computed.

    Evidence is text beside the example, found before training and pinned on the disk (`magister evidence`): nothing is
    retrieved here. Its store drops what repeats the tweet. Where the paper asked a web search by picture, a local store
    of captions stands. The sentence's visual evidence, pictures that a search finds for it, has no part: there is no
    store of pictures. Classifier and evidence attention learn; the published optimiser left both out. An example
    without evidence has ``A = 0``. Text states and prefix are those of `HVPNeT`, on a transformers encoder.

    Ablations: ``evidence: []``, and those of `HVPNeT`.
    """

    NAME = "retrieval"
    Config = RetrievalConfig
    config: RetrievalConfig

    def parts(self) -> None:
        """The prefix, the attention to evidence, and what weighs its kinds."""
        super().parts()
        config, hidden = self.config, self.encoder.hidden
        if not config.evidence:
            return
        if self.encoder.decoder:
            raise UnsupportedBackbone(f"{config.backbone} has no [CLS] that has read the text: take an encoder (BERT)")
        if hidden % config.attention_heads:
            raise UnsupportedBackbone(
                f"attention_heads={config.attention_heads} do not divide the width {hidden} of the backbone's states"
            )
        self.beside = hidden
        self.evidence_layout = Layout(self.encoder, config.evidence_tokens)
        self.consult = Attend(hidden, config.attention_heads, config.dropout)
        kinds = len(config.evidence)
        self.synthesis = ModalityAttention(hidden, hidden, kinds) if kinds > 1 else None

    def more(self, examples: Sequence[Any], view: View) -> tuple[dict[str, Tensor], Counter[str]]:
        """Rows of the evidence, ``evidence.example [E]``, and ``evidence.row [B, K]`` of each kind (-1: none)."""
        rows: list[Row] = []
        owners, at, counts = [], [], Counter[str]()
        for index, example in enumerate(examples):
            own = []
            for name in self.config.evidence:
                said = self.encoder.sub_tokens.text(example.context.get(name, "").strip())
                own.append(len(rows) if said else -1)
                if said:
                    laid, cut = self.evidence_layout.rows(Text((), (), ()), example.id, sides=[said])
                    rows += laid
                    owners.append(index)
                    counts["evidence_tokens_cut"] += cut["context_tokens_cut"]
            counts["evidence_missing"] += max(own, default=0) < 0
            at.append(own)
        if not rows:
            return {}, +counts
        tensors = {f"evidence.{name}": value for name, value in stack(self.encoder, rows, owners).items()}
        return tensors | {"evidence.row": torch.tensor(at)}, +counts

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """The backbone's states with the prefix attached, and ``A [B, d]``."""
        prefix, first = None if picture is None else self.prefixes(picture), tensors["item_row"]
        with attached(self.encoder.plain, prefix):
            states = self.encode(tensors)
        if not self.beside:
            return Fusion(states)
        asked = states[first, 0]
        found = group(tensors, "evidence")
        if not found:
            return Fusion(states, beside=torch.zeros_like(asked))
        # Each row of evidence sees the picture of its example, whose first row has it, too.
        of_evidence = None if prefix is None else prefix.select(first[found["example"]])
        with attached(self.encoder.plain, of_evidence):
            read = self.encoder(found["input_ids"], found["attention_mask"], found["token_type_ids"])
        return Fusion(states, beside=self.consulted(asked, read, found["attention_mask"].bool(), found["row"]))

    def consulted(self, asked: Tensor, read: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """``A [B, d]`` of states ``[B, d]`` that ask, evidence ``[E, T, d]``, its mask and its ``rows [B, K]``."""
        there = rows >= 0
        memory, mask = read[rows.clamp(min=0)], mask[rows.clamp(min=0)] & there[..., None]
        queries = asked[:, None, None].expand(-1, rows.shape[1], -1, -1)
        flat = [one.flatten(0, 1) for one in (queries, memory, mask)]
        kinds = self.consult(*flat).squeeze(1).unflatten(0, rows.shape)
        seen: Tensor = kinds[:, 0] if self.synthesis is None else self.synthesis(asked, kinds, there)
        return seen
