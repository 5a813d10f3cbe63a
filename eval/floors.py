"""What a system must beat: floors without a model, from the training gold alone.

For attribute values three dictionaries of training values by (category, attribute), matched as whole words, and the
majority value for closed options. Each is a function ``(train, test) -> answers`` for the attributes that an example
asks. The published figures of the dictionaries ask every attribute of the category; with open slots skipped that is the
same as asking those that gold mentions.

For entities a dictionary of training mentions. For given pairs the majority relation, of all pairs and of the pairs
that have the same mentions' types by that dictionary of heads and tails.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..tasks import ner, relations
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


def mention_dictionary(train: Sequence[ner.Example], test: Sequence[ner.Example]) -> list[ner.Answer]:
    """The longest training mentions found as whole words, from left to right, with their commonest type.

    A mention that training has more often as plain words than as an entity is left out. Case as it is.
    """
    types: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    runs = Counter[tuple[str, ...]]()
    for example in train:
        for entity in example.gold.entities if example.gold else ():
            types[tuple(entity.text.split())][entity.type] += 1
    longest = max(map(len, types), default=0)
    for example in train:
        words = example.text.split()
        runs.update(tuple(words[a : a + n]) for n in range(1, longest + 1) for a in range(len(words) - n + 1))
    known = {words: _top(kinds)[0] for words, kinds in types.items() if 2 * kinds.total() >= runs[words]}
    return [ner.Answer(entities=tuple(_mentions(example.text, known, longest))) for example in test]


def _mentions(text: str, known: Mapping[tuple[str, ...], str], longest: int) -> Iterator[ner.Entity]:
    words = [match.span() for match in re.finditer(r"\S+", text)]
    at = 0
    while at < len(words):
        for length in range(min(longest, len(words) - at), 0, -1):
            start, end = words[at][0], words[at + length - 1][1]
            kind = known.get(tuple(text[a:b] for a, b in words[at : at + length]))
            if kind is not None:
                yield ner.Entity(text=text[start:end], type=kind, start=start, end=end)
                at += length
                break
        else:
            at += 1


def majority_relation(train: Sequence[relations.Example], test: Sequence[relations.Example]) -> list[relations.Answer]:
    """The commonest relation of the training pairs (in MNRE: none at all)."""
    return _by_key(train, test, lambda example: ("", ""))


def type_pair(train: Sequence[relations.Example], test: Sequence[relations.Example]) -> list[relations.Answer]:
    """The commonest relation of the training pairs whose mentions are of the same two kinds.

    Data sets such as MNRE do not type their mentions. A mention's kind is therefore what training shows of it: the
    relation that it has most often, and on which side of it; one kind for all that training never has in a relation.
    """
    (none, _), *_ = Counter(e.gold.relation for e in train if e.gold).most_common(1)
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        if example.pair and example.gold and example.gold.relation not in (None, none):
            for side, mention in enumerate(example.pair):
                sides[mention.text.lower()][f"{example.gold.relation} {side}"] += 1
    kinds = {text: _top(counter)[0] for text, counter in sides.items()}
    kind = lambda example: tuple(kinds.get(mention.text.lower(), "") for mention in example.pair or ())
    return _by_key(train, test, kind, fallback=none)


def _by_key(
    train: Sequence[relations.Example],
    test: Sequence[relations.Example],
    key: Callable[[relations.Example], tuple[str, ...]],
    fallback: str | None = None,
) -> list[relations.Answer]:
    """The commonest training relation of each example's key."""
    seen: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for example in train:
        if example.gold and example.gold.relation:
            seen[key(example)][example.gold.relation] += 1
    top = {known: _top(counter)[0] for known, counter in seen.items()}
    return [relations.Answer(relation=top.get(key(example), fallback)) for example in test]


#: The floors of each task by the name a report gives them.
FLOORS: dict[str, dict[str, Callable[[Sequence[Any], Sequence[Any]], list[Any]]]] = {
    "attributes": {
        "dictionary, most frequent": most_frequent_match,
        "dictionary, longest": longest_match,
        "dictionary, longest unshared": longest_unshared,
        "majority": majority,
    },
    "ner": {"dictionary": mention_dictionary},
    "relations": {"majority": majority_relation, "type pair": type_pair},
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
