"""Products asked of a teacher through a template: demonstrations, votes, confidence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..prompts.library import find, full_name
from ..tasks import TASKS
from ..tasks.attributes import Attribute, Example, Schema
from ..tasks.task import DataFault
from ..teachers.ask import Said, ask
from ..teachers.describe import Describer
from ..teachers.ledger.ledger import Ledger
from ..teachers.spec import teacher as of_spec
from .confidence import of_reply
from .counts import Counts
from .rows import Outcome
from .voting import changed, is_unsure, shuffled, vote

#: What is asked where no template is named.
PROMPT = "extract.schema"
#: What a base model that was never instructed (``demo``) is asked, with the bundled products for demonstrations.
BASE_PROMPT = "few_shot"
#: Examples with gold, or what picks some of them for an example.
Demonstrations = Sequence[Example] | Callable[[Any], Sequence[Any]]


class ByTeacher:
    """Asks a teacher. See `extract` for the options.

    Args:
        teacher: a `Teacher`, or its spec; made here, it is closed here.
        kept: a folder where descriptions of pictures are kept, for a teacher that cannot see.
    """

    def __init__(
        self,
        teacher: Any,
        schema: Schema,
        prompt: str | None,
        shots: int,
        demonstrations: Demonstrations,
        votes: int,
        vote_below: float | None,
        confidence: bool,
        kept: Path | None,
    ) -> None:
        if not schema.attributes:
            raise DataFault("the attributes", "there are none", "name them: a teacher has none of its own")
        if votes < 1 or (vote_below is not None and votes < 2):
            raise DataFault(f"{votes} votes", "1 asks once; vote_below needs votes of 2 or more", "give votes=3 or so")
        shown = list(schema.attributes)
        if teacher == "demo" and prompt is None:
            prompt = BASE_PROMPT
        if teacher == "demo" and prompt == BASE_PROMPT and not demonstrations:
            from ..tasks.readers import jsonl

            sample = jsonl.read(Path(__file__).parent.parent / "demo" / "products.jsonl")
            demonstrations = sample.split("train")
            names = {attribute.name for attribute in shown}
            shown += [attribute for attribute in sample.schema.attributes if attribute.name not in names]
        self.template = find(full_name(prompt or PROMPT, "attributes"))
        if demonstrations and "demonstrations" not in self.template.takes:
            remedy = f"ask with --prompt {PROMPT} or {BASE_PROMPT}, or give no demonstrations"
            raise DataFault(f"the template {self.template.name}", "shows no worked examples", remedy)
        shown += _unknown(Schema(attributes=tuple(shown)), _pool(demonstrations))
        self.schema = Schema(attributes=tuple(shown))
        self.shots, self.demonstrations = shots, demonstrations
        self.votes, self.vote_below = votes, vote_below
        self.confidence = confidence or vote_below is not None
        self._own = isinstance(teacher, str)
        self.engine = of_spec(teacher) if self._own else teacher
        self._describe = None if self.engine.sees_images else Describer(kept).describe
        self._asked = False

    def settings(self) -> dict[str, Any]:
        """What decides the answers."""
        return {
            "teacher": dict(self.engine.identity()),
            "prompt": {self.template.name: self.template.digest},
            "shots": getattr(self.demonstrations, "shots", self.shots) if self.demonstrations else 0,
            "demonstrations": _digest(_pool(self.demonstrations)) if self.demonstrations else None,
            "picked_by": type(self.demonstrations).__name__ if callable(self.demonstrations) else "words",
            "votes": self.votes,
            "vote_below": self.vote_below,
            "confidence": self.confidence,
        }

    def answers(
        self, examples: Sequence[Example], counts: Counts, ledger: Ledger | None = None, retry_failed: bool = False
    ) -> list[Outcome]:
        """An outcome an example, in their order."""
        said = self._ask(examples, ledger, retry_failed)
        outcomes = [self._outcome(one) for one in said]
        if self.votes > 1:
            self._vote(outcomes, counts, ledger, retry_failed)
        return outcomes

    def close(self) -> None:
        """Free what a teacher that was made here holds."""
        if self._own:
            self.engine.close()

    def _ask(self, examples: Sequence[Example], ledger: Ledger | None, retry_failed: bool) -> list[Said]:
        said = list(
            ask(
                self.engine,
                TASKS["attributes"],
                examples,
                self.schema,
                self.template.name,
                self.demonstrations,
                self.shots,
                self._describe,
                chunk=max(1, len(examples)),
                ledger=ledger,
                retry_failed=retry_failed,
                refuse=not self._asked,
                logprobs=self.confidence,
            )
        )
        self._asked = True
        return said

    def _outcome(self, said: Said) -> Outcome:
        if said.answer is None:
            return Outcome(said.seen, None, {}, said.fault, said.detail)
        confidence: Mapping[str, float | None] = {}
        if self.confidence:
            confidence = of_reply(said.reply, said.answer, said.seen)
        return Outcome(said.seen, said.answer, confidence)

    def _vote(self, outcomes: list[Outcome], counts: Counts, ledger: Ledger | None, retry_failed: bool) -> None:
        """Ask again, with the attributes in other orders, what is unsure; the most frequent answer counts."""
        orders = {
            n: list(shuffled(outcome.seen, self.votes - 1))
            for n, outcome in enumerate(outcomes)
            if outcome.answer is not None and is_unsure(outcome.confidence, outcome.seen.asked, self.vote_below)
        }
        examples = [example for others in orders.values() for example in others]
        said = iter(self._ask(examples, ledger, retry_failed) if examples else ())
        for n, others in orders.items():
            first = outcomes[n]
            if not others or first.answer is None:
                counts.notes["not_voted_on_since_a_single_attribute_has_one_order"] += 1
                continue
            again = [next(said) for _ in others]
            answer, shares = vote([first.answer, *(one.answer for one in again if one.answer is not None)])
            counts.asked_again += 1
            counts.changed += changed(first.answer, answer)
            counts.notes["votes_without_an_answer"] += sum(one.answer is None for one in again)
            outcomes[n] = Outcome(first.seen, answer, shares)


def _pool(demonstrations: Demonstrations) -> Sequence[Example]:
    """The examples that may be shown, as far as that can be known."""
    return getattr(demonstrations, "pool", ()) if callable(demonstrations) else demonstrations


def _unknown(schema: Schema, demonstrations: Sequence[Example]) -> list[Attribute]:
    """Attributes that demonstrations are asked and the schema does not know, so that they can be shown."""
    found: dict[str, Attribute] = {}
    for example in demonstrations:
        known = {attribute.name for attribute in schema.of(example.category)}
        found |= {name: Attribute(name=name, type="free") for name in example.asked if name not in known}
    return list(found.values())


def _digest(demonstrations: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in demonstrations:
        digest.update(example.model_dump_json().encode())
    return digest.hexdigest()
