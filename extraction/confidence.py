"""How sure a teacher was of each attribute: the probabilities of the tokens that spell its value; and calibration.

A language model's probabilities rank its answers but are no frequencies; a `Calibrator` learns from labelled slots what
share of answers with such a confidence is right.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import ValidationError

from ..prompts.faults import NULLS
from ..tasks.attributes import Answer, Example
from ..tasks.record import Record
from ..tasks.task import DataFault

#: Fewer labelled slots fit no calibrator.
LEAST_SLOTS = 50
#: So many opening braces are tried in a reply.
_BRACES = 50

Span = tuple[int, int]


class Weighed(Protocol):
    """A reply, or the ledger's row of it."""

    @property
    def text(self) -> str: ...

    @property
    def tokens(self) -> tuple[tuple[str, float], ...]: ...


def of_reply(reply: Weighed | None, answer: Answer, example: Example) -> dict[str, float | None]:
    """The confidence of each attribute asked, 0 to 1: the geometric mean of its value's token probabilities.

    An absent one has that of ``null``, or of the word that stands for it; several values have one over all of them. A
    token that holds more than the value (a quote) counts. None where the reply has no tokens, or the value is not found
    in it.
    """
    tokens = reply.tokens if reply is not None else ()
    text = reply.text if reply is not None else ""
    if "".join(said for said, _ in tokens) != text:
        tokens = ()
    places = value_places(text, example.asked) if tokens else {}
    confidence: dict[str, float | None] = {}
    for name in example.asked:
        spans = places.get(name, [])
        absent = all(text[start:end].strip().lower() in NULLS | {"[]"} for start, end in spans)
        found = _logprobs(tokens, spans) if answer.values.get(name) or absent else []
        confidence[name] = math.exp(sum(found) / len(found)) if found else None
    return confidence


def value_places(text: str, names: Sequence[str]) -> dict[str, list[Span]]:
    """Where the values of these attributes stand in a reply, by name: in its JSON object, its tags or its lines.

    Of a key that stands twice the first counts, as in parsing. A text without quotes round it, an empty list whole.
    """
    known = {_folded(name): name for name in reversed(names)}
    start = max(text.lower().rfind("</think>"), text.lower().rfind("</thinking>"), 0)
    for brace in islice(re.finditer(r"\{", text[start:]), _BRACES):
        found: dict[str, list[Span]] = {}
        for key, spans in _pairs(text, start + brace.end()):
            if spans and _folded(key) in known:
                found.setdefault(known[_folded(key)], spans)
        if found:
            return found
    return _tagged(text, start, known) or _lined(text, start, known)


_LEXEME = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{}\[\]:,]|[^\s{}\[\]:,"']+""", re.DOTALL)


#: A bullet or a number before a line.
_LIST_MARK = re.compile(r"\A(?:[-•]|\*(?!\*)|\d{1,3}[.)])\s+")


def _pairs(text: str, at: int) -> Iterator[tuple[str, list[Span]]]:
    """Keys and the places of their values in the object opened before ``at``; quotes of either kind."""
    key: str | None = None
    spans: list[Span] = []
    depth = opened = 0
    for lexeme in _LEXEME.finditer(text, at):
        mark, (start, end) = lexeme[0], lexeme.span()
        if mark in ("{", "["):
            depth, opened = depth + 1, start
        elif mark in ("}", "]"):
            if depth == 0:
                break
            depth -= 1
            spans = spans or [(opened, end)]
        elif mark == "," and depth == 0:
            yield key or "", spans
            key, spans = None, []
        elif mark in (":", ","):
            continue
        elif key is None:
            key = _unquoted(mark)
        else:
            quoted = mark[0] in "\"'" and end - start > 2
            spans.append((start + 1, end - 1) if quoted else (start, end))
    yield key or "", spans


def _tagged(text: str, at: int, known: Mapping[str, str]) -> dict[str, list[Span]]:
    """The places between tags, without blanks and quotes."""
    found: dict[str, list[Span]] = {}
    for tag in re.finditer(r"<\s*([^<>/]+?)\s*>(.*?)(?:<\s*/\s*\1\s*>|\n|\Z)", text[at:], re.DOTALL | re.IGNORECASE):
        if _folded(tag[1]) in known:
            found.setdefault(known[_folded(tag[1])], []).append(_trimmed(text, at + tag.start(2), at + tag.end(2)))
    return found


def _lined(text: str, at: int, known: Mapping[str, str]) -> dict[str, list[Span]]:
    """The places behind ``name:`` or ``name |`` at the beginning of lines."""
    found: dict[str, list[Span]] = {}
    for line in text[at:].splitlines(keepends=True):
        parts = re.split(r"([:：|])", line, maxsplit=1)
        name = known.get(_folded(_LIST_MARK.sub("", parts[0].strip()).strip("*")))
        if name is not None and len(parts) == 3:
            start = at + len(parts[0]) + 1 + len(parts[2]) - len(parts[2].lstrip(" *"))
            found.setdefault(name, [_trimmed(text, start, at + len(line))])
        at += len(line)
    return found


def _trimmed(text: str, start: int, end: int) -> Span:
    """A place without the blanks and the pair of quotes at its ends; an empty one is left as it is."""
    inner = text[start:end].strip()
    if not inner:
        return start, end
    start += text[start:end].index(inner)
    end = start + len(inner)
    return (start + 1, end - 1) if len(inner) > 2 and inner[0] == inner[-1] and inner[0] in "\"'" else (start, end)


def _unquoted(word: str) -> str:
    try:
        return str(json.loads(word)) if word[0] == '"' else word.strip("'")
    except ValueError:
        return word.strip('"')


def _folded(name: str) -> str:
    return " ".join(name.lower().split())


def _logprobs(tokens: Sequence[tuple[str, float]], spans: Sequence[Span]) -> list[float]:
    """The log-probabilities of the tokens that hold a character of the spans, or the first parts of one."""
    found: list[float] = []
    parts: list[float] = []
    at = 0
    for text, logprob in tokens:
        parts.append(logprob)
        if text:
            if any(at < end and start < at + len(text) for start, end in spans):
                found += parts
            parts, at = [], at + len(text)
    return found


class Calibrator(Record):
    """From a confidence to the share of answers with it that are right: a rising line through labelled slots.

    Isotonic regression (Zadrozny and Elkan, 2002), linear between its knots and level beyond them.

    Attributes:
        slots: how many labelled slots it was fitted on.
        confidences, shares: its knots.
    """

    slots: int
    confidences: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def fit(cls, confidences: Sequence[float], right: Sequence[bool]) -> Calibrator:
        """Fit slots: the confidence of each, and whether its answer is right.

        Raises:
            DataFault: there are fewer than `LEAST_SLOTS`, or a confidence is no number.
        """
        x, y = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
        if len(x) < LEAST_SLOTS:
            problem = f"{len(x)} labelled slots with a confidence are too few"
            raise DataFault("calibration", problem, f"it takes {LEAST_SLOTS} or more")
        if not np.isfinite(x).all():
            raise DataFault("calibration", "a confidence is no number", "leave out slots without one")
        knots, shares = isotonic(x, y)
        return cls(slots=len(x), confidences=tuple(knots), shares=tuple(shares))

    def __call__(self, confidence: float) -> float:
        """The calibrated confidence."""
        return float(np.interp(confidence, self.confidences, self.shares))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Calibrator:
        """Read what `save` wrote; a `DataFault` that names the file if it holds anything else."""
        try:
            made = cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
            rising = all(list(line) == sorted(line) for line in (made.confidences, made.shares))
            if not made.confidences or len(made.confidences) != len(made.shares) or not rising:
                raise ValueError("its lines are not of one length and rising")
        except (OSError, ValueError, ValidationError) as error:
            raise DataFault(str(path), f"is no calibrator: {error}", "save one with Calibrator.save") from None
        return made


def isotonic(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    """The rising step line nearest to points ``[n]`` in least squares, as knots: pool adjacent violators.

    Points of one ``x`` are averaged first. Source: Barlow et al. (1972), section 1.2.
    """
    blocks: list[list[float]] = []  # first x, last x, sum of y, number
    for at in np.unique(x):
        here = y[x == at]
        blocks.append([float(at), float(at), float(here.sum()), float(len(here))])
        while len(blocks) > 1 and blocks[-2][2] * blocks[-1][3] >= blocks[-1][2] * blocks[-2][3]:
            _, last, total, number = blocks.pop()
            blocks[-1] = [blocks[-1][0], last, blocks[-1][2] + total, blocks[-1][3] + number]
    knots = [(edge, total / number) for first, last, total, number in blocks for edge in dict.fromkeys((first, last))]
    return [edge for edge, _ in knots], [share for _, share in knots]
