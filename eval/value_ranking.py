"""Ranked values of attributes: where the gold value stands among the values that a student scored (MAE's protocol).

The rank is 1 plus the number of values that score strictly higher, which is optimistic under ties; the pessimistic rank
counts ties as higher. Of several gold alternatives the best counts and the others are taken out. Gold that is not among
the values scored has no rank: it counts 0 in MRR and in every Hits@k.
Source: Logan et al. (2017), "Multimodal attribute extraction", and the evaluation of its released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..tasks.attributes import Example
from ..tasks.task import DataFault
from . import ranking
from .attributes import values

#: The k of Hits@k that MAE reports.
HITS = (1, 5, 10, 20)


def measure(examples: Sequence[Example], scored: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Hits@k and MRR over the slots of the gold, under ``optimistic`` and (``…_pessimistic``) pessimistic ties.

    Args:
        examples: with gold.
        scored: for each example and attribute asked the score of each value; "absent" is the empty string.

    Returns:
        The metrics as fractions; ``slots`` that were ranked, and ``unranked`` ones whose gold was not scored.
    """
    ranks: dict[ranking.Ties, list[float]] = {"optimistic": [], "pessimistic": []}
    for example, by_name in zip(examples, scored, strict=True):
        if example.gold is None:
            raise DataFault(f"example {example.id}", "it has no gold values", "score a labelled split")
        for name in example.gold.values:
            gold = values(example.gold, name) or ("",)
            for ties, found in ranks.items():
                found.append(rank(by_name.get(name, {}), gold, ties))
    measured: dict[str, float] = {}
    for ties, found in ranks.items():
        end = "_pessimistic" if ties == "pessimistic" else ""
        measured |= {f"hits@{k}{end}": ranking.hits(found, k) for k in HITS}
        measured[f"mrr{end}"] = ranking.mrr(found)
    of_gold = ranks["optimistic"]
    return {**measured, "slots": len(of_gold), "unranked": int(np.isinf(of_gold).sum())}


def rank(scores: Mapping[str, float], gold: Sequence[str], ties: ranking.Ties = "optimistic") -> float:
    """Rank of the best of some gold alternatives; infinity where none of them was scored."""
    order = list(scores)
    known = [order.index(value) for value in gold if value in scores]
    if not known:
        return float("inf")
    row = [scores[value] for value in order]
    return float(ranking.ranks([row] * len(known), known, [known] * len(known), ties).min())
