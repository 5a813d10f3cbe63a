"""Pair head: the relation of two marked mentions, by their opening marks' states (Baldini Soares et al., ACL 2019)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...tasks import relations
from ...tasks.task import DataFault
from ..collate import Collated, Found, Item, Layout, Reading, shape_count
from ..student import View
from ..units import lay, unit_states


class PairHead(nn.Module):
    """A linear layer over both opening marks: ``softmax(W drop([h_head; h_tail; beside]) + b)``.

    Args:
        hidden: width of a state.
        schema: the relations; "no relation" is one more label, the first.
        dropout: on what is classified.
        beside: width of what a system adds to the two states (`score`), 0 for nothing.
    """

    def __init__(self, hidden: int, schema: relations.Schema, dropout: float, beside: int = 0) -> None:
        super().__init__()
        self.labels = (schema.none, *schema.labels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * hidden + beside, len(self.labels))

    def collate(
        self,
        items: Sequence[Item],
        layout: Layout,
        view: View,
        training: bool,
        question: Callable[[Item], str] = lambda item: "",
    ) -> Collated:
        """Rows of some texts with their pairs marked, ``marks [B, 2]``: the units that open head and tail, and
        ``relation [B]``, -1 without gold. ``question`` is one about each.
        """
        for item in items:
            if item.example.pair is None:
                raise DataFault(
                    f"example {item.example.id}",
                    "no pair of mentions is given, and this student judges given pairs",
                    "give a pair, or take a student for joint extraction",
                )
        laid = lay(layout, items, view, question)
        first = shape_count()
        marks = [[text.shapes.index(first), text.shapes.index(first + 2)] for text in laid.texts]
        laid.tensors["marks"] = torch.tensor(marks)
        laid.tensors["relation"] = torch.tensor([self._gold(item.example) for item in items])
        laid.tensors["units"] = torch.tensor([len(items)])
        return laid.tensors, Counter(laid.counts)

    def _gold(self, example: relations.Example) -> int:
        if example.gold is None or example.gold.relation is None:
            return -1
        if example.gold.relation not in self.labels:
            known = ", ".join(self.labels)
            raise DataFault(f"example {example.id}", f"unknown relation {example.gold.relation!r}", f"known: {known}")
        return self.labels.index(example.gold.relation)

    def forward(self, reading: Reading, tensors: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Loss over the pairs with gold, and ``pair [B, R + 1]``: a score for "no relation" and each relation."""
        return self.score(reading.states(tensors), tensors)

    def score(
        self, states: Tensor, tensors: dict[str, Tensor], beside: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What `forward` gives, of the states ``[R, T, d]`` of the rows and what stands beside a pair, ``[B, c]``."""
        pair = self.pairs(states, tensors)
        logits = self.linear(self.dropout(pair if beside is None else torch.cat([pair, beside], 1))).float()
        gold = tensors["relation"]
        scores = {"pair": logits, "states": pair[:, None]}
        return (F.cross_entropy(logits, gold, ignore_index=-1) if (gold >= 0).any() else None), scores

    @staticmethod
    def pairs(states: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """``[h_head; h_tail]``, ``[B, 2 d]``, of the states of rows."""
        units = unit_states(states, tensors)
        return units[torch.arange(len(units), device=units.device)[:, None], tensors["marks"]].flatten(1)

    def answers(
        self, items: Sequence[Item], layout: Layout, scores: dict[str, Tensor], tensors: dict[str, Tensor]
    ) -> list[Found]:
        """The likeliest label of each pair and its probability."""
        sure, best = scores["pair"].softmax(-1).max(-1)
        return [(self.labels[label], float(p)) for label, p in zip(best.tolist(), sure.tolist(), strict=True)]
