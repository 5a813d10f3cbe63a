"""Span head: answers questions by spans of the text, or by none (machine reading comprehension)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...tasks import ner
from ..collate import Collated, Found, Item, Layout, Reading, Row, Text, pad, stack
from ..student import View

#: Spans of more units (words of a post, sub-tokens of a product's text) are not looked at.
LONGEST = 40

#: Width in which a span's ends are matched.
_PAIR = 64

#: A question's wordings by entity type or attribute.
Queries = Mapping[str, Sequence[str]]


class SpanHead(nn.Module):
    """Scores every span ``(i, j)`` of units against "no answer", the score of the row's null position ``0``:
    ``s_ij = start_i + end_j + <q_i, k_j> / sqrt(64) - (start_0 + end_0)``.

    Start and end scores with no answer at [CLS] are those of BERT on SQuAD 2.0 (Devlin et al., NAACL 2019); the product
    tells which start belongs to which end where a question has several answers. All spans above ``threshold`` are
    answers of an entity type; of an attribute the best one.
    """

    def __init__(self, hidden: int, dropout: float, queries: Queries, threshold: float = 0.0) -> None:
        super().__init__()
        self.queries, self.threshold = queries, threshold
        self.dropout = nn.Dropout(dropout)
        self.ends = nn.Linear(hidden, 2, bias=False)  # a bias would be in the null score as well
        self.pair = nn.Linear(hidden, 2 * _PAIR)

    def collate(self, items: Sequence[Item], layout: Layout, view: View, training: bool) -> Collated:
        """A row for each item (example and label) and window, with the places of its units and its gold spans."""
        rows: list[Row] = []
        owners, of_item, gold, learn, counts = [], [], [], [], Counter[str]()
        for number, item in enumerate(items):
            example = item.example
            text = layout.read(example)
            own, cut = layout.rows(
                text,
                example.id,
                question=wording(self.queries, item.labels[0], training),
                sides=layout.sides(example, view),
            )
            counts += cut
            spans, remarks = gold_spans(example, item.labels[0], text)
            counts += remarks
            for row in own:
                seen = spans or []
                gold += [
                    (len(rows), i - row.units.start, j - row.units.start)
                    for i, j in seen
                    if i in row.units and j in row.units and j - i < LONGEST
                ]
                rows.append(row)
                learn.append(spans is not None)
            owners += [item.index] * len(own)
            of_item += [number] * len(own)
        tensors = stack(layout.encoder, rows, owners)
        tensors["null"] = torch.tensor([r.null for r in rows])
        tensors["first"] = pad([[a for a, _ in r.at] or [0] for r in rows])
        tensors["last"] = pad([[b for _, b in r.at] or [0] for r in rows])
        tensors["units"] = pad([[1] * len(r.at) or [0] for r in rows], dtype=torch.bool)
        tensors["offset"] = torch.tensor([r.units.start for r in rows])
        tensors["item"] = torch.tensor(of_item)
        tensors["gold"] = torch.tensor(gold, dtype=torch.long).view(-1, 3)
        tensors["learn"] = torch.tensor(learn)
        return tensors, counts

    def forward(self, reading: Reading, tensors: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Loss over the rows with gold, and ``span [R, U, U]``: each span's score above no answer, ``-inf`` where
        there is none."""
        states = self.dropout(reading.states(tensors))
        rows = torch.arange(len(states), device=states.device)
        ends, pair = self.ends(states).float(), self.pair(states).float()
        first, last = (rows[:, None], tensors["first"]), (rows[:, None], tensors["last"])
        match = pair[first][..., :_PAIR] @ pair[last][..., _PAIR:].transpose(1, 2) / _PAIR**0.5
        null = ends[rows, tensors["null"]].sum(-1)
        scores = ends[first][..., 0, None] + ends[last][..., 1][:, None] + match - null[:, None, None]
        units = tensors["units"]
        there = units[:, :, None] & units[:, None]
        there = there & there.new_ones(there.shape[1:]).triu().tril(LONGEST - 1)
        scores = scores.masked_fill(~there, -torch.inf)
        if not tensors["learn"].any():
            return None, {"span": scores}
        gold = torch.zeros_like(there)
        gold[tuple(tensors["gold"].T)] = True
        learn = tensors["learn"]
        return span_loss(scores[learn], gold[learn]).mean(), {"span": scores}

    def answers(
        self, items: Sequence[Item], layout: Layout, scores: dict[str, Tensor], tensors: dict[str, Tensor]
    ) -> list[Found]:
        """Entities (which do not overlap, the best first) or a value of each item, with its probability."""
        candidates = self._candidates(items, layout, scores["span"], tensors)
        taken: dict[int, list[tuple[int, int]]] = {item.index: [] for item in items}
        found: list[Any] = [
            [] if isinstance(item.example, ner.Example) else {item.labels[0]: ((), None)} for item in items
        ]
        for score, number, start, end in sorted(candidates, key=lambda c: -c[0]):
            item = items[number]
            text, said = item.example.text[start:end], torch.tensor(score).sigmoid().item()
            if isinstance(item.example, ner.Example):
                others = taken[item.index]
                if all(end <= a or b <= start for a, b in others):
                    others.append((start, end))
                    entity = ner.Entity(text=text, type=item.labels[0], start=start, end=end)
                    found[number].append((entity, said))
            elif not found[number][item.labels[0]][0]:
                found[number][item.labels[0]] = ((text,), said)
        return found

    def _candidates(
        self, items: Sequence[Item], layout: Layout, scores: Tensor, tensors: dict[str, Tensor]
    ) -> list[tuple[float, int, int, int]]:
        """Spans above the threshold: score, item, and the characters of the text."""
        rows, firsts, lasts = (scores > self.threshold).nonzero(as_tuple=True)
        values = scores[rows, firsts, lasts].tolist()
        numbers, offsets = tensors["item"][rows].tolist(), tensors["offset"][rows].tolist()
        texts: dict[int, Text] = {}
        found = []
        for score, number, offset, i, j in zip(values, numbers, offsets, firsts.tolist(), lasts.tolist(), strict=True):
            item = items[number]
            if item.index not in texts:
                texts[item.index] = layout.read(item.example)
            spans = texts[item.index].spans
            found.append((score, number, spans[offset + i][0], spans[offset + j][1]))
        return found


def span_loss(scores: Tensor, gold: Tensor) -> Tensor:
    """Loss ``[R]`` that lifts the gold spans above no answer (score 0) and presses all others below it.

    ``log(1 + sum_neg e^s) + log(1 + sum_pos e^-s)``: ZLPR (Su et al., 2022, arXiv 2208.02955). Without gold spans
    only the first term is left.

    Args:
        scores: ``[R, U, U]``, ``-inf`` where there is no span.
        gold: bool ``[R, U, U]``.
    """
    zero = scores.new_zeros(len(scores), 1)
    wrong = scores.masked_fill(gold, -torch.inf).flatten(1)
    right = (-scores).masked_fill(~gold, -torch.inf).flatten(1)
    return torch.cat([zero, wrong], 1).logsumexp(1) + torch.cat([zero, right], 1).logsumexp(1)


def gold_spans(example: Any, label: str, text: Text) -> tuple[list[tuple[int, int]] | None, Counter[str]]:
    """Gold spans of a label in units ``(first, last)``; None where there is nothing to learn from.

    Of an attribute, every place of every value counts (they are alternatives), whatever the case. A value that is not
    in the text, or begins or ends inside a sub-token, teaches nothing and is counted ``values_not_in_text``.
    """
    if example.gold is None:
        return None, Counter()
    starts = {a: i for i, (a, _) in reversed(list(enumerate(text.spans)))}
    ends = {b: i for i, (_, b) in enumerate(text.spans)}
    if isinstance(example, ner.Example):
        own = [e for e in example.gold.entities if e.type == label]
        spans = [(starts[e.start], ends[e.end]) for e in own if e.start in starts and e.end in ends]
        lost = len(own) - len(spans)
        return spans, Counter({"entities_inside_words": lost} if lost else {})
    if label not in example.gold.values:
        return None, Counter({"attributes_without_gold": 1})
    values = example.gold.values[label]
    spans = [
        (starts[a], ends[a + len(value)])
        for value in values
        for a in places(value, example.text)
        if a in starts and a + len(value) in ends
    ]
    if values and not spans:
        return None, Counter({"values_not_in_text": 1})
    return spans, Counter()


def places(value: str, text: str) -> list[int]:
    """Where a value stands in a text, whatever the case."""
    # Lower case one character at a time: that of a whole text may have another length (the Turkish capital I).
    lower = lambda s: "".join(c.lower() if len(c.lower()) == 1 else c for c in s)
    value, text, found = lower(value), lower(text), []
    at = text.find(value) if value else -1
    while at >= 0:
        found.append(at)
        at = text.find(value, at + 1)
    return found


def wording(queries: Queries, label: str, training: bool) -> str:
    """A label's question: any of its wordings in training, else the first."""
    own = queries[label]
    return own[int(torch.randint(len(own), ()))] if training else own[0]
