"""Does the form of the data give the label away? Whether a pair is related, told from metadata alone.

The published object crops of MNRE do: related pairs have more of them than others, since the crops were cut with the
gold types in mind, so that "is the third crop black?" answers the question. Here every feature that an input shows
without being read (how many pictures, which side texts, in what order the mentions stand) is asked by itself, and all
together.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..tasks.relations import Example
from ..tasks.task import DataFault
from .bootstrap import RESAMPLES, Floats, Interval, ends, resample
from .spans import ratio

PROTOCOL = (
    "Related or not, of given pairs. For each value of a feature training says whether pairs that have it are related "
    "more often than pairs at large; test pairs are judged by that alone (a value that training has not: not related). "
    "Together: naive Bayes over all features with add-one smoothing. Balanced accuracy is the mean of the recalls of "
    "both kinds, 50 % is chance; 95 % bootstrap intervals over test pairs."
)

#: A feature whose interval begins above this gives the label away; one above chance is a hint.
LEAK, CHANCE = 0.6, 0.5

#: The name of the row of all features.
TOGETHER = "all together"


@dataclass(frozen=True)
class Finding:
    """What one feature tells.

    Attributes:
        feature: its name, or `TOGETHER`.
        values: how many different values training has.
        balanced, accuracy: of test pairs judged by it.
        telling: the value that tells most in training, with the share of related pairs that it has; "" of `TOGETHER`.
    """

    feature: str
    values: int
    balanced: Interval
    accuracy: Interval
    telling: str

    @property
    def verdict(self) -> str:
        """``leaks``, ``hints`` or ``silent``."""
        return "leaks" if self.balanced.low > LEAK else "hints" if self.balanced.low > CHANCE else "silent"

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        intervals = {"balanced": self.balanced._asdict(), "accuracy": self.accuracy._asdict()}
        return {**vars(self), **intervals, "verdict": self.verdict}


def metadata(example: Example) -> dict[str, str]:
    """What an input shows without being read."""
    assert example.pair is not None
    head, tail = example.pair
    first, second = sorted(example.pair, key=lambda mention: mention.start or 0)
    between = example.text[first.end : second.start].split()
    return {
        "pictures": str(len(example.images)),
        "side texts": ", ".join(sorted(example.context)) or "none",
        "order": "tail first" if (tail.start or 0) < (head.start or 0) else "head first",
        "overlap": str((second.start or 0) < (first.end or 0)),
        "types given": f"{head.type or '-'} / {tail.type or '-'}",
        "same mention": str(head.text.lower() == tail.text.lower()),
        "retweet in a mention": str(any(re.search(r"\bRT\b", m.text) for m in example.pair)),
        "words of the head": str(len(head.text.split())),
        "words of the tail": str(len(tail.text.split())),
        "words between": _bucket(len(between)),
        "words": _bucket(len(example.text.split())),
    }


def read_features(path: Path) -> dict[str, dict[str, str]]:
    """Features by example id, of JSON lines such as ``{"id": "test-1", "crops": 4}``; a `DataFault` for a bad one."""
    found: dict[str, dict[str, str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFault(str(path), f"cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
                id = row.pop("id")
            except (ValueError, KeyError, AttributeError, TypeError):
                raise DataFault(f"{path}, line {number}", "is no JSON object with an id") from None
            found[str(id)] = {name: str(value) for name, value in row.items()}
    return found


def audit(
    train: Sequence[Example],
    test: Sequence[Example],
    none: str = "None",
    beside: Mapping[str, Mapping[str, str]] | None = None,
    resamples: int = RESAMPLES,
) -> list[Finding]:
    """What each feature tells, and all together first; then the most telling ones.

    Args:
        train, test: given pairs with gold.
        none: the label of a pair that is not related.
        beside: features of one's own by example id (the number of crops, say); a feature that an example has not is "".

    Raises:
        DataFault: no given pairs, no gold, or no features of one's own for any example.
    """
    for example in (*train, *test):
        if example.pair is None or example.gold is None:
            raise DataFault(f"example {example.id}", "is no given pair with its gold relation", "audit labelled pairs")
    if not train or not test:
        raise DataFault("audit", "needs training pairs and test pairs")
    own = _own(beside or {}, [e.id for e in (*train, *test)])
    rows = [{**metadata(e), **own(e.id)} for e in (*train, *test)]
    names = list(rows[0])
    values = np.array([list(row.values()) for row in rows], dtype=object)
    related = np.array([e.gold is not None and e.gold.relation != none for e in (*train, *test)])
    known, asked = values[: len(train)], values[len(train) :]
    truth = related[len(train) :]
    findings, together = [], np.zeros(len(test))
    for column, name in enumerate(names):
        odds = _odds(known[:, column], related[: len(train)])
        said = np.array([odds.get(value, 0.0) for value in asked[:, column]])
        together += said
        findings.append(_finding(name, len(odds), said, truth, _telling(known[:, column], related), resamples))
    findings.sort(key=lambda found: (-found.balanced.value, found.feature))
    return [_finding(TOGETHER, len(names), together, truth, "", resamples), *findings]


def _own(beside: Mapping[str, Mapping[str, str]], ids: Sequence[str]) -> _Own:
    found = [beside[id] for id in ids if id in beside]
    if beside and not found:
        raise DataFault("features", f"no id of the data is in them: the data has ids like {ids[0]!r}")
    return _Own(beside, tuple(dict.fromkeys(name for features in found for name in features)))


@dataclass(frozen=True)
class _Own:
    """Features of one's own, each example with every one of them."""

    beside: Mapping[str, Mapping[str, str]]
    names: tuple[str, ...]

    def __call__(self, id: str) -> dict[str, str]:
        return {name: str(self.beside.get(id, {}).get(name, "")) for name in self.names}


def _odds(values: Iterable[str], related: Floats) -> dict[str, float]:
    """``log P(value | related) / P(value | not)`` with add-one smoothing: above 0 where related pairs have it more."""
    counts = {True: Counter[str](), False: Counter[str]()}
    for value, is_related in zip(values, related.tolist(), strict=False):
        counts[bool(is_related)][value] += 1
    seen = {*counts[True], *counts[False]}
    share = lambda kind, value: (counts[kind][value] + 1) / (counts[kind].total() + len(seen))
    return {value: float(np.log(share(True, value) / share(False, value))) for value in seen}


def _finding(name: str, values: int, odds: Floats, truth: Floats, telling: str, resamples: int) -> Finding:
    right = (odds > 0) == truth
    sums = np.column_stack([right & truth, truth, right & np.logical_not(truth), np.logical_not(truth)]).astype(
        np.float64
    )
    drawn = np.moveaxis(resample(sums, resamples, 0), -1, 0)
    balanced = lambda s: (ratio(s[0], s[1]) + ratio(s[2], s[3])) / 2
    accuracy = lambda s: ratio(s[0] + s[2], s[1] + s[3])
    total = sums.sum(0)
    interval = lambda formula: Interval(float(formula(total)), *ends(formula(drawn)))
    return Finding(name, values, interval(balanced), interval(accuracy), telling)


def _telling(values: Iterable[str], related: Floats) -> str:
    """The value whose pairs are most unlike the rest, weighed by how many they are, and the share of related ones."""
    counts = Counter[str](), Counter[str]()
    for value, is_related in zip(values, related.tolist(), strict=False):
        counts[bool(is_related)][value] += 1
    seen = counts[0] + counts[1]
    overall = counts[1].total() / seen.total()
    most = min(seen, key=lambda v: (-abs(counts[1][v] - overall * seen[v]), v))
    return f"{most}: {counts[1][most] / seen[most]:.0%} of {seen[most]:,} related"


def _bucket(count: int) -> str:
    """A number's power of two, so that each value has many examples."""
    return "0" if not count else f"{1 << (count.bit_length() - 1)}-{(1 << count.bit_length()) - 1}"
