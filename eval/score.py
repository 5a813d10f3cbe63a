"""One entry for every task: answers against gold, with intervals, and with what a paired test needs later."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tasks import attributes as attributes_task
from ..tasks import ner as ner_task
from ..tasks import relations as relations_task
from ..tasks.graph import Ranking
from . import attributes, ranking, relations, spans
from .attributes import CASES, EXTRAS, OpenSlots
from .bootstrap import RESAMPLES, Difference, Floats, Interval, ends, paired, resample
from .spans import f1, ratio

#: The metric by which a run is selected and a table is read, by task.
PRIMARY = {
    "ner": "f1",
    "attributes": "f1",
    "relations": "f1",
    "completion": "mrr",
    "alignment": "hits@1",
    "linking": "hits@1",
}

#: Sums by name to a metric.
Formula = Callable[[Mapping[str, Floats]], Floats]

#: What ranked answers are judged by: the same for three tasks.
_RANKED: dict[str, Formula] = {
    "mrr": lambda s: ratio(s["reciprocal_rank"], s["asked"]),
    **{f"hits@{k}": lambda s, k=k: ratio(s[f"hits@{k}"], s["asked"]) for k in ranking.HITS},  # type: ignore[misc]
}

#: The metrics that are functions of summed counts, by task: all of them can be compared with a paired test.
FORMULAS: dict[str, dict[str, Formula]] = {
    "ner": {
        "precision": lambda s: ratio(s["correct"], s["predicted"]),
        "recall": lambda s: ratio(s["correct"], s["gold"]),
        "f1": lambda s: f1(s["correct"], s["predicted"], s["gold"]),
        "boundary_f1": lambda s: f1(s["boundary_correct"], s["boundary_predicted"], s["boundary_gold"]),
    },
    "attributes": {
        "precision": lambda s: ratio(s["vc"], s["nv"] + s["vc"] + s["vw"]),
        "recall": lambda s: ratio(s["vc"], s["vn"] + s["vc"] + s["vw"]),
        "f1": lambda s: f1(s["vc"], s["nv"] + s["vc"] + s["vw"], s["vn"] + s["vc"] + s["vw"]),
        "attribute_f1": lambda s: f1(s["vc"] + s["vw"], s["nv"] + s["vc"] + s["vw"], s["vn"] + s["vc"] + s["vw"]),
        "strict": lambda s: ratio(s["vc"], s["vn"] + s["vc"] + s["vw"]),
        "lenient": lambda s: ratio(s["lenient"], s["vn"] + s["vc"] + s["vw"]),
        "similarity": lambda s: ratio(s["similarity"], s["leaves"]),
        "recall_seen": lambda s: ratio(s["seen_correct"], s["seen"]),
        "recall_unseen": lambda s: ratio(s["unseen_correct"], s["unseen"]),
    },
    "relations": {
        "precision": lambda s: ratio(s["correct"], s["predicted"]),
        "recall": lambda s: ratio(s["correct"], s["gold"]),
        "f1": lambda s: f1(s["correct"], s["predicted"], s["gold"]),
        "accuracy": lambda s: ratio(s["right"], s["asked"]),
    },
    "completion": _RANKED,
    "alignment": _RANKED,
    "linking": _RANKED,
}


@dataclass(frozen=True)
class TypeRow:
    """One entity type, or one "category / attribute": its figures, and how many items stand behind them."""

    name: str
    precision: float
    recall: float
    f1: Interval
    gold: int
    predicted: int


@dataclass(frozen=True, eq=False)
class Scores:
    """What a system scored on a test set.

    Attributes:
        task: the task's key.
        primary: the metric to read first.
        protocol: how it was judged, in words, with the tie rule.
        metrics: fractions (not per cent) with percentile bootstrap 95 % intervals over examples.
        by_type: one row a type, most gold items first.
        counts: ``examples``, ``unparseable`` and what else was counted on the way.
        ids: the examples, in order.
        columns, per_example: names and values ``[n, k]`` of the per-example sums, for `compare`.
    """

    task: str
    primary: str
    protocol: str
    metrics: dict[str, Interval]
    by_type: tuple[TypeRow, ...]
    counts: dict[str, int]
    ids: tuple[str, ...]
    columns: tuple[str, ...]
    per_example: Floats

    @property
    def value(self) -> float:
        """The primary metric."""
        return self.metrics[self.primary].value

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; `read` is its inverse."""
        return {
            "task": self.task,
            "primary": self.primary,
            "protocol": self.protocol,
            "metrics": {name: metric._asdict() for name, metric in self.metrics.items()},
            "by_type": [{**vars(row), "f1": row.f1._asdict()} for row in self.by_type],
            "counts": self.counts,
            "ids": list(self.ids),
            "columns": list(self.columns),
            "per_example": self.per_example.tolist(),
        }


def score(task_key: str, examples: Sequence[Any], answers: Sequence[Any], **options: Any) -> Scores:
    """Judge answers (None: unparseable), one an example and in the same order, against the examples' gold.

    Options of ``attributes``: ``open_slots`` ("skip" or "penalise"), ``train`` (training examples, for the
    recall of seen and unseen values), ``outputs`` (texts before parsing, for the lenient metric). Of ``relations``:
    ``none``, the label of a pair without relation. Of ``completion``, ``alignment`` and ``linking``: ``known``
    (example id to the ids that are right as well, for filtered ranks) and ``ties``. Of all: ``resamples``, ``seed``.

    Raises:
        ValueError: no examples, another number of answers, two examples of one id, or an unknown task.
        DataFault: an example without gold.
        TypeError: an option that the task does not have.
    """
    if task_key not in _SCORERS:
        raise ValueError(f"no metric for task {task_key!r}; there are: {', '.join(_SCORERS)}")
    if len(examples) != len(answers):
        raise ValueError(f"{len(examples)} examples but {len(answers)} answers: give one each, None if unparseable")
    if not examples:
        raise ValueError("no examples to score")
    ids = [example.id for example in examples]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"two examples have the id {twice!r}: a paired test could not tell them apart")
    return _SCORERS[task_key](examples, answers, **options)


def compare(first: Scores, second: Scores, metric: str = "", resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Second system less first on the same examples, by paired bootstrap; the primary metric by default.

    A `ValueError` if the two were not scored on the same examples in the same order under the same protocol.
    """
    if first.ids != second.ids:
        raise ValueError("a paired test needs both systems scored on the same examples in the same order")
    if (first.task, first.protocol, first.columns) != (second.task, second.protocol, second.columns):
        raise ValueError(f"two protocols cannot be compared: {first.protocol!r} and {second.protocol!r}")
    formula = FORMULAS[first.task].get(metric or first.primary)
    if formula is None:
        raise ValueError(f"no paired test for {metric!r}; there are: {', '.join(FORMULAS[first.task])}")
    statistic = lambda sums: formula(_by_name(first.columns, sums))
    return paired(first.per_example, second.per_example, statistic, resamples, seed)


def read(path: str | Path) -> Scores:
    """Scores as `Scores.as_dict` wrote them to a JSON file."""
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    data["metrics"] = {name: Interval(**metric) for name, metric in data["metrics"].items()}
    data["by_type"] = tuple(TypeRow(**{**row, "f1": Interval(**row["f1"])}) for row in data["by_type"])
    data["ids"], data["columns"] = tuple(data["ids"]), tuple(data["columns"])
    data["per_example"] = np.asarray(data["per_example"], dtype=np.float64)
    return Scores(**data)


def _score_ner(
    examples: Sequence[ner_task.Example],
    answers: Sequence[ner_task.Answer | None],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scores:
    counted = spans.count(examples, answers)
    names = ("correct", "predicted", "gold")
    columns = (*names, *(f"boundary_{name}" for name in names))
    per_example = np.concatenate([counted.table.sum(axis=1), counted.boundaries], axis=1)
    return Scores(
        task="ner",
        primary=PRIMARY["ner"],
        protocol=spans.PROTOCOL,
        metrics=_metrics(FORMULAS["ner"], columns, per_example, resamples, seed),
        by_type=_rows(counted.types, counted.table, resamples, seed),
        counts={"examples": len(examples), **_totals(columns[:3], per_example), **counted.counts},
        ids=tuple(example.id for example in examples),
        columns=columns,
        per_example=per_example.astype(np.float64),
    )


def _score_attributes(
    examples: Sequence[attributes_task.Example],
    answers: Sequence[attributes_task.Answer | None],
    open_slots: OpenSlots = "skip",
    train: Sequence[attributes_task.Example] = (),
    outputs: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scores:
    if open_slots not in ("skip", "penalise"):
        raise ValueError(f"open_slots is skip or penalise, not {open_slots!r}")
    counted = attributes.count(examples, answers, open_slots, train, outputs)
    columns = (*CASES, *EXTRAS)
    per_example = np.concatenate([counted.table.sum(axis=1), counted.extras], axis=1)
    formulas = FORMULAS["attributes"]
    if not train:
        formulas = {name: f for name, f in formulas.items() if name not in ("recall_seen", "recall_unseen")}
    _, nv, vn, vc, vw = np.moveaxis(counted.table, 2, 0)
    by_pair = np.stack([vc, nv + vc + vw, vn + vc + vw], axis=2)
    metrics = _metrics(formulas, columns, per_example, resamples, seed) | _macro(by_pair, resamples, seed)
    totals = _totals(columns, per_example)
    shown = (*CASES, "seen", "unseen") if train else CASES
    return Scores(
        task="attributes",
        primary=PRIMARY["attributes"],
        protocol=attributes.protocol(open_slots),
        metrics=metrics,
        by_type=_rows([" / ".join(filter(None, pair)) for pair in counted.pairs], by_pair, resamples, seed),
        counts={"examples": len(examples), **{name: totals[name] for name in shown}, **counted.counts},
        ids=tuple(example.id for example in examples),
        columns=columns,
        per_example=per_example,
    )


def _score_relations(
    examples: Sequence[relations_task.Example],
    answers: Sequence[relations_task.Answer | None],
    none: str = "None",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scores:
    counted = relations.count(examples, answers, none)
    columns = ("correct", "predicted", "gold", "right", "asked")
    per_example = np.column_stack([counted.table.sum(axis=1), counted.right, np.ones(len(examples))])
    return Scores(
        task="relations",
        primary=PRIMARY["relations"],
        protocol=counted.protocol.format(none=none),
        metrics=_metrics(FORMULAS["relations"], columns, per_example, resamples, seed),
        by_type=_rows(counted.labels, counted.table, resamples, seed),
        counts={"examples": len(examples), **_totals(columns[:3], per_example), **counted.counts},
        ids=tuple(example.id for example in examples),
        columns=columns,
        per_example=per_example,
    )


def _score_ranked(
    task_key: str,
    examples: Sequence[Any],
    answers: Sequence[Ranking | None],
    known: dict[str, Collection[str]] | None = None,
    ties: ranking.Ties = "realistic",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scores:
    ranks = ranking.of_answers(examples, answers, known, ties)
    columns = ("reciprocal_rank", *(f"hits@{k}" for k in ranking.HITS), "asked")
    per_example = np.column_stack(
        [ranking.reciprocal(ranks), *(ranks <= k for k in ranking.HITS), np.ones(len(examples))]
    )
    lists = [set(answer.ranking) if answer else set() for answer in answers]
    left_out = [e.gold.best is not None and e.gold.best not in some for e, some in zip(examples, lists, strict=True)]
    return Scores(
        task=task_key,
        primary=PRIMARY[task_key],
        protocol=ranking.protocol(ties, known is not None),
        metrics=_metrics(FORMULAS[task_key], columns, per_example, resamples, seed),
        by_type=(),
        counts={
            "examples": len(examples),
            "unparseable": sum(answer is None for answer in answers),
            "gold_left_out": sum(left_out),
            "gold_is_nil": sum(example.gold.best is None for example in examples),
        },
        ids=tuple(example.id for example in examples),
        columns=columns,
        per_example=per_example,
    )


_SCORERS: dict[str, Callable[..., Scores]] = {
    "ner": _score_ner,
    "attributes": _score_attributes,
    "relations": _score_relations,
    **{key: partial(_score_ranked, key) for key in ("completion", "alignment", "linking")},
}


def _by_name(columns: Sequence[str], sums: Floats) -> dict[str, Floats]:
    return dict(zip(columns, np.moveaxis(sums, -1, 0), strict=True))


def _totals(columns: Sequence[str], per_example: NDArray[Any]) -> dict[str, int]:
    """Column sums over the examples (the first columns, if fewer names are given)."""
    return {name: int(total) for name, total in zip(columns, per_example.sum(axis=0), strict=False)}


def _metrics(
    formulas: Mapping[str, Formula],
    columns: Sequence[str],
    per_example: NDArray[Any],
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    total = _by_name(columns, per_example.sum(axis=0).astype(np.float64))
    drawn = _by_name(columns, resample(per_example, resamples, seed))
    return {name: Interval(float(f(total)), *ends(f(drawn))) for name, f in formulas.items()}


def _rows(names: Sequence[str], table: NDArray[Any], resamples: int, seed: int) -> tuple[TypeRow, ...]:
    """A row a type from counts ``[n, types, 3]`` (correct, predicted, gold)."""
    total = table.sum(axis=0)
    drawn = np.moveaxis(resample(table, resamples, seed), -1, 0)
    precision, recall, value = ratio(*total.T[:2]), ratio(total[:, 0], total[:, 2]), f1(*total.T)
    low, high = np.quantile(f1(*drawn), [0.025, 0.975], axis=0)
    rows = [
        TypeRow(
            name=name,
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=Interval(float(value[i]), float(low[i]), float(high[i])),
            gold=int(total[i, 2]),
            predicted=int(total[i, 1]),
        )
        for i, name in enumerate(names)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.gold, row.name)))


def _macro(table: NDArray[Any], resamples: int, seed: int) -> dict[str, Interval]:
    """Unweighted means over the pairs of counts ``[n, pairs, 3]``, unused pairs left out.

    A resample can lose a rare pair altogether, so these intervals lean to the well-filled pairs.
    """
    metrics = {}
    total, drawn = table.sum(axis=0)[None], resample(table, resamples, seed)
    for name, of in {
        "macro_precision": lambda c, p, g: ratio(c, p),
        "macro_recall": lambda c, p, g: ratio(c, g),
        "macro_f1": f1,
    }.items():
        value, values = (_mean_of_used(of(*np.moveaxis(s, -1, 0)), s) for s in (total, drawn))
        metrics[name] = Interval(float(value[0]), *ends(values))
    return metrics


def _mean_of_used(per_pair: Floats, sums: NDArray[Any]) -> Floats:
    """Mean of values ``[b, pairs]`` over pairs used in gold or prediction (``sums[b, pairs, 3]``)."""
    used = (sums[..., 1] + sums[..., 2]) > 0
    return ratio((per_pair * used).sum(axis=-1), used.sum(axis=-1))
