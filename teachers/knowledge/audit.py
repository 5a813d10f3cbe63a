"""The leakage audit of a corpus: did gold reach a teacher that was not to see it, or a rationale that must not tell it?

A prompt that is not hinted must not depend on gold. So each is rendered twice, as it was asked and with the example's
gold taken away: the two have to be the same to the letter, answer schema included. What a template cannot betray is
asked of the data: whether the right candidate always stands at the same place, and whether a named text beside the
text says a gold value that the text itself does not (counted, since the words in a picture rightly may).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...prompts.library import TemplateFault, UnknownTemplate, find
from ...prompts.messages import Prompt
from ...prompts.render import InputFault, render
from ...tasks.task import Task
from ..generation.plan import Pool
from .leaks import leak

#: So many questions must have their right candidate at one place before that is called a leak.
_ENOUGH = 20


@dataclass(frozen=True)
class Leak:
    """One finding: the example and the prompt, its kind (``depends_on_gold``, ``speaks_of_key``), and the words."""

    example: str
    prompt: str
    kind: str
    detail: str


@dataclass(frozen=True)
class Audit:
    """What an audit found: ``rows = checked + hinted + not_checked``.

    Attributes:
        rows: of the corpus.
        checked: rows whose prompt was rendered with and without gold.
        hinted: rows whose prompt was to see gold; their texts were scanned.
        not_checked: the rest, by reason.
        leaks: the findings.
        notes: counted remarks; ``gold_always_at_place_N`` is a leak of the data (see the module).
    """

    rows: int
    checked: int
    hinted: int
    not_checked: Mapping[str, int]
    leaks: tuple[Leak, ...]
    notes: Mapping[str, int]

    @property
    def clean(self) -> bool:
        """Whether nothing leaks; what was not checked is not known to leak."""
        return not self.leaks and not any(note.startswith("gold_always") for note in self.notes)

    def __str__(self) -> str:
        kinds = Counter(found.kind for found in self.leaks)
        found = ", ".join(f"{kind.replace('_', ' ')} {n:,}" for kind, n in kinds.items()) or "none"
        unknown = ", ".join(f"{why.replace('_', ' ')} {n:,}" for why, n in self.not_checked.items())
        said = f"{self.rows:,} rows = {self.checked:,} checked without gold + {self.hinted:,} hinted"
        said += f" + {sum(self.not_checked.values()):,} not checked" + (f" ({unknown})" if unknown else "")
        notes = [f"{note.replace('_', ' ')}: {number:,}" for note, number in self.notes.items()]
        first = [f"{x.kind.replace('_', ' ')}: example {x.example}, {x.prompt}: {x.detail}" for x in self.leaks[:5]]
        return "\n".join([said, f"leaks: {found}", *notes, *first])


def audit(
    rows: Iterable[Mapping[str, Any]],
    task: Task,
    examples: Sequence[Any],
    schema: Any,
    demonstrations: Sequence[Any] = (),
    shots: int = 6,
) -> Audit:
    """Audit a corpus's rows (`corpus.rows`) with the data it was made of; asks nothing and costs nothing.

    Args:
        examples: those that were asked, as the reader gives them.
        demonstrations, shots: as they were given to `generate`.
    """
    by_id = {example.id: example for example in examples}
    pool = Pool(demonstrations, shots)
    outcomes: Counter[str] = Counter()
    leaks: list[Leak] = []
    seen: dict[tuple[Any, ...], str | Leak] = {}
    for row in rows:
        example = by_id.get(row["id"])
        question = (row["id"], row["prompt"], row["digest"], row["about"], row["sample"])
        if question not in seen:
            seen[question] = "example_not_given" if example is None else _asked(row, task, example, schema, pool)
        outcome = seen[question]
        if isinstance(outcome, Leak):
            leaks.append(outcome)
        outcomes["checked" if isinstance(outcome, Leak) else outcome] += 1
        free = row["status"] == "kept" and row["answer"] is None
        if free and (words := leak(row["text"], example.text if example else "")):
            leaks.append(Leak(row["id"], row["prompt"], "speaks_of_key", words))
    total, checked, hinted = outcomes.total(), outcomes.pop("checked", 0), outcomes.pop("hinted", 0)
    notes = _places(examples) | _beside(task, examples)
    return Audit(total, checked, hinted, dict(outcomes), tuple(leaks), notes)


def _asked(row: Mapping[str, Any], task: Task, example: Any, schema: Any, pool: Pool) -> str | Leak:
    """``checked``, ``hinted``, why it cannot be checked, or the finding that the prompt depends on gold."""
    try:
        template = find(row["prompt"])
    except (UnknownTemplate, TemplateFault):
        return "template_not_found"
    if template.digest != row["digest"]:
        return "template_changed"
    if template.sees_gold:
        return "hinted"
    if "demonstrations" in template.front.needs and not pool.examples:
        return "demonstrations_not_given"
    try:
        extra: dict[str, Any] = {"wording": row["sample"]} if "wording" in template.takes else {}
        if "demonstrations" in template.takes and pool.examples:
            extra["demonstrations"] = [(d, d.gold) for d in pool.nearest(example)]
        if row["about"] is not None:
            extra |= {need: row["about"] for need in template.front.needs if need in template.takes - extra.keys()}
        with_gold = render(template, task, example, schema, **extra)
        without = render(template, task, example.model_copy(update={"gold": None}), schema, **extra)
    except InputFault:  # a picture's words that only the run had, or a subject that is gold's own
        return "cannot_be_rendered_again"
    except Exception as error:
        return Leak(row["id"], row["prompt"], "depends_on_gold", f"without gold it cannot be rendered: {error}")
    if (with_gold.messages, with_gold.answer_schema) == (without.messages, without.answer_schema):
        return "checked"
    return Leak(row["id"], row["prompt"], "depends_on_gold", _difference(with_gold, without))


def _difference(with_gold: Prompt, without: Prompt) -> str:
    """The first line that only the prompt with gold has."""
    lines = "\n".join(message.text for message in without.messages).splitlines()
    for line in "\n".join(message.text for message in with_gold.messages).splitlines():
        if line not in lines:
            return repr(line[:80])
    return "its answer schema" if with_gold.answer_schema != without.answer_schema else "its turns or pictures"


def _places(examples: Sequence[Any]) -> dict[str, int]:
    """Where gold stands among the candidates, if there are enough examples and it is always the same place."""
    places: Counter[int] = Counter()
    for example in examples:
        ids = [entity.id for entity in getattr(example, "candidates", ())]
        if example.gold is not None and len(ids) > 1 and example.gold.best in ids:
            places[ids.index(example.gold.best) + 1] += 1
    if places.total() >= _ENOUGH and len(places) == 1:
        return {f"gold_always_at_place_{next(iter(places))}": places.total()}
    return {}


def _beside(task: Task, examples: Sequence[Any]) -> dict[str, int]:
    """How many examples have a named text that says a gold value or label which the text does not say."""
    counts: Counter[str] = Counter()
    for example in examples:
        text = example.text.casefold()
        gold = [v.casefold() for v in _gold_words(task, example) if v.casefold() not in text]
        for name, beside in example.context.items():
            counts[f"gold_said_in_{name}_only"] += any(value in beside.casefold() for value in gold)
    return {note: number for note, number in counts.items() if number}


def _gold_words(task: Task, example: Any) -> list[str]:
    """What gold says in words that a text could give away."""
    gold = example.gold
    if gold is None or task.key == "ner":  # its mentions are the text's own
        return []
    if task.key == "attributes":
        return [value for values in gold.values.values() for value in values if len(value) > 2]
    if task.key == "relations":
        return [word for word in (gold.relation, *(t.relation for t in gold.triples)) if word and len(word) > 4]
    right = [entity for entity in example.candidates if entity.id == gold.best]
    return [word for entity in right for word in (entity.id, entity.name) if len(word) > 2]
