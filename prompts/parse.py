"""An answer's text becomes the task's `Answer`, or a named fault. No text makes it raise."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from ..tasks.task import Task
from .faces import face
from .faults import Fault, Parsed, Wrong, sign_of_failure
from .repair import clean, is_loop, is_refusal, to_json, without_thinking

__all__ = ["Fault", "Parsed", "Verdict", "parse", "parse_rationale", "parse_verdicts"]


def parse(task: str | Task, text: str, example: Any, schema: Any, finish: str = "stop") -> Parsed | Fault:
    """Read a teacher's answer.

    ``finish="length"`` is a fault unless a complete JSON value stands in the text: a base model that runs on
    after its answer is not cut short. Mentions and verbatim values are aligned to the source; those not found
    there are listed in `Parsed.ungrounded`.
    """
    reader = face(task)
    body = without_thinking(clean(text))
    repairs = ["thinking"] if body != clean(text) else []
    try:
        found = to_json(body, reader.fits)
        if found is not None:
            repairs += found[1]
            return reader.read(found[0], example, schema, repairs)
        fault = sign_of_failure(body, finish)
        if fault is not None:
            return fault
        repairs.append("lines")
        return reader.read(reader.lines(body, example, schema, repairs), example, schema, repairs)
    except Wrong as wrong:
        return wrong.fault


@dataclass(frozen=True)
class Verdict:
    """A judge's word on one claim."""

    holds: bool
    reason: str = ""


_OPENING = re.compile(
    r"(?:(?:sure(?: thing)?|certainly|of course|absolutely)[,.!:]+\s+)?"
    r"(?:(?:here(?:['’]s| is| are)|below (?:is|are)) (?:the|an?|your|one|my|some)\b[^:\n]{0,80}:\s*)?",
    re.IGNORECASE,
)
_TAG = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?[A-Za-z][A-Za-z0-9_]{0,30}/?>|\[/?(?:SEP|CLS|PAD|MASK|UNK|INST|BOS|EOS)\]")
_VERDICT = re.compile(
    r"\W*(\d{1,3})\s*[.:)\-|]*\s*\W{0,2}(yes|no|correct|incorrect|right|wrong|true|false)\b\W*(.*)",
    re.IGNORECASE,
)


def parse_rationale(text: str, finish: str = "stop") -> Parsed | Fault:
    """A rationale made clean: NFC, one line of single blanks, no polite opening, no tag-like strings."""
    whole = unicodedata.normalize("NFC", clean(text))
    body = without_thinking(whole)
    fault = sign_of_failure(body, finish)
    if fault is not None:
        return fault
    if is_loop(re.sub(r"\d", "0", body)) and not _VERDICT.match(body):
        return Fault("loop", "numbered, and the same again and again")
    repairs = ["thinking"] if body != whole else []
    said = body.strip()
    for name, pattern in (("tags", _TAG), ("opening", _OPENING)):
        changed = pattern.sub(" ", said, count=1 if name == "opening" else 0).strip()
        if changed != said:
            repairs.append(name)
        said = changed
    said = " ".join(said.split())
    if len(said) > 2 and said[0] + said[-1] in ('""', "“”") and not set('"“”') & set(said[1:-1]):
        said = said[1:-1].strip()
        repairs.append("quotes")
    if is_refusal(said):
        return Fault("refused", said[:80])
    return Parsed(said, "+".join(repairs) or None) if said else Fault("empty", "nothing but marks")


def parse_verdicts(text: str, count: int, finish: str = "stop") -> Parsed | Fault:
    """A judge's lines ``1: yes - reason``: a `Verdict` for each of ``count`` claims, in their order."""
    body = without_thinking(clean(text))
    said: dict[int, Verdict] = {}
    for line in body.splitlines():
        match = _VERDICT.match(line)
        if match:
            holds = match[2].lower() in ("yes", "correct", "right", "true")
            said.setdefault(int(match[1]), Verdict(holds, match[3].strip()))
    if all(number in said for number in range(1, count + 1)):
        return Parsed(tuple(said[n] for n in range(1, count + 1)), "extra_lines" if len(said) > count else None)
    missing = [n for n in range(1, count + 1) if n not in said]
    return sign_of_failure(body, finish) or Fault("schema", f"no verdict on claim {missing[0]} of {count}")
