"""Votes over answers to the same question in several orders: what does not depend on the order is surer.

Source: the shuffled ensemble of ExtractGPT (Brinkmann, Shraga, Bizer); asking again only where an answer is unsure
costs a part of it.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

from ..tasks.attributes import Answer, Example

#: Up to so many attributes all orders are listed; beyond, they are drawn.
_LISTED = 5


def shuffled(example: Example, k: int, seed: int = 0) -> Iterator[Example]:
    """The same example with its attributes asked in ``k`` other orders, each another one; the same for the same seed.

    Of ``n`` attributes there are no more than ``n! - 1`` others: with a single one, none.
    """
    rng = random.Random(f"{seed}/{example.id}")
    for order in _orders(example.asked, k, rng):
        yield example.model_copy(update={"asked": order})


def _orders(asked: tuple[str, ...], k: int, rng: random.Random) -> Iterator[tuple[str, ...]]:
    if len(asked) <= _LISTED:
        others = [order for order in permutations(asked) if order != asked]
        rng.shuffle(others)
        yield from others[: max(k, 0)]
        return
    seen = {asked}
    while len(seen) <= min(k, math.factorial(len(asked)) - 1):
        order = tuple(rng.sample(asked, len(asked)))
        if order not in seen:
            seen.add(order)
            yield order


def vote(answers: Sequence[Answer]) -> tuple[Answer, dict[str, float]]:
    """The value that most answers give each attribute, and the share of answers that give it.

    Values are compared without case, blanks and forms of letters, several as a set; no value is one like any other.
    The words are those of the first answer that gives it. In a tie the first answer's value counts, or else, if that is
    not among those tied, the one said earliest.

    Args:
        answers: one at least, the first order's first; its attributes are decided.
    """
    decided: dict[str, tuple[str, ...]] = {}
    shares: dict[str, float] = {}
    for name in answers[0].values:
        said = [answer.values.get(name, ()) for answer in answers]
        votes: dict[frozenset[str], list[tuple[str, ...]]] = {}
        for values in said:
            votes.setdefault(frozenset(map(comparable, values)), []).append(values)
        most = max(votes.values(), key=len)  # of equals the first that was said
        decided[name] = most[0]
        shares[name] = len(most) / len(said)
    return Answer(values=decided), shares


def comparable(value: str) -> str:
    """A value as it is compared: compatible letter forms, no case, single blanks, no full stop at the end."""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split()).rstrip(".")


def is_unsure(confidence: Mapping[str, float | None], asked: Sequence[str], below: float | None = None) -> bool:
    """Whether an answer is to be asked again: one of its attributes has a confidence below ``below``, or has none.

    Without ``below`` every answer is.
    """
    known = [confidence.get(name) for name in asked]
    return below is None or any(one is None or one < below for one in known)


def changed(before: Answer, after: Answer) -> int:
    """How many attributes have another value, compared as in `vote`."""
    return sum(
        set(map(comparable, values)) != set(map(comparable, before.values.get(name, ())))
        for name, values in after.values.items()
    )
