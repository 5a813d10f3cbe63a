"""From a data set to the steps of an epoch: subsets, knowledge joined, near-duplicates out, lengths
bucketed.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..tasks.task import DataFault

#: Subsets are drawn with this word and not with the run's seed: 10 % is the same 10 % in every run.
_SUBSET = "magister-subset"

#: Links and user names, also where a tokenizer has put blanks into them, and the mark of a retweet.
_REPOSTING = re.compile(r"https?\s*:\s*/\s*/\s*\S+(?:\s*[./]\s*\S+)*|@\s*\w+|\brt\b")


def subset(examples: Sequence[Any], fraction: float, limit: int | None = None) -> tuple[Any, ...]:
    """A fixed part of some examples, in their order. Nested: the 10 % lie inside the 25 %.

    The part depends on the ids alone (those with the smallest hashes), not on a seed or the order in the
    file.
    """
    count = max(1, round(len(examples) * fraction)) if examples else 0
    count = min(count, limit) if limit is not None else count
    if count == len(examples):
        return tuple(examples)
    ranked = sorted(range(len(examples)), key=lambda i: _rank(_SUBSET, examples[i].id, i))
    return tuple(examples[i] for i in sorted(ranked[:count]))


def split_off(examples: Sequence[Any], fraction: float, seed: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The rest, and a random part of ``fraction``; for data sets without a validation split."""
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    part = set(order[: max(1, round(len(examples) * fraction))])
    rest = tuple(e for i, e in enumerate(examples) if i not in part)
    return rest, tuple(e for i, e in enumerate(examples) if i in part)


def join(
    examples: Sequence[Any], texts: Mapping[str, str], where: str, name: str = "knowledge"
) -> tuple[tuple[Any, ...], int]:
    """The examples with the teacher's text of their id as ``context[name]``, and how many had none.

    Raises a `DataFault` if no id at all fits: then the knowledge is that of other data.
    """
    joined, missing = [], 0
    for example in examples:
        text = texts.get(example.id, "").strip()
        missing += not text
        context = {**example.context, name: text} if text else dict(example.context)
        joined.append(example.model_copy(update={"context": context}))
    if examples and missing == len(examples):
        raise DataFault(
            where,
            f"no id of the data is in it: the data has ids like {examples[0].id!r}, "
            f"the knowledge has ids like {next(iter(texts), 'none at all')!r}",
            "take the knowledge that was made for this data set",
        )
    return tuple(joined), missing


def normalised(text: str) -> str:
    """A text without what re-posting changes: case, "RT", links, user names, marks and blanks."""
    return " ".join(re.findall(r"\w+", _REPOSTING.sub(" ", text.casefold())))


def without_duplicates(extra: Sequence[Any], held_out: Iterable[Any]) -> tuple[tuple[Any, ...], int]:
    """The extra examples whose `normalised` text is not among those held out, and how many fell away."""
    seen = {normalised(e.text) for e in held_out}
    kept = tuple(e for e in extra if normalised(e.text) not in seen)
    return kept, len(extra) - len(kept)


def answered(
    examples: Iterable[Any], answers: Mapping[str, Any], answer: Any, where: str
) -> tuple[tuple[Any, ...], int]:
    """The examples with the teacher's answer (the task's class ``answer``) in place of gold, and how many have none.

    Raises a `DataFault` if no id fits: then the answers are those of other data.
    """
    examples = tuple(examples)
    known = [e for e in examples if e.id in answers]
    if examples and not known:
        raise DataFault(
            where,
            f"no id of the data is in it: the data has ids like {examples[0].id!r}, "
            f"the answers have ids like {next(iter(answers), 'none at all')!r}",
            "take the corpus that was made of this data set",
        )
    made = (e.model_copy(update={"gold": answer.model_validate(answers[e.id])}) for e in known)
    return tuple(made), len(examples) - len(known)


def without_gold(examples: Iterable[Any]) -> tuple[Any, ...]:
    """The same examples unlabelled: their gold is not there to be used."""
    return tuple(e.model_copy(update={"gold": None}) for e in examples)


def steps(
    examples: Sequence[Any],
    size: int,
    seed: int,
    epoch: int,
    processes: int = 1,
    reads: Sequence[str] = (),
    window: int = 50,
) -> list[list[Any]]:
    """The optimiser steps of one epoch: shuffled lists of ``size`` examples of similar length.

    Length is that of the text and of the side texts named in ``reads``. Shuffled, cut into windows of
    ``window`` steps, sorted by length within each, cut into steps, steps shuffled. The same arguments give
    the same steps, so a run can go on at any of them. A last step with fewer examples than ``processes`` is
    merged into its neighbour, so that every process has work in every step.
    """
    rng = random.Random(f"{seed}:{epoch}")
    order = list(examples)
    rng.shuffle(order)
    made: list[list[Any]] = []
    for start in range(0, len(order), size * window):
        part = sorted(order[start : start + size * window], key=lambda e: length(e, reads))
        made += [part[i : i + size] for i in range(0, len(part), size)]
    if len(made) > 1 and len(made[-1]) < processes:
        made[-2:] = [made[-2] + made[-1]]
    rng.shuffle(made)
    return made


def share(step: Sequence[Any], process: int, processes: int, size: int) -> list[list[Any]]:
    """One process's part of a step as micro-batches of at most ``size``; labelled and unlabelled kept
    apart.
    """
    own = step[process::processes]
    labelled = [e for e in own if e.gold is not None]
    unlabelled = [e for e in own if e.gold is None]
    return [kind[i : i + size] for kind in (labelled, unlabelled) for i in range(0, len(kind), size)]


def length(example: Any, reads: Sequence[str] = ()) -> int:
    """Characters of the text and of the side texts read."""
    return len(example.text) + sum(len(example.context.get(name, "")) for name in reads)


def _rank(word: str, identity: str, position: int) -> tuple[str, int]:
    return hashlib.sha256(f"{word}:{identity}".encode()).hexdigest(), position
