"""Shortlists: a few entities for each example to choose among, drawn without a look at its answer.

What is known may be used: names, the graph's split ``train``, the seed pairs and linked mentions of the training split;
of these an example's own triple, pair or mention is left out, so that a list tells no more in training than in test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset
from .facts import Facts
from .names import Names, Scores, plain, written
from .task import DataFault

#: For each example the scores of all entities by each source of candidates, the surest source first.
Source = Callable[[Dataset, Sequence[Any]], Iterator[list[Scores]]]


def shortlist(
    dataset: Dataset, examples: Iterable[Any], size: int = 10, seed: int = 0
) -> tuple[tuple[Any, ...], dict[str, float]]:
    """Draw candidates for examples of completion, alignment or linking.

    - completion: entities that train has on that side of the relation, by frequency; and those near the given one:
      beside it, or two steps away and on that side of the relation.
    - alignment: entities with a similar name, where the entity has one; and those beside the counterparts of its
      neighbours, by seed pairs.
    - linking: what train links the same mention to, by frequency; and entities with a similar name.

    The sources take turns; ties are broken, and what they leave open is filled, by a draw of ``seed`` and the
    example's id. So the list of an example depends on nothing but the data set, its id and question, size and seed.
    It stands in an order that is drawn, too: a teacher that favours the first place gains nothing by it. Examples that
    have candidates keep them.

    Returns:
        The examples with candidates (for alignment with their facts, too), and notes: ``examples``; ``kept``, those
        that had candidates; ``without_mention``, those that cannot have any; ``filled``, the candidates drawn at
        random; ``with_gold``, those whose answer is an entity; ``gold_among_candidates``; and ``recall``, the latter
        divided by the former.

    Raises:
        DataFault: the task has no candidates, or the data set has not the graphs to draw them from.
    """
    if dataset.task not in _SOURCES:
        raise DataFault(dataset.name, f"{dataset.task} has no candidates", f"these have: {', '.join(_SOURCES)}")
    source, graphs = _SOURCES[dataset.task]
    if len(dataset.graphs) != graphs:
        raise DataFault(dataset.name, f"{len(dataset.graphs)} graphs, {graphs} needed to draw candidates from")
    done = list(examples)
    graph = dataset.graphs[-1]
    facts = Facts(graph) if dataset.task == "alignment" else None
    notes = Counter(examples=len(done), kept=sum(bool(e.candidates) for e in done))
    asked = [at for at, e in enumerate(done) if not e.candidates and (dataset.task != "linking" or e.mention)]
    notes["without_mention"] = len(done) - notes["kept"] - len(asked)
    for at, scores in zip(asked, source(dataset, [done[at] for at in asked]), strict=True):
        draw = np.random.default_rng((seed, crc32(done[at].id.encode())))
        chosen = draw.permutation(_turns(scores, size, draw, notes)).tolist()
        fields: dict[str, Any] = {"candidates": tuple(graph.entities[number] for number in chosen)}
        if facts:
            fields["candidate_facts"] = tuple(map(facts.of, chosen))
        done[at] = done[at].model_copy(update=fields)
    golds = [(e.gold.best, e.candidates) for e in done if e.gold and e.gold.best]
    notes["with_gold"] = len(golds)
    notes["gold_among_candidates"] = sum(any(c.id == gold for c in candidates) for gold, candidates in golds)
    recall = notes["gold_among_candidates"] / len(golds) if golds else 0.0
    return tuple(done), {**notes, "recall": recall}


def _turns(sources: list[Scores], size: int, draw: np.random.Generator, notes: Counter[str]) -> list[int]:
    """The best of each source in turn, each entity once; what is left open is drawn."""
    order = draw.permutation(len(sources[0]))
    ranked = [_best(scores, size, order) for scores in sources]
    found = list(dict.fromkeys(n for turn in zip_longest(*ranked) for n in turn if n is not None))[:size]
    filled = list(dict.fromkeys([*found, *order[: 2 * size].tolist()]))[:size]
    notes["filled"] += len(filled) - len(found)
    return filled


def _best(scores: Scores, size: int, order: NDArray[np.int64]) -> list[int]:
    """The entities with the highest scores above zero, equal ones in the order given."""
    ranked = order[np.argsort(-scores[order], kind="stable")[:size]]
    return ranked[scores[ranked] > 0].tolist()


def _completion(dataset: Dataset, examples: Sequence[Any]) -> Iterator[list[Scores]]:
    """Scores of every entity: how often train has it on that side of the relation; its nearness to the given one.

    What train answers to the very same question is left out of both.
    """
    (graph,) = dataset.graphs
    facts = Facts(graph)
    triples = graph.all_triples([split for split in ("train",) if split in graph.triples])
    for example in examples:
        given, relation = graph.number[example.given.id], graph.relation_number[example.relation.name]
        near, side = (0, 2) if example.asked == "tail" else (2, 0)
        alike = triples[(triples[:, 1] == relation) & (triples[:, near] != given)]
        often = np.bincount(alike[:, side], minlength=len(graph.entities)).astype(np.float32)
        about = facts.about(given)
        others = about[(about[:, 1] != relation) | (about[:, near] != given)]
        beside = np.setdiff1d(others[:, ::2], [given])
        close = _beside(facts, beside.tolist()) * np.log1p(often)
        close[beside] += 1 / np.sqrt(facts.degrees[beside])
        close[given] = 0
        yield [often, close]


def _alignment(dataset: Dataset, examples: Sequence[Any]) -> Iterator[list[Scores]]:
    """Scores of every right entity: its name's likeness; how many counterparts of left neighbours it stands beside."""
    left, right = dataset.graphs
    around, there = Facts(left), Facts(right)
    partners: dict[int, list[int]] = defaultdict(list)
    for pair in dataset.splits.get("train", ()):
        if pair.gold and pair.gold.best:
            partners[left.number[pair.entity.id]].append(right.number[pair.gold.best])
    names = Names(right)
    alike = names.alike([written(example.entity) for example in examples])
    for example, by_name in zip(examples, alike, strict=True):
        neighbours = around.neighbours(left.number[example.entity.id]).tolist()
        yield [by_name, _beside(there, chain.from_iterable(partners[n] for n in neighbours if n in partners))]


def _linking(dataset: Dataset, examples: Sequence[Any]) -> Iterator[list[Scores]]:
    """Scores of every entry: how often train links the same mention to it; its name's likeness to the mention."""
    (base,) = dataset.graphs
    linked: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for example in dataset.splits.get("train", ()):
        if example.mention and example.gold and example.gold.best in base.number:
            linked[plain(example.mention.text)].append((example.id, base.number[example.gold.best]))
    names = Names(base)
    for example, by_name in zip(examples, names.alike([[e.mention.text] for e in examples]), strict=True):
        before = np.zeros(len(base.entities), np.float32)
        for id, number in linked[plain(example.mention.text)]:
            before[number] += id != example.id
        yield [before, by_name]


_SOURCES: dict[str, tuple[Source, int]] = {
    "completion": (_completion, 1),
    "alignment": (_alignment, 2),
    "linking": (_linking, 1),
}


def _beside(facts: Facts, numbers: Iterable[int]) -> Scores:
    """For each entity, how many of these it stands beside; one with many neighbours counts less, by their root."""
    scores = np.zeros(len(facts.graph.entities), np.float32)
    for number in numbers:
        beside = facts.neighbours(number)
        if len(beside):  # none where it has loops only
            scores[beside] += 1 / np.sqrt(len(beside))
    return scores
