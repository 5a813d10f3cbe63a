"""What the linking readers share: where a mention stands in its sentence, and one example a mention."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from ..dataset import Dataset
from ..graph import KnowledgeGraph
from ..images import Image
from ..linking import Answer, Mention
from ..task import DataFault
from .rows import Rows

#: Between the words of a mention may stand marks and up to two words in small letters or single capitals:
#: ``Elsie [de] Wolfe``, ``Isabella [I of] Castile``.
_GAP = r"\W+(?:(?:[^\W\d_A-Z]\w*|[A-Z])\W+){0,2}?"


def find(mention: str, text: str, turn: int = 0) -> tuple[int, int, str] | None:
    """Start and end of a mention in its text, and how it was found; None where it is not there.

    The first way that finds it counts: as whole words (``""``); as whole words in another case (``other_case``); as
    a part of a word, three characters at least (``part_of_a_word``); as whole words with others between them that the
    source left out (``words_left_out``, see `_GAP`). Which of several places is meant the sources do not say: a mention
    listed for the second time (``turn`` 1) has the second place, or the last there is.
    """
    wanted = mention.strip(" ,;:")
    for way, look in _WAYS.items():
        if wanted and (places := look(wanted, text)):
            return *places[min(turn, len(places) - 1)], way
    return None


Places = list[tuple[int, int]]


def _parts(wanted: str, text: str) -> Places:
    """Where the text has it, whatever stands beside it."""
    places, at = [], text.find(wanted)
    while at >= 0:
        places.append((at, at + len(wanted)))
        at = text.find(wanted, at + len(wanted))
    return places


def _whole(wanted: str, text: str) -> Places:
    """Where no word goes on before or behind it; a mark such as ``$`` has no such border."""
    return [(s, e) for s, e in _parts(wanted, text) if _border(text, s) and _border(text, e)]


def _border(text: str, at: int) -> bool:
    return at in (0, len(text)) or not (_is_word(text[at - 1]) and _is_word(text[at]))


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _other_case(wanted: str, text: str) -> Places:
    lower = text.lower()  # of another length where a letter is two in small, and its places would be wrong
    return _whole(wanted.lower(), lower) if len(lower) == len(text) else []


def _left_out(wanted: str, text: str) -> Places:
    words = re.findall(r"\w\S*", wanted)
    if len(words) < 2 or not all(word in text for word in words):
        return []
    pattern = re.compile(_GAP.join(map(re.escape, words)))
    places = (match.span() for match in pattern.finditer(text))
    return [(s, e) for s, e in places if _border(text, s) and _border(text, e)]


_WAYS: dict[str, Callable[[str, str], Places]] = {
    "": _whole,
    "other_case": _other_case,
    "part_of_a_word": lambda wanted, text: _parts(wanted, text) if len(wanted) >= 3 else [],
    "words_left_out": _left_out,
}


def add_mentions(
    rows: Rows,
    split: str,
    place: str,
    sentence: str,
    mentions: list[tuple[str, str]],
    pictures: tuple[Image, ...] = (),
) -> None:
    """An example for each (mention, entity id) of a sentence, called ``test-0``, ``test-1``, ... through the split.

    What was not found in the plain way is counted in the notes by split (``mention_part_of_a_word.test``), and so are
    mentions listed once more (``mention_again.test``). One that is not in its sentence is a fault.
    """
    listed: Counter[str] = Counter()
    for mention, entity in mentions:
        with rows.row(place):
            found = find(mention, sentence, listed[mention])
            if found is None:
                raise DataFault(place, f"the mention {mention!r} is not in its sentence")
            first, last, way = found
            id = f"{split}-{len(rows.splits[split])}"
            rows.add(
                split,
                place,
                id=id,
                text=sentence,
                mention=Mention(text=sentence[first:last], type="", start=first, end=last),
                images=tuple(picture.model_copy(update={"example": id}) for picture in pictures),
                gold=Answer(ranking=(entity,)),
            )
            rows.notes[f"mention_{way}.{split}"] += bool(way)
            rows.notes[f"mention_again.{split}"] += bool(listed[mention])
        listed[mention] += 1


def linked(rows: Rows, base: KnowledgeGraph) -> Dataset:
    """The data set with its knowledge base; an example whose answer is not in it becomes a fault."""
    for split, examples in rows.splits.items():
        for example in examples:
            if example.gold.best not in base.number:
                fault = DataFault(f"{rows.name}, {example.id}", f"its answer {example.gold.best} is no entity")
                rows.faults.append(fault)
        rows.splits[split] = [example for example in examples if example.gold.best in base.number]
    return replace(rows.dataset(), graphs=(base,))
