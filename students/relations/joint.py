"""Joint extraction: what the gold triples of a text say of its mentions, and of every pair of them."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

from ...tasks import ner, relations
from ...tasks.task import DataFault


def mentions_of(example: relations.Example) -> list[ner.Entity]:
    """The mentions of its gold triples, each once."""
    triples = example.gold.triples if example.gold else ()
    return list({(m.start, m.end): m for t in triples for m in (t.head, t.tail)}.values())


def words_of(example: relations.Example, mention: ner.Entity) -> tuple[int, int]:
    """The first and the last word of a mention; one that begins or ends inside a word has the whole."""
    assert mention.start is not None  # `relations.Example` sees to both
    assert mention.end is not None
    inside = ner.words_inside(ner.word_spans(example), mention.start, mention.end)
    if not inside:
        raise DataFault(f"example {example.id}", f"no word stands at its mention {mention.text!r}")
    return inside[0], inside[-1]


def known_pairs(example: relations.Example, none: str) -> tuple[list[relations.Example], Counter[str]]:
    """Every ordered pair of a text's gold mentions as an example of its own, with its relation or ``none``.

    Where two triples join one pair, the first counts (the others: ``triples_of_one_pair``).
    """
    triples = example.gold.triples if example.gold else ()
    label = {_places(t.head, t.tail): t.relation for t in reversed(triples)}
    pairs = []
    for head, tail in permutations(mentions_of(example), 2):
        gold = relations.Answer(relation=label.get(_places(head, tail), none))
        pairs.append(example.model_copy(update={"pair": (head, tail), "gold": gold}))
    return pairs, Counter({"triples_of_one_pair": len(triples) - len(label)})


def _places(head: ner.Entity, tail: ner.Entity) -> tuple[int | None, ...]:
    return head.start, head.end, tail.start, tail.end
