"""Beam search over whatever can say how an answer may go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Beam:
    """An answer begun.

    Attributes:
        item: the number of the question that it answers.
        ids: its sub-tokens.
        score: its log probability.
        parent: the place, among the beams of the step before, of the one that it goes on from.
    """

    item: int
    ids: tuple[int, ...]
    score: float
    parent: int


#: Sub-tokens that may follow, with their log probabilities.
Continuations = Sequence[tuple[int, float]]

#: A finished answer and its log probability.
Found = tuple[tuple[int, ...], float]


def search(
    expand: Callable[[Sequence[Beam]], Sequence[Continuations]], widths: Sequence[int], longest: int, end: int
) -> list[Found | None]:
    """The most probable answer found for each question; None where no beam came to its end in ``longest`` sub-tokens.

    A beam that is less probable already than a finished answer can only lose and is given up. So, where the width is
    not less than the number of answers, the best one is always found.

    Args:
        expand: how beams may go on; gets all that are alive, of all questions, one length at a time.
        widths: the most beams of each question.
        longest: the most sub-tokens of an answer, its end not counted.
        end: the sub-token that ends an answer.
    """
    live = [Beam(item, (), 0.0, item) for item in range(len(widths))]
    best: list[Found | None] = [None] * len(widths)
    while live:
        grown: dict[int, list[Beam]] = {}
        for place, (beam, said) in enumerate(zip(live, expand(live), strict=True)):
            for token, logarithm in said:
                score, known = beam.score + logarithm, best[beam.item]
                if token != end:
                    if len(beam.ids) < longest:
                        grown.setdefault(beam.item, []).append(Beam(beam.item, (*beam.ids, token), score, place))
                elif known is None or score > known[1]:
                    best[beam.item] = beam.ids, score
        live = []
        for item, beams in grown.items():
            known = best[item]
            hopeful = [b for b in beams if known is None or b.score > known[1]]
            live += sorted(hopeful, key=lambda b: -b.score)[: widths[item]]
    return best
