"""What is knowledge: pure decisions about one answer, each with a reason out of a closed set.

An answer in JSON is parsed, then asked whether its values stand in the source (grounded) and whether it says
what the gold says (agreement, under the task's own metric). A rationale in free text has nothing to compare:
it is knowledge unless it is empty, cut short, in circles, a refusal, or tells an answer that it was not to
know (leak).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ..eval import attributes as attribute_metric
from ..eval import spans as span_metric
from ..prompts.faults import NULLS, Fault, FaultName, Parsed
from ..prompts.messages import Prompt
from ..prompts.parse import parse, parse_rationale
from ..tasks.record import Record
from ..tasks.task import DataFault, Task

Status = Literal["kept", "quarantined", "failed"]

#: Why an answer is no knowledge: the parser's faults, and what is found after parsing.
REASONS: tuple[str, ...] = (*get_args(FaultName), "ungrounded", "disagrees", "leak")


@dataclass(frozen=True)
class Verdict:
    """What becomes of an answer, and what was measured on the way.

    Attributes:
        reason: why it is not kept, out of `REASONS`; ``detail`` says it in words.
        answer: the parsed answer; None for free text and for what cannot be parsed.
        agreement: see `agreement`.
        grounded: see `grounded`.
        repaired: whether the parser had to mend the form.
    """

    status: Status = "kept"
    reason: str | None = None
    detail: str = ""
    answer: Record | None = None
    agreement: float | None = None
    grounded: bool | None = None
    repaired: bool = False

    def because(self, reason: str, detail: str) -> Verdict:
        """The same, quarantined."""
        return replace(self, status="quarantined", reason=reason, detail=detail)


def verdict(
    task: Task,
    example: Any,
    schema: Any,
    prompt: Prompt,
    text: str,
    finish: str = "stop",
    min_agreement: float | None = None,
    require_grounded: bool = True,
) -> Verdict:
    """Decide on one answer.

    Args:
        prompt: what was asked; its words say what the teacher was shown, its answer schema whether JSON was
            wanted.
        min_agreement: quarantine what agrees less with gold; None only measures.
        require_grounded: quarantine an answer with a value that is not in the source; False only measures.
    """
    if prompt.answer_schema is None:
        return _of_free_text(prompt, example, schema, text, finish)
    parsed = parse(task, text, example, schema, finish=finish)
    if isinstance(parsed, Fault):
        return Verdict().because(parsed.name, parsed.detail)
    found = Verdict(
        answer=parsed.answer,
        agreement=agreement(task, example, parsed.answer),
        grounded=grounded(task, example, schema, parsed),
        repaired=parsed.repaired is not None,
    )
    if require_grounded and found.grounded is False:
        return found.because("ungrounded", f"not in the source: {', '.join(map(repr, parsed.ungrounded[:5]))}")
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


def grounded(task: Task, example: Any, schema: Any, parsed: Parsed) -> bool | None:
    """Whether every mention (`ner`) or verbatim value (`attributes`) was found in the source.

    None where there is nothing to look for: an empty answer, or only values that need not stand in the text.
    """
    if parsed.ungrounded:
        return False
    if task.key == "ner":
        return True if parsed.answer.entities else None
    if task.key == "attributes":
        said = [name for name, values in parsed.answer.values.items() if values]
        kinds = {schema.attribute(name, example.category).type for name in said}
        return True if "verbatim" in kinds else None
    raise _unknown(task)


def agreement(task: Task, example: Any, answer: Any) -> float | None:
    """How far an answer says what the gold says: 0 to 1 (an exact match), compared as the task's metric does.

    ``ner``: F1 of the typed spans by character offsets (1 if both are empty). ``attributes``: the share of
    the slots that gold speaks of in which value, or absence, is right. None without gold, or where gold
    speaks of no slot.
    """
    if example.gold is None:
        return None
    if task.key == "ner":
        right, said, gold = span_metric.count([example], [answer]).table[0].sum(axis=0).tolist()
        return 2 * right / (said + gold) if said + gold else 1.0
    if task.key == "attributes":
        cases = [
            attribute_metric.case(attribute_metric.values(example.gold, name), attribute_metric.values(answer, name))
            for name in example.gold.values
        ]
        return sum(case in ("nn", "vc") for case in cases) / len(cases) if cases else None
    raise _unknown(task)


#: Words that betray an answer key, such as "the given answer", "gold labels", "ground truth".
_KEY_WORDS = re.compile(
    r"\b(?:given|provided|reference|expected|supplied)\s+(?:answers?|labels?|tags?|annotations?)\b"
    r"|\bgold(?:en)?[\s-]+(?:standard\s+)?(?:answers?|labels?|tags?|annotations?|entit(?:y|ies))\b"
    r"|\bground[\s-]truth\b|\bthe\s+(?:answer|label)s?\s+(?:you|that\s+you|I)\s+(?:\w+\s+){0,2}given\b",
    re.IGNORECASE,
)


def leak(text: str, source: str = "", labels: Iterable[str] = (), shown: str = "") -> str:
    """What in a rationale speaks of an answer key; empty if nothing does.

    Looked for are phrases such as "the given answer", and the labels' tags verbatim (``PER``, ``B-LOC``): a
    teacher that was not shown the tags cannot know them. A phrase is looked for even where the prompt gave
    the answer: knowledge that speaks of its answer key is of no use to a student that has none.

    Args:
        source: the example's own text; what stands there is no leak.
        labels: the schema's labels; those that are everyday words count only with their B- or I- before them.
        shown: the words of the prompt; tags that stand there are no leak.
    """
    known = " ".join(source.casefold().split())
    for match in _KEY_WORDS.finditer(text):
        if " ".join(match[0].casefold().split()) not in known:
            return f"it speaks of {match[0]!r}"
    for label in labels:
        bare = re.fullmatch(r"[A-Z][A-Z_]*[A-Z]", label) is not None
        tag = re.compile(rf"(?<![\w#@])(?:[BIES]-){'?' if bare else ''}{re.escape(label)}(?!\w)")
        written = tag.search(text)
        if written and not tag.search(f"{source}\n{shown}"):
            return f"it writes the tag {written[0]!r}, which it was not shown"
    return ""


def votes(answers: Sequence[Record | None]) -> list[float | None]:
    """For each sample of one question, the share of all samples that gave the same answer.

    None for a sample without an answer (it counts among all) and where there is one sample only. Answers are
    the same if they say the same in whatever order, case and spacing.
    """
    said = [None if answer is None else _canonical(answer.model_dump(mode="json")) for answer in answers]
    counts = Counter(said)
    if len(said) < 2:
        return [None] * len(said)
    return [None if answer is None else counts[answer] / len(said) for answer in said]


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        value = {key: _canonical(v) for key, v in value.items()}
    elif isinstance(value, list):
        value = sorted(map(_canonical, value))
    elif isinstance(value, str):
        value = " ".join(value.casefold().split())
    return json.dumps(value, sort_keys=True)


def _unknown(task: Task) -> DataFault:
    return DataFault(task.key, "its answers cannot be verified yet", "teach teachers/verify.py to compare them")
