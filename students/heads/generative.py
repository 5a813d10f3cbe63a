"""Generative head: a decoder writes the task's answer as JSON, and `prompts.parse` reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...prompts.faults import Fault
from ...prompts.parse import parse
from ...prompts.view import as_json
from ...tasks import attributes, ner
from ..collate import Collated, Found, Item, Layout, Reading, Row, pad, stack
from ..student import View

#: What a target is that teaches nothing.
IGNORED = -100


class GenerativeHead(nn.Module):
    """Teaches the language model of a decoder to answer; it has no weights of its own.

    A row is ``side texts, task, text, answer``, the answer as the teachers' JSON. The loss is that of the answer's
    sub-tokens and of the end token alone, and only for these are logits computed: a large vocabulary costs little.

    Args:
        schemas: the schemas by task key.
        max_new_tokens: the longest answer; one that has not ended by then is counted as ``length``.
    """

    def __init__(self, schemas: Mapping[str, Any], max_new_tokens: int) -> None:
        super().__init__()
        self.schemas, self.max_new_tokens = dict(schemas), max_new_tokens

    def collate(self, items: Sequence[Item], layout: Layout, view: View, training: bool) -> Collated:
        """Rows with the answer where there is gold, and ``labels [R, T]``, which cover exactly the answer."""
        rows, labels, counts = [], [], Counter[str]()
        for item in items:
            example = item.example
            answer = self._answer(item)
            target = answer_tokens(layout, answer) if answer is not None else []
            (row,), cut = layout.rows(
                layout.read(example, view.text),
                example.id,
                question=self._task(item),
                sides=layout.sides(example, view),
                reserve=max(len(target), self.max_new_tokens if not training else 0),
                windowed=False,
            )
            counts += cut
            labels.append([IGNORED] * len(row.ids) + target)
            rows.append(append(row, target))
        tensors = stack(layout.encoder, rows, [item.index for item in items])
        tensors["labels"] = pad(labels, IGNORED)
        return tensors, counts

    def _task(self, item: Item) -> str:
        """What is asked, in a line."""
        if isinstance(item.example, ner.Example):
            types = ", ".join(f"{t.name} ({t.title})" for t in self.schemas["ner"].types)
            return f"List the entities in the text as JSON. Types: {types}."
        schema, category = self.schemas["attributes"], item.example.category
        asked = []
        for attribute in (schema.attribute(name, category) for name in item.labels):
            asked.append(attribute.name + (f" ({' | '.join(attribute.choices)})" if attribute.choices else ""))
        product = f" of this {category}" if category else ""
        return f"Give the attributes{product} as JSON, null if absent: {'; '.join(asked)}."

    def _answer(self, item: Item) -> str | None:
        """The gold answer as JSON, or None where there is none (or not all of it)."""
        gold = item.example.gold
        if gold is None:
            return None
        if isinstance(item.example, ner.Example):
            return as_json(gold, item.example)
        if not all(name in gold.values for name in item.labels):
            return None
        asked = attributes.Answer(values={name: gold.values[name] for name in item.labels})
        return as_json(asked, item.example, self.schemas["attributes"])

    def forward(self, reading: Reading, tensors: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Mean loss over the answers' sub-tokens; no scores."""
        labels = tensors["labels"]
        if not (labels != IGNORED).any():
            return None, {}
        return language_loss(reading, tensors, labels), {}

    def answer_all(
        self, reading: Reading, items: Sequence[Item], layout: Layout, tensors: dict[str, Tensor]
    ) -> tuple[list[Found], Counter[str]]:
        """What the decoder writes for each item; what cannot be read is an empty answer, counted by its fault."""
        rows = questions_alone(tensors)
        found: list[Found] = []
        counts = Counter[str]()
        sub = layout.encoder.sub_tokens
        for item, ids in zip(items, reading.generate(rows, self.max_new_tokens), strict=True):
            finish = "stop" if ids and ids[-1] == sub.end else "length"
            text = sub.tokenizer.decode(ids, skip_special_tokens=True)
            mentions = isinstance(item.example, ner.Example)
            task = "ner" if mentions else "attributes"
            asked = item.example if mentions else item.example.model_copy(update={"asked": item.labels})
            parsed = parse(task, text, asked, self.schemas[task], finish)
            if isinstance(parsed, Fault):
                counts[f"unreadable_{parsed.name}"] += 1
                found.append([] if mentions else dict.fromkeys(item.labels, ((), None)))
            elif mentions:
                found.append([(entity, None) for entity in parsed.answer.entities])
            else:
                found.append({name: (parsed.answer.values.get(name, ()), None) for name in item.labels})
        return found, counts


def answer_tokens(layout: Layout, answer: str) -> list[int]:
    """An answer's sub-tokens and the end token."""
    sub = layout.encoder.sub_tokens
    return [*sub.text(answer), sub.end]


def append(row: Row, ids: Sequence[int]) -> Row:
    """The row with an answer behind it."""
    count = len(ids)
    return Row(
        [*row.ids, *ids],
        [*row.segments, *[0] * count],
        [*row.shapes, *[0] * count],
        [*row.text, *[False] * count],
        row.units,
        row.at,
        row.null,
    )


def language_loss(reading: Reading, rows: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Mean cross-entropy of the labelled sub-tokens, each predicted from the state before it."""
    states = reading.states(rows)[:, :-1]
    targets = labels[:, 1:]
    known = targets != IGNORED
    return F.cross_entropy(reading.vocabulary(states[known]).float(), targets[known])


def questions_alone(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows with their answers masked out, so that a decoder may write its own."""
    asked = (rows["attention_mask"] == 1) & (rows["labels"] == IGNORED)
    return {**rows, "attention_mask": asked.to(rows["attention_mask"].dtype)}
