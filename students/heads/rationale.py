"""Rationale head: the second prefix of distilling step by step, where the student explains instead of answering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..collate import Collated, Item, Layout, Reading, Row, pad, stack
from ..encoders.text import TextEncoder, UnsupportedBackbone
from ..student import View
from .generative import IGNORED, answer_tokens, append, language_loss


class RationaleHead(nn.Module):
    """Learns a side text (a teacher's rationale) as a target, beside the labels (Hsieh et al., ACL Findings 2023).

    A decoder writes it: the loss is that of its sub-tokens. An encoder is shown it behind the text with a share of its
    sub-tokens masked, and fills these in: a dense layer, GELU and LayerNorm, then the input embeddings as output
    weights (the masked language model's head of BERT, Devlin et al., NAACL 2019).

    Args:
        encoder: the backbone.
        share: how much of a rationale an encoder has to fill in.
    """

    def __init__(self, encoder: TextEncoder, share: float) -> None:
        super().__init__()
        self.share, self.decoder = share, encoder.decoder
        if self.decoder:
            return
        if encoder.sub_tokens.mask is None:
            raise UnsupportedBackbone("two_prefix: the backbone's tokenizer has no mask token to fill in")
        width = encoder.hidden
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))

    def collate(self, items: Sequence[Item], layout: Layout, view: View, training: bool) -> Collated:
        """Rows of the texts that have a rationale, and ``labels [R, T]``, which cover what is to be said.

        Texts without one are left out (counted ``rationale_missing``); a rationale that does not fit is cut (counted
        ``context_tokens_cut`` for an encoder, ``rationale_tokens_cut`` for a decoder).
        """
        rows, owners, labels, counts = [], [], [], Counter[str]()
        sub = layout.encoder.sub_tokens
        for item in items:
            said = item.example.context.get(view.explain, "").strip()
            if not said:
                counts["rationale_missing"] += 1
                continue
            text, sides = layout.read(item.example), layout.sides(item.example, view)
            if self.decoder:
                target = answer_tokens(layout, said)
                (row,), cut = layout.rows(text, item.example.id, sides=sides, windowed=False)
                room = layout.encoder.limit - len(row.ids)
                if room < len(target):
                    counts["rationale_tokens_cut"] += len(target) - room
                    target = target[:room]
                labels.append([IGNORED] * len(row.ids) + target)
                row = append(row, target)
            else:
                (row,), cut = layout.rows(text, item.example.id, sides=[*sides, sub.text(said)], windowed=False)
                row.ids, own = self._masked(row, sub.mask, sub.separator)
                labels.append(own)
            counts += cut
            rows.append(row)
            owners.append(item.index)
        if not rows:
            return {}, counts
        tensors = stack(layout.encoder, rows, owners)
        tensors["labels"] = pad(labels, IGNORED)
        return tensors, counts

    def _masked(self, row: Row, mask: int, separator: int) -> tuple[list[int], list[int]]:
        """The row with a share of its last side text masked, and labels that say what was there."""
        end = len(row.ids) - 1
        start = end
        while row.segments[start - 1] and row.ids[start - 1] != separator:
            start -= 1
        count = min(end - start, max(1, round(self.share * (end - start))))
        hidden = {start + at for at in torch.randperm(end - start)[:count].tolist()}
        return (
            [mask if at in hidden else i for at, i in enumerate(row.ids)],
            [i if at in hidden else IGNORED for at, i in enumerate(row.ids)],
        )

    def forward(self, reading: Reading, tensors: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Mean loss over the labelled sub-tokens; no scores."""
        labels = tensors["labels"]
        if self.decoder:
            return language_loss(reading, tensors, labels), {}
        known = labels != IGNORED
        if not known.any():
            return None, {}
        states = self.transform(reading.states(tensors)[known])
        return F.cross_entropy(reading.vocabulary(states).float(), labels[known]), {}
