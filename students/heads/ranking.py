"""Ranking head: chooses an attribute's value out of its closed list, by text, by picture, or by both."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...tasks.attributes import Attribute, Schema
from ...tasks.task import DataFault
from ..collate import Collated, Found, Item, Layout, Reading, group, pad, stack
from ..student import View

#: The scale of the cosines at the start, and its limit (as in CLIP, Radford et al., ICML 2021).
_SCALE, _LIMIT = 1 / 0.07, 100.0

#: What a target is that teaches nothing.
_IGNORED = -100


class RankingHead(nn.Module):
    """Compares a product's vector with the vectors of the texts ``attribute: option``, all by the same backbone.

    Vectors are means over sub-tokens; before a product's text stand its category and the attribute's name (its options
    stand there for themselves, once a batch). A picture's vector is added through a gate, dimension by dimension:
    ``f = t + sigmoid(W [t; v]) * v``. An option scores ``scale * cos(f, o)``, "absent" a linear function of ``f`` that
    starts at 0.

    Args:
        hidden: width of the backbone's states.
        channels: width of the image encoder's last level, or None for a student that never sees.
        dropout: on the product's vector.
        schema: the attributes with their options.
    """

    def __init__(self, hidden: int, channels: int | None, dropout: float, schema: Schema) -> None:
        super().__init__()
        self.schema = schema
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor(math.log(_SCALE)))
        self.absent = nn.Linear(hidden, 1)
        nn.init.zeros_(self.absent.weight)
        nn.init.zeros_(self.absent.bias)
        self.look: nn.Module | None = None
        if channels is not None:
            self.look = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, hidden))
            self.gate = nn.Linear(2 * hidden, hidden)

    def collate(self, items: Sequence[Item], layout: Layout, view: View, training: bool) -> Collated:
        """Rows of the products' texts and, each once, of the options they are compared with."""
        rows, owners, of_item, counts = [], [], [], Counter[str]()
        options: dict[str, int] = {}
        choices, targets = [], []
        for number, item in enumerate(items):
            example = item.example
            own, cut = layout.rows(
                layout.read(example, view.text),
                example.id,
                question=f"{example.category} {item.labels[0]}".strip(),
                sides=layout.sides(example, view),
            )
            counts += cut
            rows += own
            owners += [item.index] * len(own)
            of_item += [number] * len(own)
            attribute = self.schema.attribute(item.labels[0], example.category)
            choices.append([options.setdefault(f"{attribute.name}: {o}", len(options)) for o in attribute.choices])
            targets.append(self._target(item, attribute, counts))
        tensors = stack(layout.encoder, rows, owners)
        tensors["item"] = torch.tensor(of_item)
        tensors["item_example"] = torch.tensor([item.index for item in items])
        tensors["choices"] = pad(choices, -1)
        tensors["targets"] = torch.tensor(targets)
        listed = [layout.rows(layout.words(text), text, windowed=False)[0][0] for text in options]
        told = stack(layout.encoder, listed, [0] * len(listed))
        return tensors | {f"options.{key}": value for key, value in told.items()}, counts

    def _target(self, item: Item, attribute: Attribute, counts: Counter[str]) -> int:
        """Number of the gold option; that of "absent" follows the last option."""
        if item.example.gold is None:
            return _IGNORED
        if attribute.name not in item.example.gold.values:
            counts["attributes_without_gold"] += 1
            return _IGNORED
        values = item.example.gold.values[attribute.name]
        if not values:
            return len(attribute.choices)
        known = [o.lower() for o in attribute.choices]
        for value in values:
            if value.lower() in known:
                return known.index(value.lower())
        raise DataFault(
            f"example {item.example.id}",
            f"{attribute.name}: {values[0]!r} is not among its options",
            f"there are: {', '.join(attribute.choices)}",
        )

    def forward(self, reading: Reading, tensors: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Loss over the items with gold, and ``ranking [I, O + 1]``: log probabilities of each item's options and, in
        its last column, of "absent"; ``-inf`` where an item has fewer options."""
        vectors = mean(reading.states(tensors), tensors["attention_mask"])
        products = vectors.new_zeros(len(tensors["choices"]), vectors.shape[1])
        products = products.index_add(0, tensors["item"], vectors)
        products = products / torch.bincount(tensors["item"])[:, None]  # a mean over windows
        products = self.dropout(self._with_picture(products, reading, tensors["item_example"]))
        told = group(tensors, "options")
        options = mean(reading.states(told, alone=True), told["attention_mask"])
        choices = tensors["choices"]
        cosines = F.normalize(products, dim=-1) @ F.normalize(options, dim=-1).T
        logits = cosines.gather(1, choices.clamp(min=0)) * self.scale.exp().clamp(max=_LIMIT)
        logits = logits.masked_fill(choices < 0, -torch.inf)
        scores = torch.cat([logits, self.absent(products).float()], 1).log_softmax(1)
        counts = (choices >= 0).sum(1)
        targets = tensors["targets"]
        targets = torch.where(targets == counts, choices.shape[1], targets)
        if not (targets >= 0).any():
            return None, {"ranking": scores}
        return F.nll_loss(scores, targets, ignore_index=_IGNORED), {"ranking": scores}

    def _with_picture(self, products: Tensor, reading: Reading, examples: Tensor) -> Tensor:
        if self.look is None:
            return products
        pictures, present = reading.pictures(examples)
        if pictures is None or present is None:
            return products
        seen = self.look(pictures).float()
        gate = self.gate(torch.cat([products, seen], -1)).float().sigmoid()
        return products + gate * seen * present[:, None]

    def answers(
        self, items: Sequence[Item], layout: Layout, scores: dict[str, Tensor], tensors: dict[str, Tensor]
    ) -> list[Found]:
        """The best option of each item, or none, with its probability."""
        found: list[Found] = []
        absent = scores["ranking"].shape[1] - 1
        best = scores["ranking"].max(1)
        for item, number, score in zip(items, best.indices.tolist(), best.values.exp().tolist(), strict=True):
            name = item.labels[0]
            options = self.schema.attribute(name, item.example.category).choices
            found.append({name: (() if number == absent else (options[number],), score)})
        return found


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean state ``[R, d]`` of each row, in fp32, over its sub-tokens: ``[R, T, d]`` and ``[R, T]``."""
    weights = mask[..., None].float()
    return (states.float() * weights).sum(1) / weights.sum(1)
