"""Ranks of the gold entity: completion, alignment and linking.

A rank is 1 plus the number of candidates before gold. Ties, as PyKEEN names them: ``optimistic`` puts gold first among
its equals, ``pessimistic`` last, ``realistic`` (the default) at the mean of the two. ``filtered``: other candidates
that are known to be right are taken out before ranking (Bordes et al. 2013, "Translating Embeddings for Modeling
Multi-relational Data", section 4.2). A score that is NaN never wins: as a competitor it stands behind everything, as
gold it stands last. Then, over all questions,

    MRR = mean(1 / rank),  Hits@k = mean(rank <= k).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..tasks.graph import Ranking
from ..tasks.task import DataFault

Ties = Literal["realistic", "optimistic", "pessimistic"]

#: The k of Hits@k that the field reports.
HITS = (1, 3, 10)

PROTOCOL = (
    "Rank of the gold entity in the ranking given; MRR and Hits@k over all examples, Hits@1 is the accuracy. Gold that "
    "the ranking leaves out has the worst rank there is, infinity: it counts 0 in MRR and in every Hits@k, and so does "
    "an unparseable answer. Gold that says NIL (no entity) is right, rank 1, only if the ranking is empty. Ties of "
    "scores are {ties}, an answer without scores has none; {filtered}. NaN never wins."
)

Floats = NDArray[np.float64]


def protocol(ties: Ties = "realistic", filtered: bool = False) -> str:
    """The protocol in words, for a report."""
    known = "other known answers are taken out first (filtered)" if filtered else "no known answers are taken out (raw)"
    return PROTOCOL.format(ties=ties, filtered=known)


def ranks(
    scores: ArrayLike, gold: ArrayLike, known: Sequence[Collection[int]] | None = None, ties: Ties = "realistic"
) -> Floats:
    """Ranks ``[n]`` of gold among scored candidates; higher scores are better.

    Args:
        scores: ``[n, candidates]``.
        gold: ``[n]``, the right candidate of each row.
        known: each row's candidates that are right as well; they are taken out (gold itself never is).
        ties: see the module.

    Raises:
        ValueError: shapes that do not fit, a candidate that is not there, or another word for ties.
    """
    _check_ties(ties)
    table, right = np.asarray(scores, dtype=np.float64), np.asarray(gold)
    if table.ndim != 2 or right.shape != (len(table),):
        raise ValueError(f"scores [n, candidates] and gold [n] are needed, not {table.shape} and {right.shape}")
    if len(table) and (right.dtype.kind not in "iu" or right.min() < 0 or right.max() >= table.shape[1]):
        raise ValueError(f"gold is a candidate's number, 0 to {table.shape[1] - 1}")
    rows = np.arange(len(table))
    of_gold = table[rows, right][:, None]
    rivals = np.ones(table.shape, dtype=bool)
    if known is not None:
        for row, some in enumerate(known):
            rivals[row, list(some)] = False
    rivals[rows, right] = False
    before = ((table > of_gold) & rivals).sum(axis=1)
    level = ((table == of_gold) & rivals).sum(axis=1)
    shift = {"optimistic": 0.0, "realistic": 0.5, "pessimistic": 1.0}[ties]
    return np.where(np.isnan(of_gold[:, 0]), 1.0 + rivals.sum(axis=1), 1.0 + before + shift * level)


def rank(answer: Ranking | None, gold: Ranking, known: Collection[str] = (), ties: Ties = "realistic") -> float:
    """Rank of gold in an answer; infinity where the answer leaves it out, or is none (see `PROTOCOL`).

    Args:
        known: ids of other entities that are right as well; they are taken out first.
    """
    _check_ties(ties)
    if answer is None:
        return np.inf
    if gold.best is None:
        return np.inf if answer.ranking else 1.0
    if gold.best not in answer.ranking:
        return np.inf
    kept = [place for place, id in enumerate(answer.ranking) if id == gold.best or id not in known]
    at = kept.index(answer.ranking.index(gold.best))
    if not answer.scores:
        return float(at + 1)
    return float(ranks([[answer.scores[place] for place in kept]], [at], ties=ties)[0])


def of_answers(
    examples: Sequence[Any],
    answers: Sequence[Ranking | None],
    known: dict[str, Collection[str]] | None = None,
    ties: Ties = "realistic",
) -> Floats:
    """Ranks ``[n]`` of each example's gold in its answer.

    Args:
        known: example id to the ids of the entities that are right as well; an example that is not named has none.

    Raises:
        DataFault: an example without gold, or one whose mentions were to be detected (it has links, and no ranking).
    """
    found = []
    for example, answer in zip(examples, answers, strict=True):
        if example.gold is None:
            raise DataFault(f"example {example.id}", "it has no gold entity", "score a labelled split")
        if getattr(example, "mention", "") is None:
            raise DataFault(f"example {example.id}", "it gives no mention to be ranked for", "score examples with one")
        found.append(rank(answer, example.gold, (known or {}).get(example.id, ()), ties))
    return np.asarray(found, dtype=np.float64)


def reciprocal(ranked: ArrayLike) -> Floats:
    """``1 / rank``; 0 for infinity."""
    return 1.0 / np.asarray(ranked, dtype=np.float64)


def mrr(ranked: ArrayLike) -> float:
    """Mean reciprocal rank; 0 of no ranks."""
    values = reciprocal(ranked)
    return float(values.mean()) if values.size else 0.0


def hits(ranked: ArrayLike, k: int) -> float:
    """Share of the ranks that are at most ``k``; 0 of no ranks."""
    values = np.asarray(ranked, dtype=np.float64) <= k
    return float(values.mean()) if values.size else 0.0


def _check_ties(ties: str) -> None:
    if ties not in get_args(Ties):
        raise ValueError(f"ties are {', '.join(get_args(Ties))}, not {ties!r}")
