"""What is knowledge: pure decisions about one answer, each with a reason out of a closed set.

An answer in JSON is parsed, then asked where its values stand (`grounding`) and whether it says what the gold says
(agreement, under the task's own metric). A rationale in free text has nothing to compare: it is knowledge unless it is
empty, cut short, in circles, a refusal, or tells an answer that it was not to know (`leaks`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ...eval import attributes as attribute_metric
from ...eval import ranking as ranking_metric
from ...eval import relations as relation_metric
from ...eval import spans as span_metric
from ...prompts.faults import NULLS, Fault, FaultName
from ...prompts.messages import Prompt
from ...prompts.parse import parse, parse_rationale
from ...tasks.graph import Ranking
from ...tasks.record import Record
from ...tasks.task import DataFault, Task
from .grounding import Found, PictureText, Where, as_json, evidence, grounded, ocr_in_context
from .leaks import leak

Status = Literal["kept", "quarantined", "failed"]

#: Example id to the ids of the entities that are right, its gold among them (`tasks.known.KnownAnswers.ids`).
Known = Mapping[str, Collection[str]]

#: Why an answer is no knowledge: the parser's faults, and what is found after parsing.
REASONS: tuple[str, ...] = (*get_args(FaultName), "ungrounded", "disagrees", "leak")


@dataclass(frozen=True)
class Verdict:
    """What becomes of an answer, and what was measured on the way.

    Attributes:
        reason: why it is not kept, out of `REASONS`; ``detail`` says it in words.
        answer: the parsed answer; None for free text and for what cannot be parsed.
        agreement: see `agreement`.
        evidence: where each of its values stands, see `grounding.evidence`.
        repaired: whether the parser had to mend the form.
    """

    status: Status = "kept"
    reason: str | None = None
    detail: str = ""
    answer: Record | None = None
    agreement: float | None = None
    evidence: tuple[Found, ...] = ()
    repaired: bool = False

    @property
    def grounded(self) -> Where | None:
        """How well the worst grounded of its values is; None where there is nothing to look for."""
        return grounded(self.evidence)

    def because(self, reason: str, detail: str) -> Verdict:
        """The same, quarantined."""
        return replace(self, status="quarantined", reason=reason, detail=detail)

    def columns(self, vote: float | None = None) -> dict[str, Any]:
        """The corpus columns that it decides, with the vote of its sample."""
        return {
            "answer": self.answer.model_dump_json() if self.answer else None,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail or None,
            "agreement": self.agreement,
            "grounded": self.grounded,
            "evidence": as_json(self.evidence),
            "repaired": self.repaired,
            "vote": vote,
            "weight": weight(self.status, vote),
        }


def verdict(
    task: Task,
    example: Any,
    schema: Any,
    prompt: Prompt,
    text: str,
    finish: str = "stop",
    min_agreement: float | None = None,
    require_grounded: bool = True,
    picture_text: PictureText = ocr_in_context,
    known: Known | None = None,
) -> Verdict:
    """Decide on one answer.

    Args:
        prompt: what was asked; its words say what the teacher was shown, its answer schema whether JSON was
            wanted.
        min_agreement: quarantine what agrees less with gold; None only measures.
        require_grounded: quarantine an answer with a value that is neither in the text nor in its pictures' text
            (inferred); False only measures.
        picture_text: reads the words in an example's pictures, for a value that is not in the text; by default
            they are those in its context (``ocr``).
        known: other entities that are right as well, see `agreement`.
    """
    if prompt.answer_schema is None:
        return _of_free_text(prompt, example, schema, text, finish)
    parsed = parse(task, text, example, schema, finish=finish)
    if isinstance(parsed, Fault):
        return Verdict().because(parsed.name, parsed.detail)
    found = Verdict(
        answer=parsed.answer,
        agreement=agreement(task, example, parsed.answer, known),
        evidence=evidence(task, example, schema, parsed.answer, picture_text),
        repaired=parsed.repaired is not None,
    )
    inferred = [repr(f.value) for f in found.evidence if f.where == "inferred"]
    if require_grounded and inferred:
        return found.because("ungrounded", f"not in the source: {', '.join(inferred[:5])}")
    if min_agreement is not None and found.agreement is not None and found.agreement < min_agreement:
        return found.because("disagrees", f"agreement with gold {found.agreement:.2f}, asked {min_agreement:.2f}")
    return found


def _of_free_text(prompt: Prompt, example: Any, schema: Any, text: str, finish: str) -> Verdict:
    parsed = parse_rationale(text, finish=finish)
    if isinstance(parsed, Fault):
        return Verdict().because(parsed.name, parsed.detail)
    found = Verdict(repaired=parsed.repaired is not None)
    if parsed.answer.strip(" .").lower() in NULLS:
        return found.because("empty", f"it says {parsed.answer!r}")
    shown = "\n".join(message.text for message in prompt.messages)
    said = leak(text, example.text, getattr(schema, "labels", ()), shown)
    return found.because("leak", said) if said else found


def agreement(task: Task, example: Any, answer: Any, known: Known | None = None) -> float | None:
    """How far an answer says what the gold says: 0 to 1 (an exact match), compared as the task's metric does.

    ``ner``: F1 of the typed spans by character offsets (1 if both are empty). ``attributes``: the share of
    the slots that gold speaks of in which value, or absence, is right. ``relations``: 1 or 0 for a pair's relation,
    F1 of the triples of a text. ``completion``, ``alignment``, ``linking``: the reciprocal rank of the gold entity,
    0 where it is left out; where gold is NIL, 1 or 0; F1 of the links (mention by offsets, first entity) where
    mentions were to be detected. None without gold, or where gold speaks of no slot.

    Args:
        known: entities that are right beside gold; they are taken out before ranking (filtered, see `eval.ranking`). An
            answer that names nothing else is neither right nor wrong by this gold: None.
    """
    if example.gold is None:
        return None
    if task.key == "ner":
        right, said, gold = span_metric.count([example], [answer]).table[0].sum(axis=0).tolist()
        return _f1(right, said, gold)
    if task.key == "attributes":
        cases = [
            attribute_metric.case(attribute_metric.values(example.gold, name), attribute_metric.values(answer, name))
            for name in example.gold.values
        ]
        return sum(case in ("nn", "vc") for case in cases) / len(cases) if cases else None
    if task.key == "relations":
        return relation_metric.agreement(example, answer)
    if task.key == "linking" and example.mention is None:
        said_links, gold_links = _links(answer), _links(example.gold)
        return _f1(len(said_links & gold_links), len(said_links), len(gold_links))
    if task.key in ("completion", "alignment", "linking"):
        others = set((known or {}).get(example.id, ())) - set(example.gold.ranking)
        if answer.ranking and others.issuperset(answer.ranking):
            return None
        return 1 / ranking_metric.rank(answer, example.gold, others)
    raise DataFault(
        task.key, "its answers cannot be verified yet", "teach teachers/knowledge/verify.py to compare them"
    )


def _f1(right: int, said: int, gold: int) -> float:
    return 2 * right / (said + gold) if said + gold else 1.0


def _links(answer: Any) -> set[tuple[Any, ...]]:
    """The links by offsets and first entity; a mention that was not found stands apart by its text."""
    return {(m.start, m.end, "" if m.start is not None else m.text, best) for m, best in _pairs(answer)}


def _pairs(answer: Any) -> list[tuple[Any, str | None]]:
    return [(link.mention, link.entity.best) for link in answer.links]


def votes(answers: Sequence[Record | None]) -> list[float | None]:
    """For each sample of one question, the share of all samples that gave the same answer.

    None for a sample without an answer (it counts among all) and where there is one sample only. Answers are
    the same if they say the same in whatever order, case and spacing; rankings if they put the same entity first.
    Source: Wang et al. (2023), "Self-Consistency Improves Chain of Thought Reasoning in Language Models".
    """
    if len(answers) < 2:
        return [None] * len(answers)
    said = [None if answer is None else _said(answer) for answer in answers]
    counts = Counter(said)
    return [None if answer is None else counts[answer] / len(said) for answer in said]


def weight(status: Status, vote: float | None) -> float:
    """What a row counts in a student's loss: its vote, 1 where nobody voted, 0 where it is no knowledge."""
    if status != "kept":
        return 0.0
    return 1.0 if vote is None else vote


def same(first: Record | None, second: Record | None) -> bool:
    """Whether two answers say the same, as `votes` compares them."""
    return (first and _said(first)) == (second and _said(second))


def _said(answer: Record) -> str:
    if isinstance(answer, Ranking) and not getattr(answer, "links", ()):
        return json.dumps(answer.best)
    return _canonical(answer.model_dump(mode="json"))


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        value = {key: _canonical(v) for key, v in value.items()}
    elif isinstance(value, list):
        value = sorted(map(_canonical, value))
    elif isinstance(value, str):
        value = " ".join(value.casefold().split())
    return json.dumps(value, sort_keys=True)
