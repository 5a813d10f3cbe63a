"""What a system must beat: floors without a model, from the training gold alone, for attribute values.

Three dictionaries of training values by (category, attribute), matched as whole words, and the majority value
for closed options. Each is a function ``(train, test) -> answers`` for the attributes that an example asks. The
published figures of the dictionaries ask every attribute of the category; with open slots skipped that is the same as
asking those that gold mentions.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from ..tasks.attributes import Answer, Example
from .attributes import values

#: Kana and Han characters, for a regular expression's class.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"

#: (category, attribute) to how often each value was seen.
Dictionary = dict[tuple[str, str], Counter[str]]


def dictionary(train: Sequence[Example]) -> Dictionary:
    """The training values by (category, attribute), with their counts."""
    seen: Dictionary = defaultdict(Counter)
    for example in train:
        for name in example.gold.values if example.gold else ():
            seen[example.category, name].update(values(example.gold, name))
    return seen


def most_frequent_match(train: Sequence[Example], test: Sequence[Example]) -> list[Answer]:
    """The most frequent of the training values that the text holds (ties: the longest, then by alphabet)."""
    return _each(train, test, lambda value, times: (-times, -len(value), value))


def longest_match(train: Sequence[Example], test: Sequence[Example]) -> list[Answer]:
    """The longest of the training values that the text holds (ties: the most frequent, then by alphabet)."""
    return _each(train, test, lambda value, times: (-len(value), -times, value))


def longest_unshared(train: Sequence[Example], test: Sequence[Example]) -> list[Answer]:
    """Longest matches first, no two attributes on overlapping text (ties: frequent, leftmost, alphabet).

    All attributes that training knows of the category compete, also those that are not asked.
    """
    known, answers = dictionary(train), []
    for example in test:
        matches = sorted(
            (-len(value), -times, start, name, value)
            for (category, name), counter in known.items()
            if category == example.category
            for value, times in counter.items()
            for start in _places(value, example.text)
        )
        taken: set[int] = set()
        chosen: dict[str, str] = {}
        for _, _, start, name, value in matches:
            place = set(range(start, start + len(value)))
            if name not in chosen and not place & taken:
                chosen[name] = value
                taken |= place
        answers.append(Answer(values={name: (chosen[name],) if name in chosen else () for name in example.asked}))
    return answers


def majority(train: Sequence[Example], test: Sequence[Example]) -> list[Answer]:
    """The attribute's most frequent training value in the category, else in any category, else absent."""
    known = dictionary(train)
    overall: dict[str, Counter[str]] = defaultdict(Counter)
    for (_, name), counter in known.items():
        overall[name].update(counter)
    answers = []
    for example in test:
        counters = {name: known.get((example.category, name)) or overall[name] for name in example.asked}
        answers.append(Answer(values={name: _top(counter) for name, counter in counters.items()}))
    return answers


#: The floors by the name a report gives them.
FLOORS: dict[str, Callable[[Sequence[Example], Sequence[Example]], list[Answer]]] = {
    "dictionary, most frequent": most_frequent_match,
    "dictionary, longest": longest_match,
    "dictionary, longest unshared": longest_unshared,
    "majority": majority,
}


def _each(
    train: Sequence[Example], test: Sequence[Example], rank: Callable[[str, int], tuple[int, int, str]]
) -> list[Answer]:
    """For each attribute asked, the matching training value of the lowest rank."""
    known, answers = dictionary(train), []
    for example in test:
        chosen: dict[str, tuple[str, ...]] = {}
        for name in example.asked:
            counter = known.get((example.category, name), Counter())
            held = [(rank(value, n), value) for value, n in counter.items() if _places(value, example.text)]
            chosen[name] = (min(held)[1],) if held else ()
        answers.append(Answer(values=chosen))
    return answers


def _places(value: str, text: str) -> list[int]:
    """Where the text holds the value as whole words (no letter or digit touches it), case as it is.

    Chinese and Japanese have no blanks between words, so that there the value may stand anywhere.
    """
    if value not in text:
        return []
    before = "" if re.match(f"[{_UNSPACED}]", value) else rf"(?<![^\W{_UNSPACED}])"
    behind = "" if re.search(f"[{_UNSPACED}]$", value) else rf"(?![^\W{_UNSPACED}])"
    return [m.start() for m in re.finditer(f"{before}{re.escape(value)}{behind}", text)]


def _top(counter: Counter[str]) -> tuple[str, ...]:
    """The most frequent value (ties: by alphabet); empty if there is none."""
    return (min(counter, key=lambda value: (-counter[value], value)),) if counter else ()
