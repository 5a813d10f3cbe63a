"""Teachers' choices among numbered candidates: JSON, a bare number, or a candidate's name in place of its number.

`choice` reads one candidate or none, `ranking` several, the best first; both give positions in the example's
candidates, so an answer's ids are always theirs. The rungs: the JSON that was asked for; another key, a list or a
text where a number belongs; a line with a number or a name. What names no candidate is ``unknown_label``; several
where one is asked, or a name that two candidates bear, is ``schema``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..tasks.graph import Entity
from .entries import line
from .faults import NULLS, Wrong, lines_of
from .repair import clean

#: What says "none of them", in lower case, beside the words for "absent".
NONE = (NULLS - {"", "-", "--"}) | {
    *(f"none of {w}" for w in ("them", "these", "those", "the above", "the candidates", "the entries")),
    *(f"no {w}" for w in ("candidate", "match", "counterpart", "entry", "one", "entity")),
    *("not in the list", "not listed", "not among them", "nobody", "nothing"),
}
#: Keys under which models put a choice where they were asked for another.
_KEYS = ("choice", "ranking", "answer", "candidate", "number", "rank", "ranked", "entity", "entry", "id")

_BULLET = re.compile(r"\A[-*•]\s+")
_QUOTED = re.compile(r"\A[*_`\"'“”]+|[*_`\"'“”]+\Z")
_BRACKETED = re.compile(r"\A[(\[]\s*([0-9]{1,6})\s*[)\]]")
_BRACKETS = re.compile(r"\A\s*\(\s*|\s*\)\s*\Z|\A\s+|\s+\Z")
_STOP = re.compile(r"(?<=[0-9])\s*\.\Z")
_LABEL = re.compile(
    r"\A(?:(?:the|my|so|therefore|final|best|correct|right|most likely)[,\s]+)*"
    r"(?:answer|choice|candidate|entry|option|number|ranking|order|match|counterpart|no\.|#)s?(?![a-z])"
    r"(?:\s+(?:is|are|would be)\b)?\s*[:=#]?\s*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"#?([0-9]{1,6})(\s*(?:[.:,)\]|–—-]+\s*|\s+(?=\()|$))(.*)", re.DOTALL)
_FIRST = re.compile(r"\A1[.)]\s+")
_SEVERAL = re.compile(r"[0-9]{1,6}(?:(?:\W+|\s+(?:and|or|to|then)\s+)[0-9]{1,6})+\W*")
#: What may stand between a number and words that are no name: ``2. ``, ``2) ``, ``2 - ``.
_DASH = re.compile(r"\s+[-–—]\s+")
_POINT = re.compile(r"[.)]\s+")
_BETWEEN = re.compile(r"\s*(?:[,;>|→、，；]|\s(?:and|then)\s)\s*")


def fits(value: Any) -> bool:
    """An object; a bare list or number is read as a line, since prose such as ``[1]`` is JSON, too."""
    return isinstance(value, dict)


def choice(value: Any, candidates: Sequence[Entity], none: bool, repairs: list[str]) -> int | None:
    """The position of the candidate chosen (from 0); None says none of them, a fault where that is not allowed."""
    said = _said(value, "choice", repairs)
    if isinstance(said, list):
        repairs.append("list")
        places = {_place(v, candidates, none, repairs) for v in said}
        if len(places) != 1:
            raise Wrong("schema", f"one candidate is asked, {len(places)} are given: {str(said)[:80]}")
        return places.pop()
    return _place(said, candidates, none, repairs)


def ranking(value: Any, candidates: Sequence[Entity], repairs: list[str]) -> tuple[int, ...]:
    """The positions of the candidates in the order given (from 0), each once; at least one."""
    said = _said(value, "ranking", repairs)
    if isinstance(said, str) and _named(said, candidates) is None and len(parts := _parts(said, candidates)) > 1:
        repairs.append("list")
        said = parts
    elif not isinstance(said, list):
        repairs.append("list")
        said = [said]
    if not said:
        raise Wrong("schema", "an empty ranking")
    places = []
    for one in said:
        place = _place(one, candidates, False, repairs)
        assert place is not None  # a fault was raised in its place
        if place in places:
            repairs.append("duplicates")
        else:
            places.append(place)
    return tuple(places)


def numbers(ranking: Sequence[str], candidates: Sequence[Entity]) -> list[int]:
    """The numbers of the candidates (from 1) that an answer ranks, in its order; those that are not there left out."""
    number = {candidate.id: n for n, candidate in enumerate(candidates, start=1)}
    return [number[id] for id in ranking if id in number]


def choice_line(body: str, candidates: Sequence[Entity]) -> Any:
    """The one line that is a choice and nothing else; other lines are reasons, and are left aside."""
    lines = [_bare(said, candidates) for said in body.splitlines() if said.strip()]
    found: dict[int, str] = {}
    for bare in lines:
        key = _chosen(bare, candidates)
        if key is not None:
            found.setdefault(key, bare)
    if not found and len(lines) == 1 and (match := _NUMBER.fullmatch(lines[0])) and _DASH.fullmatch(match[2]):
        found[int(match[1])] = lines[0]
    if not found:
        raise Wrong("not_json", repr(" ".join(body.split())[:80]))
    if len(found) > 1:
        raise Wrong("schema", f"one candidate is asked, {len(found)} are given: {', '.join(found.values())[:80]}")
    chosen = {"choice": _plain(next(iter(found.values())), candidates)}
    return chosen if len(lines) == 1 else {**chosen, "reasons": ""}


def ranking_line(body: str, candidates: Sequence[Entity]) -> Any:
    """Numbers or names in one line, or a name (or a number) a line, all of them."""
    said = lines_of(body)
    if len(said) == 1 and _named(said[0], candidates) is None:
        said = [_FIRST.sub("", said[0])]
    lines = [_bare(one, candidates) for one in said]
    if len(lines) == 1 and _named(lines[0], candidates) is None:
        lines = _parts(lines[0], candidates)
    if not lines or any(_chosen(said, candidates) is None for said in lines):
        raise Wrong("not_json", repr(" ".join(body.split())[:80]))
    return {"ranking": [_plain(said, candidates) for said in lines]}


def _said(value: Any, key: str, repairs: list[str]) -> Any:
    """What stands under the key asked for, or under another that models use in its place."""
    if len(value) > 1:
        repairs.append("extra_keys")
    if key in value:
        return value[key]
    lower = {k.strip().lower(): v for k, v in value.items()}
    for other in (key, *_KEYS):
        if other in lower:
            repairs.append("labels")
            return lower[other]
    raise Wrong("schema", f"no {key!r} in {str(value)[:80]}")


def _place(said: Any, candidates: Sequence[Entity], none: bool, repairs: list[str]) -> int | None:
    """The candidate meant by a number, a text with a number, a name, or an object with a number."""
    if isinstance(said, dict) and "number" in said:
        repairs.append("object")
        return _place_of_object(said, candidates, none, repairs)
    if said is None or (isinstance(said, str) and _named(said, candidates) is None and _is_none(said)):
        repairs.append("none")
        number: int | None = 0
    elif isinstance(said, str):
        bare = re.fullmatch(r"\s*[0-9]{1,6}\s*", said) and _named(said, candidates) is None
        repairs.append("numbers" if bare else "names")
        number = _number_in(clean(said), candidates)
    elif isinstance(said, float) and said.is_integer():
        repairs.append("numbers")
        number = int(said)
    elif isinstance(said, int) and not isinstance(said, bool):
        number = said
    else:
        raise Wrong("schema", f"not a candidate's number: {str(said)[:80]}")
    if number is not None and (0 if none else 1) <= number <= len(candidates):
        return number - 1 if number else None
    allowed = f"{0 if none else 1} to {len(candidates)}" if candidates else "nothing: there are no candidates"
    raise Wrong("unknown_label", f"{str(said)[:80]!r}; allowed: {allowed}")


def _place_of_object(said: dict[str, Any], candidates: Sequence[Entity], none: bool, repairs: list[str]) -> int | None:
    """The candidate of ``{"number": 3}``; a name beside it must be that candidate's."""
    if isinstance(said["number"], dict):
        raise Wrong("schema", f"not a candidate's number: {str(said)[:80]}")
    place = _place(said["number"], candidates, none, repairs)
    bearers = _bearers(said["name"], candidates) if isinstance(said.get("name"), str) else []
    if bearers and (place is None or place + 1 not in bearers):
        raise Wrong("schema", f"{str(said)[:80]}: the candidate of this number has another name")
    return place


def _number_in(text: str, candidates: Sequence[Entity]) -> int | None:
    """The number that a text states or whose candidate it names; None where it does neither.

    A number beside a name must be that candidate's; a text that is one's number and another's name is a fault, and
    so are several numbers. Other words may stand behind ``2.``, ``2)`` and ``2 -``.
    """
    bare = _bare(text, candidates)
    named = _named(bare, candidates)
    match = _NUMBER.fullmatch(bare)
    if match is None:
        if named is None and _SEVERAL.fullmatch(bare):
            raise _several(bare)
        return named
    number, between, rest = int(match[1]), match[2], _name_in(match[3], candidates)
    in_range = 0 <= number <= len(candidates)
    if named is not None:
        if in_range and named != number and not rest:
            raise Wrong("schema", f"{bare[:80]!r} is the name of candidate {named} and the number of another")
        return named
    if not rest or (number == 0 and _is_none(rest)):
        return number
    bearers = _bearers(rest, candidates)
    if bearers and number not in bearers:
        raise Wrong("schema", f"{bare[:80]!r}: candidate {number} has another name")
    if bearers:
        return number
    if _SEVERAL.fullmatch(bare):
        raise _several(bare)
    reason = (_DASH.fullmatch(between) or _POINT.fullmatch(between)) and not rest[0].isdigit()
    return number if reason else None


def _several(text: str) -> Wrong:
    return Wrong("schema", f"one candidate is asked, several numbers are given: {text[:80]!r}")


def _named(text: str, candidates: Sequence[Entity]) -> int | None:
    """The number of the candidate with this name, else in any case; a fault where two have it."""
    numbers = _bearers(text, candidates)
    if len(numbers) > 1:
        raise Wrong(
            "schema", f"{line(clean(text))[:80]!r} is the name of the candidates {', '.join(map(str, numbers))}"
        )
    return numbers[0] if numbers else None


def _bearers(text: str, candidates: Sequence[Entity]) -> list[int]:
    """The numbers of the candidates with this name, else of those with it in any case."""
    said = line(clean(text))
    titles = [line(c.title) for c in candidates]
    exact = [n for n, title in enumerate(titles, start=1) if title == said]
    return exact or [n for n, title in enumerate(titles, start=1) if title.casefold() == said.casefold()]


def _name_in(rest: str, candidates: Sequence[Entity]) -> str:
    """What stands beside a number, without brackets; without a full stop, too, if no name ends in one."""
    rest = _BRACKETS.sub("", rest)
    return rest if _bearers(rest, candidates) else rest.removesuffix(".")


def _chosen(bare: str, candidates: Sequence[Entity]) -> int | None:
    """The number that a line chooses, by number or name; None where it is prose."""
    named = _named(bare, candidates)
    if named is not None:
        return named
    match = _NUMBER.fullmatch(bare)
    if match is not None and (not match[3].strip() or _bearers(_name_in(match[3], candidates), candidates)):
        return int(match[1])
    return 0 if _is_none(bare) else None


def _plain(bare: str, candidates: Sequence[Entity]) -> int | str:
    """A bare number as such; a text that is a name, even one of figures, as it is."""
    return int(bare) if re.fullmatch("[0-9]{1,6}", bare) and _named(bare, candidates) is None else bare


def _is_none(text: str) -> bool:
    return " ".join(text.lower().split()).strip(" .\"'") in NONE


def _bare(text: str, candidates: Sequence[Entity]) -> str:
    """A line without bullet, quotes and a label such as ``The answer is``, unless it is a name with them."""
    bare = text.strip()
    for mark, instead in ((_BULLET, ""), (_QUOTED, ""), (_LABEL, ""), (_LABEL, ""), (_BRACKETED, r"\1."), (_STOP, "")):
        if _named(bare, candidates) is not None:
            break
        bare = mark.sub(instead, bare).strip() or bare
        bare = _QUOTED.sub("", bare).strip() or bare
    return bare


def _parts(text: str, candidates: Sequence[Entity]) -> list[str]:
    parts = (_bare(part, candidates) for part in _BETWEEN.split(text.strip("[]() .")))
    return [part for part in parts if part]
