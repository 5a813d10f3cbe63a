"""From what a model wrote to a JSON value: a ladder of named repairs; signs of a failed answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

#: A model that turns in circles repeats a unit of at most so many characters over at least so many
#: characters.
LOOP_UNIT, LOOP_LENGTH, LOOP_TIMES = 120, 60, 3

_THINKING = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n?(.*?)```", re.DOTALL)
_NOT_DONE = (
    "help|assist|comply|fulfil|provide|answer|process|identify|recogni[sz]e|create|generate|rewrite|write|engage|"
    "discuss|view|see|access|analy[sz]e|complete|respond|offer|produce|describe|do that|do this"
)
#: Refusals say what is not done; a first-person post ("I can't believe it", "Sorry for your loss") is none.
_REFUSAL = re.compile(
    r"\W*(?:"
    r"(?:(?:i['’]?m|i am) (?:really |very |so )?)?sorry,? (?:but |however )?(?:i|as an?|this|we)\b.{0,40}"
    r"(?:\bnot\b|n['’]t\b|cannot|unable|against)|"
    r"(?:unfortunately,? )?i(?: (?:cannot|can['’]?t|won['’]t|will not|must decline to|decline to)|"
    rf"(?: am|['’]m) (?:not able|unable) to) (?:{_NOT_DONE})|"
    r"as an? (?:ai|artificial intelligence|large language|language)\b|i apologi[sz]e\b.{0,20}\bi\b|"
    r"(?:对不起|抱歉|很抱歉)?[，,]?(?:我无法|我不能))",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """The text without what no file can hold: NUL, and lone surrogates, which become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")


def without_thinking(text: str) -> str:
    """The text after a reasoning model's thinking; nothing where it never came to an end."""
    return _THINKING.sub("", text)


def is_refusal(text: str) -> bool:
    """Whether the text opens as a refusal does."""
    return _REFUSAL.match(text) is not None


def is_loop(text: str) -> bool:
    """Whether the text ends in a short unit said again and again (blanks too: grammars pad with them)."""
    for unit in range(1, LOOP_UNIT + 1):
        length = max(LOOP_LENGTH, unit * LOOP_TIMES)
        tail = text[-length:]
        if len(tail) == length and tail[unit:] == tail[:-unit]:
            return True
    return False


def to_json(text: str, fits: Callable[[Any], bool]) -> tuple[Any, tuple[str, ...]] | None:
    """The first value in the text that fits, and the names of the repairs it took; None if there is none.

    The rungs: the text as JSON; without code fences (``fences``); the first whole object or list in it
    (``first_object``); with single quotes, trailing commas and Python's constants made JSON (``quotes``).
    """
    body, repairs = text.strip(), []
    found = _loads(body, fits)
    fence = _FENCE.search(body)
    if found is None and fence:
        repairs.append("fences")
        body = fence[1].strip()
        found = _loads(body, fits)
    if found is None:
        found = _first(body, fits)
    return None if found is None else (found[0], (*repairs, *found[1]))


_Found = tuple[Any, tuple[str, ...]]


def _decoder(notes: list[str]) -> json.JSONDecoder:
    """JSON without NaN; of a key that stands twice the first counts, and it is noted."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in items:
            if key in kept:
                notes.append("duplicate_keys")
            kept.setdefault(key, value)
        return kept

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    return json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant)


def _loads(text: str, fits: Callable[[Any], bool]) -> _Found | None:
    notes: list[str] = []
    try:
        value = _decoder(notes).decode(text)
    except (ValueError, RecursionError):
        return None
    return (value, tuple(dict.fromkeys(notes))) if fits(value) else None


_BRACKET = re.compile(r"[{\[]")
#: What opens an object or a list of JSON, and not a bracket of prose.
_OPENS_JSON = re.compile(r"""\{\s*["'}]|\[\s*["'{\[\]]""")


def _first(text: str, fits: Callable[[Any], bool]) -> _Found | None:
    """The first object or list that fits; what is inside a broken or cut one is never taken for the whole."""
    at = 0
    for _ in range(50):
        opening = _BRACKET.search(text, at)
        if opening is None:
            return None
        start = opening.start()
        found = _value_at(text, start)
        if found is not None and fits(found[0]):
            return found[0], found[1]
        if found is None and _OPENS_JSON.match(text, start):
            return None
        at = start + 1 if found is None else found[2]
    return None


def _value_at(text: str, start: int) -> tuple[Any, tuple[str, ...], int] | None:
    """The value that opens there, as it is or with its quotes repaired, the repairs, and where to go on."""
    for quotes in (False, True):
        rest = _as_json(text[start:]) if quotes else text[start:]
        notes: list[str] = []
        try:
            value, length = _decoder(notes).raw_decode(rest)
        except (ValueError, RecursionError):
            continue
        alone = start == 0 and not rest[length:].strip()
        named = [] if alone else ["first_object"]
        named += ["quotes"] if quotes else []
        return value, (*named, *dict.fromkeys(notes)), start + (1 if quotes else length)
    return None


_TOKEN = re.compile(
    r'(?P<double>"(?:\\.|[^"\\])*")|\'(?P<single>(?:\\.|[^\'\\])*)\'|(?P<comma>,(?=\s*[}\]]))|\b(?P<word>None|True|False)\b',
    re.DOTALL,
)
_WORDS = {"None": "null", "True": "true", "False": "false"}


def _as_json(text: str) -> str:
    """Single-quoted strings, trailing commas and Python's constants as JSON has them."""

    def plain(match: re.Match[str]) -> str:
        if match["double"]:
            return match["double"]
        if match["comma"]:
            return ""
        if match["word"]:
            return _WORDS[match["word"]]
        return json.dumps(re.sub(r"\\(.)", r"\1", match["single"]), ensure_ascii=False)

    return _TOKEN.sub(plain, text)
