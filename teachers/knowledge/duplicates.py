"""Near-duplicates among examples: a post with another link, a product with a word moved, one picture twice.

Two texts are near-duplicates if their sets of word pairs overlap by a Jaccard index of at least `LIKENESS`. The search
is exact: of each text only a prefix of its rarest pairs is looked up, which no text that is alike enough can avoid
(Chaudhuri et al. 2006, "A Primitive Operator for Similarity Joins in Data Cleaning"; Bayardo et al. 2007, "Scaling Up
All Pairs Similarity Search"). Nothing is dropped here: a later example is marked with the id of the first one like it.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ...tasks.images import Image, ImageFault

#: Of 17 words one may differ at the end or in the middle.
LIKENESS = 0.75

_LINK = re.compile(r"https?://\S+|www\.\S+")
#: A run of letters and digits; where a script puts no blanks between words, each sign by itself.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def near_duplicates(examples: Sequence[Any], likeness: float = LIKENESS) -> dict[str, str]:
    """Id of an example to the id of the first one that asks nearly the same of nearly the same text.

    Examples are compared only if the same is asked of them: the pair of `relations`, the mention of `linking`, the
    category and the attributes of `attributes`. A graph's triple or entity has no text to be like another's, so
    `completion` and `alignment` have none.

    Raises:
        ValueError: a likeness that is not above 0 and at most 1.
    """
    groups: dict[Any, dict[str, str]] = defaultdict(dict)
    for example in examples:
        if not hasattr(example, "given") and not hasattr(example, "entity"):
            groups[_asked(example)][example.id] = example.text
    found: dict[str, str] = {}
    for texts in groups.values():
        found |= near(texts, likeness)
    return found


def near(texts: dict[str, str], likeness: float = LIKENESS) -> dict[str, str]:
    """Id to the id of the first text, in the order given, that it nearly repeats; originals are left out.

    A text that repeats an original is not itself compared with later ones, so that a chain of small changes does not
    make one of two texts that are not alike. Texts without a word repeat none.
    """
    if not 0 < likeness <= 1:
        raise ValueError(f"a likeness is above 0 and at most 1, not {likeness}")
    sets = {id: shingles(text) for id, text in texts.items()}
    common = Counter(pair for pairs in sets.values() for pair in pairs)
    holders: dict[str, list[str]] = defaultdict(list)
    repeats: dict[str, str] = {}
    order = {id: place for place, id in enumerate(sets)}
    for id, pairs in sets.items():
        rare = sorted(pairs, key=lambda pair: (common[pair], pair))
        prefix = rare[: len(rare) - math.ceil(likeness * len(rare) - 1e-9) + 1]
        for other in sorted({other for pair in prefix for other in holders[pair]}, key=order.__getitem__):
            if jaccard(pairs, sets[other]) >= likeness:
                repeats[id] = other
                break
        else:
            for pair in prefix:
                holders[pair].append(id)
    return repeats


def shingles(text: str) -> frozenset[str]:
    """The pairs of neighbouring words of a text, without case, links and marks; of one word, the word."""
    words = _WORD.findall(_LINK.sub(" ", text).casefold())
    return frozenset(f"{a} {b}" for a, b in pairwise(words)) or frozenset(words)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over that of the union; 0 of two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if a or b else 0.0


def image_duplicates(examples: Sequence[Any]) -> dict[str, str]:
    """Id of an example to the id of the first one that asks the same of one of its pictures, by the files' content.

    Examples are compared as in `near_duplicates`; triples, if relation and direction are the same. Triples of one given
    entity do not repeat each other: they share its pictures because it is the same.
    """
    first: dict[Any, Any] = {}
    found: dict[str, str] = {}
    for example in examples:
        for digest in hashes(example.images):
            owner = first.setdefault((digest, _asked(example)), example)
            if owner.id != example.id and not _same_given(owner, example):
                found.setdefault(example.id, owner.id)
    return found


def _same_given(one: Any, other: Any) -> bool:
    return hasattr(one, "given") and one.given.id == other.given.id


def hashes(images: Iterable[Image]) -> list[str]:
    """The content hashes of pictures; one that cannot be read has none (it fails by name where it is asked about)."""
    return [digest for image in images if (digest := _hash(image)) is not None]


@lru_cache(maxsize=100_000)
def _hash(image: Image) -> str | None:
    try:
        return image.sha256()
    except ImageFault:
        return None


def _asked(example: Any) -> Any:
    """What is asked of an example's text or picture."""
    if relation := getattr(example, "relation", None):
        return relation.name, example.asked
    if pair := getattr(example, "pair", None):
        return tuple(mention.text.casefold() for mention in pair)
    if mention := getattr(example, "mention", None):
        return mention.text.casefold()
    return getattr(example, "category", ""), getattr(example, "asked", ())
