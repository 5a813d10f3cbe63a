"""What parsing gives: an answer with the repairs it took, or one of a closed set of named faults."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from .repair import clean, is_loop, is_refusal

#: Why a text is no answer: cut by the token limit; neither JSON nor the line form; JSON of another shape or a
#: value outside the closed list; a label or attribute that was not asked; nothing at all; a refusal; a model
#: in circles.
FaultName = Literal["length", "not_json", "schema", "unknown_label", "empty", "refused", "loop"]

#: What models write for "absent", in lower case.
NULLS = frozenset(
    ["", "-", "--", "n/a", "na", "n.a.", "none", "null", "nil", "unknown", "absent", "missing", "unspecified"]
    + [f"not {w}" for w in ("given", "specified", "available", "stated", "mentioned", "applicable", "provided")]
    + ["无", "未知", "没有", "不详", "k.a.", "unbekannt", "inconnu", "desconocido"]
)


@dataclass(frozen=True)
class Parsed:
    """A parsed answer.

    Attributes:
        answer: the task's `Answer` (or a rationale's text, or the verdicts of a judge).
        repaired: names of the repairs it took, joined by ``+``; None if it was right as it stood.
        ungrounded: mentions or verbatim values that the source does not hold; they are kept in the answer.
    """

    answer: Any
    repaired: str | None = None
    ungrounded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """A text that is no answer: which fault, and what was seen."""

    name: FaultName
    detail: str = ""


class InputFault(ValueError):
    """An example lacks what the template needs, or what is given is not taken. The template is right."""


class Wrong(Exception):
    """Carries a fault out of the depth."""

    def __init__(self, name: FaultName, detail: str) -> None:
        self.fault = Fault(name, clean(detail))


def sign_of_failure(body: str, finish: str) -> Fault | None:
    """The signs of a failed answer in a text that holds no JSON."""
    start = " ".join(body.split())[:80]
    if is_loop(body):
        return Fault("loop", f"ends in ...{body[-60:]!r}")
    if not start:
        return Fault("length", "nothing but blanks") if finish == "length" else Fault("empty")
    if finish == "length":
        return Fault("length", f"cut after {len(body)} characters: {start!r}")
    return Fault("refused", start) if is_refusal(body) else None


def parsed(answer: Any, repairs: list[str], ungrounded: list[str]) -> Parsed:
    """The answer with each repair named once."""
    return Parsed(answer, "+".join(dict.fromkeys(repairs)) or None, tuple(ungrounded))


_BULLET = re.compile(r"\A[-*•]\s+")
_ITEM = re.compile(r"\A(\d{1,3})[.)]\s+")


def lines_of(body: str) -> list[str]:
    """The lines that are not blank, without bullets; without numbers where several lines count 1, 2, 3.

    A number that counts nothing may belong to a name (``1. FC Köln``) and stays.
    """
    lines = [_BULLET.sub("", line.strip()) for line in body.splitlines() if line.strip()]
    items = [_ITEM.match(line) for line in lines]
    if len(lines) > 1 and all(item and int(item[1]) == n for n, item in enumerate(items, start=1)):
        lines = [_ITEM.sub("", line) for line in lines]
    return lines


def mention(value: Any) -> str:
    """A mention as a JSON value gives it; raises `Wrong` where it is no text."""
    text = clean(value).strip() if isinstance(value, str) else ""
    if not text:
        raise Wrong("schema", f"not a mention: {str(value)[:80]!r}")
    return text
