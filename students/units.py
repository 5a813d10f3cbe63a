"""Texts as rows for a backbone, and the state of each unit (word or sub-token) in the rows that came back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from ..tasks.attributes import Example
from ..tasks.task import DataFault
from .collate import Item, Layout, Row, Text, pad, place, stack
from .student import View


@dataclass
class Laid:
    """Some items' texts laid out.

    Attributes:
        tensors: rows ``[R, T]`` (`collate.stack`); ``word_row``, ``word_at``, ``word_mask [I, W]``: where each unit of
            an item stands; ``item_row [I]``: its first row, whose position 0 is ``[CLS]``; ``item_example [I]``.
        texts: each item's units.
        rows: each item's rows, one a window.
        counts: what was given up.
    """

    tensors: dict[str, Tensor]
    texts: list[Text]
    rows: list[list[Row]]
    counts: Counter[str]


def lay(layout: Layout, items: Sequence[Item], view: View, question: Callable[[Item], str] = lambda item: "") -> Laid:
    """Rows of each item's text with its question and side texts; a `DataFault` for a text without words."""
    rows: list[Row] = []
    owners, of_item, at, texts, counts = [], [], [], [], Counter[str]()
    for item in items:
        text = layout.read(item.example)
        if not text.pieces:
            raise DataFault(f"example {item.example.id}", "its text has no words", "leave it out")
        own, cut = layout.rows(text, item.example.id, question=question(item), sides=layout.sides(item.example, view))
        counts += cut
        at.append([place(own, unit, len(rows), layout.encoder.decoder) for unit in range(len(text.pieces))])
        texts.append(text)
        of_item.append(own)
        rows += own
        owners += [item.index] * len(own)
    tensors = stack(layout.encoder, rows, owners)
    tensors["word_row"] = pad([[row for row, _ in words] for words in at])
    tensors["word_at"] = pad([[position for _, position in words] for words in at])
    tensors["word_mask"] = pad([[1] * len(words) for words in at], dtype=torch.bool)
    first = [0, *accumulate(len(own) for own in of_item)]
    tensors["item_row"] = torch.tensor(first[:-1])
    tensors["item_example"] = torch.tensor([item.index for item in items])
    return Laid(tensors, texts, of_item, counts)


def unit_states(states: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """States ``[I, W, d]`` of each item's units, out of rows' states ``[R, T, d]``."""
    return states[tensors["word_row"], tensors["word_at"]]


def pairs(examples: Sequence[Example]) -> list[Item]:
    """An item for each attribute asked of each example."""
    return [Item(i, e, (name,)) for i, e in enumerate(examples) for name in e.asked]
