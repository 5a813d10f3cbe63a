"""Tag schemes: typed spans of units as one tag a unit, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..collate import Text
from .span import gold_spans

#: A span of units ``(first, last + 1, label)``.
TypedSpan = tuple[int, int, str]

#: BIO marks a span's first unit and those inside; BIOE its last unit, too (a span of one unit is a ``B``).
Scheme = Literal["BIO", "BIOE"]


@dataclass(frozen=True)
class Tags:
    """The tag set of some labels: ``O``, then each label's marks in the labels' order."""

    labels: tuple[str, ...]
    scheme: Scheme = "BIO"

    @cached_property
    def names(self) -> list[str]:
        """The tags by number."""
        return ["O", *(f"{mark}-{label}" for label in self.labels for mark in self.scheme.replace("O", ""))]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def of_span(self, length: int, label: str) -> list[int]:
        """The tags of a span of so many units."""
        marks = "B" + "I" * (length - 1)
        if self.scheme == "BIOE" and length > 1:
            marks = marks[:-1] + "E"
        return [self._numbers[f"{mark}-{label}"] for mark in marks]

    def encode(self, spans: Iterable[TypedSpan], length: int) -> tuple[list[int], int]:
        """A tag for each of ``length`` units, and how many spans were left out since they overlap an earlier one."""
        found, left_out = [0] * length, 0
        for first, last, label in spans:
            if any(found[first:last]):
                left_out += 1
            else:
                found[first:last] = self.of_span(last - first, label)
        return found, left_out

    def decode(self, path: Sequence[int]) -> list[TypedSpan]:
        """Typed spans of a tag sequence, legal or not.

        A mark that continues nothing begins a span; an ``E`` closes the one that it stands in.
        """
        spans: list[TypedSpan] = []
        closed = True
        for at, number in enumerate(path):
            if number == 0:
                closed = True
                continue
            mark, label = self.names[number].split("-", 1)
            if mark in "IE" and spans and not closed and spans[-1][1:] == (at, label):
                spans[-1] = (spans[-1][0], at + 1, label)
            else:
                spans.append((at, at + 1, label))
            closed = mark == "E"
        return spans

    def legal(self) -> Tensor:
        """Bool ``[K + 1, K]``: which tag may follow which; the last row is the start of a text (`CRF.viterbi`)."""

        def follows(before: str, tag: str) -> bool:
            mark, _, label = tag.partition("-")
            return mark not in ("I", "E") or before in (f"B-{label}", f"I-{label}")

        return torch.tensor([[follows(before, tag) for tag in self.names] for before in [*self.names, "O"]])

    def only(self, labels: Iterable[str]) -> Tensor:
        """Bool ``[K]``: ``O`` and the tags of some of the labels."""
        wanted = set(labels)
        return torch.tensor([name == "O" or name.split("-", 1)[1] in wanted for name in self.names])

    def sure(self, posterior: Tensor, spans: Sequence[TypedSpan]) -> list[float]:
        """For each span the smallest posterior among its units' tags; ``posterior [W, K]`` are probabilities."""
        return [
            min(float(posterior[first + n, tag]) for n, tag in enumerate(self.of_span(last - first, label)))
            for first, last, label in spans
        ]


def encode_values(example: Any, names: Sequence[str], text: Text, tags: Tags) -> tuple[list[int] | None, Counter[str]]:
    """The gold tags of attribute values over a text's units, each named by its attribute; None without gold.

    Every place of every value is tagged. Counted: ``values_not_in_text``, ``values_overlapping`` (the value of an
    attribute asked earlier stands there), ``attributes_without_gold``.
    """
    if example.gold is None:
        return None, Counter()
    spans: list[TypedSpan] = []
    counts = Counter[str]()
    for name in names:
        own, remarks = gold_spans(example, name, text)
        counts += remarks
        spans += typed(own or (), name)
    encoded, left_out = tags.encode(spans, len(text.pieces))
    if left_out:
        counts["values_overlapping"] += left_out
    return encoded, counts


def typed(spans: Iterable[tuple[int, int]], label: str) -> list[TypedSpan]:
    """Spans ``(first, last)`` of one label for `Tags.encode`, the longest first: of two places that overlap ("red" in
    "dark red") it is the value."""
    return [(i, j + 1, label) for i, j in sorted(spans, key=lambda span: span[0] - span[1])]


def decode_values(
    example: Any, names: Sequence[str], text: Text, path: Sequence[int], posterior: Tensor, tags: Tags
) -> dict[str, tuple[tuple[str, ...], float]]:
    """Each attribute's surest span (ties: the first) with its probability, or absence with that of no span.

    Args:
        example, names: the product and the attributes asked; their labels in ``tags`` are their names.
        text: the units.
        path: a tag for each unit.
        posterior: ``[W, K]`` probabilities.
        tags: the scheme.
    """
    spans = tags.decode(path)
    best: dict[str, tuple[float, str]] = {}
    for (first, last, label), sure in zip(spans, tags.sure(posterior, spans), strict=True):
        if label in names and sure > best.get(label, (-1.0, ""))[0]:
            best[label] = sure, example.text[text.spans[first][0] : text.spans[last - 1][1]]
    found: dict[str, tuple[tuple[str, ...], float]] = {}
    for name in names:
        if name in best:
            found[name] = (best[name][1],), best[name][0]
        else:
            begin = tags.of_span(1, name)[0]
            found[name] = (), 1.0 - float(posterior[:, begin].max())
    return found


def merge_values(example: Any, found: Iterable[Mapping[str, tuple[tuple[str, ...], float | None]]]) -> tuple[Any, Any]:
    """One example's answer and its probabilities by attribute, of what was found for its attributes."""
    from ...tasks.attributes import Answer

    merged = {name: said for one in found for name, said in one.items()}
    return Answer(values={name: merged[name][0] for name in example.asked}), {
        name: merged[name][1] for name in example.asked
    }
