"""From the plan and the ledger to the corpus's rows: what was asked, what came back, what it is worth."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, get_args

from ...tasks.task import Task
from ..knowledge import duplicates, probe, verify
from ..ledger.ledger import Ledger
from ..ledger.row import Row
from ..teacher import Failure
from .plan import Item

#: Why there is no answer: the teachers' failures; it could not be rendered; the engine ended without a reply.
FAILURES: tuple[str, ...] = (*(f for f in get_args(Failure) if f != "pending"), "render", "no_reply")
#: Why a row is not kept: the closed set. (A reply that is `pending` makes no row yet.)
REASONS: tuple[str, ...] = tuple(dict.fromkeys((*verify.REASONS, *FAILURES)))


@dataclass(frozen=True)
class Rows:
    """How replies become rows.

    Attributes:
        examples: as the reader gave them; near-duplicates are looked for among them.
        spec, identity: the teacher's.
        left: why a request has no reply, by key; ``pending`` where nothing is said.
        blind: an item's place in the plan to the same without its picture, if that was asked (see `probe`).
        min_agreement, require_grounded, known: see `verify.verdict`.
        tally: rows by status and reason, counted as they are made.
    """

    task: Task
    examples: Sequence[Any]
    schema: Any
    spec: str
    identity: Mapping[str, Any]
    min_agreement: float | None = None
    require_grounded: bool = True
    known: verify.Known | None = None
    left: dict[str, str] = field(default_factory=dict)
    blind: Mapping[int, Item] = field(default_factory=dict)
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)

    def verdict(self, item: Item, reply: Row | None) -> verify.Verdict | None:
        """Failed for one of `FAILURES`, or what `verify.verdict` says of the answer; None: it is still to come."""
        if item.request is None:
            return verify.Verdict("failed", item.reason, str(item.fault))
        if reply is None:
            why = self.left.get(item.request.key, "pending")
            return None if why == "pending" else verify.Verdict("failed", why, _WORDS[why])
        if reply.failure is not None:
            return verify.Verdict("failed", reply.failure, reply.detail)
        return verify.verdict(
            self.task,
            item.example,
            self.schema,
            item.request.prompt,
            reply.text,
            reply.finish,
            self.min_agreement,
            self.require_grounded,
            known=self.known,
        )

    def make(self, items: Sequence[Item], ledger: Ledger) -> Iterator[dict[str, Any]]:
        """The corpus rows in the plan's order. Tokens of a shared reply stand in its first row."""
        repeats = duplicates.near_duplicates(self.examples), duplicates.image_duplicates(self.examples)
        images = {example.id: duplicates.hashes(example.images) for example in self.examples}
        who = hashlib.sha256(json.dumps(dict(self.identity), sort_keys=True).encode()).hexdigest()
        spent: set[str] = set()
        places = enumerate(items)
        for _, group in groupby(places, key=lambda p: (p[1].example.id, p[1].template.name, p[1].about)):
            made: list[tuple[dict[str, Any], verify.Verdict]] = []
            for place, item in group:
                reply = _reply(item, ledger)
                verdict = self.verdict(item, reply)
                if verdict is None:
                    self.tally["pending", ""] += 1
                    continue
                id = item.example.id
                row = _asked(item) | _said(reply, spent) | self._probed(place, item, verdict, ledger)
                row |= {"task": self.task.key, "teacher": self.spec, "teacher_digest": who, "images": images[id]}
                row |= {"duplicate_of": repeats[0].get(id), "image_duplicate_of": repeats[1].get(id)}
                made.append((row, verdict))
            votes = verify.votes([verdict.answer for _, verdict in made])
            for (row, verdict), vote in zip(made, votes, strict=True):
                self.tally[verdict.status, verdict.reason or ""] += 1
                yield row | verdict.columns(vote)

    def _probed(self, place: int, item: Item, seen: verify.Verdict, ledger: Ledger) -> dict[str, Any]:
        blind = self.blind.get(place)
        if blind is None:
            return {}
        unseen = self.verdict(blind, _reply(blind, ledger))
        return {} if unseen is None else probe.columns(self.task, item.example, seen, unseen, self.known)


_WORDS = {
    "no_reply": "the engine ended without a reply to this request",
    "over_budget": "never asked: the budget was spent",
}


def _reply(item: Item, ledger: Ledger) -> Row | None:
    return ledger.row(item.request.key) if item.request else None


def _asked(item: Item) -> dict[str, Any]:
    """The columns that are known before any reply."""
    return {
        "id": item.example.id,
        "prompt": item.template.name,
        "about": item.about,
        "digest": item.template.digest,
        "hinted": item.template.sees_gold,
        "sample": item.sample,
        "key": item.request.key if item.request else None,
    }


def _said(reply: Row | None, spent: set[str]) -> dict[str, Any]:
    """What came back; its tokens once."""
    if reply is None:
        return {"text": ""}
    said: dict[str, Any] = {"text": reply.text, "reasoning": reply.reasoning or None, "time": reply.time}
    if reply.key not in spent:
        said |= reply.usage.model_dump()
        spent.add(reply.key)
    return said
