"""A student's answers on a split, and what they score."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .. import students
from ..eval import confidence
from ..eval import score as scoring
from ..students.student import View
from . import checkpoint, data, features
from .recipe import Recipe, read

#: The largest share of the gold values found where at least 90 % of the values kept are right (`eval.confidence`).
RECALL = "recall_at_90P"
PROTOCOL = (
    "recall_at_90P: one threshold for all attributes, the best on these examples; equal confidences stay together."
)


@dataclass(frozen=True)
class Evaluation:
    """A student's answers on some examples and what they scored.

    Attributes:
        scores: the metrics with bootstrap 95 % intervals.
        answers: one an example, in their order.
        confidences: the student's probabilities beside each answer: of `attributes` one an attribute.
        view: what the student was shown.
        seconds_per_1000: wall-clock time of ``predict``, per 1,000 examples.
        counts: what was given up on the way (``context_tokens_cut``, ``image_missing``), and examples without
            knowledge.
    """

    scores: scoring.Scores
    answers: list[Any]
    confidences: list[Any]
    view: View
    seconds_per_1000: float
    counts: dict[str, int]


@dataclass(frozen=True)
class Answered:
    """What a student said of some examples.

    Attributes:
        pairs: an answer with its probabilities for each example, in their order.
        seconds: wall-clock time of ``predict``.
        counts: what was given up on the way.
    """

    pairs: list[tuple[Any, Any]]
    seconds: float
    counts: dict[str, int]


def load(run: str | Path) -> tuple[Any, View]:
    """The best student of a run folder and the view it was trained for."""
    best = Path(run) / "best"
    if not best.exists():
        raise checkpoint.RunFault(f"{run} holds no finished student (there is no folder {best})")
    student = students.load(best)
    features.attach(student)
    return student.eval(), student.view


def recipe_of(run: str | Path) -> Recipe:
    """The recipe a run was trained by."""
    return read(Path(run) / "recipe.yaml")


def evaluate(
    student: Any,
    examples: Sequence[Any],
    task: str,
    view: View | None = None,
    precision: str = "fp32",
    batch_size: int = 32,
    **options: Any,
) -> Evaluation:
    """Predict and score. ``options`` go to `eval.score` (``train=`` for seen and unseen values,
    ``resamples=``).
    """
    view = view or student.view
    found = answer(student, examples, view, precision, batch_size)
    return judged(found, examples, task, view, **options)


def answer(
    student: Any, examples: Sequence[Any], view: View, precision: str = "fp32", batch_size: int = 32
) -> Answered:
    """A student's answers to some examples under a view."""
    student.eval()
    started = time.perf_counter()
    with torch.autocast(next(student.parameters()).device.type, torch.bfloat16, enabled=precision == "bf16"):
        pairs = student.predict(examples, view, batch_size=batch_size, return_scores=True)
    return Answered(pairs, time.perf_counter() - started, dict(student.given_up))


def judged(found: Answered, examples: Sequence[Any], task: str, view: View, **options: Any) -> Evaluation:
    """What answers score; ``options`` go to `eval.score`."""
    counts = dict(found.counts)
    for name in view.context:
        counts[f"without_{name}"] = sum(not e.context.get(name) for e in examples)
    if view.images:
        counts["without_image"] = sum(not e.images for e in examples)
    answers, confidences = [a for a, _ in found.pairs], [c for _, c in found.pairs]
    scores = scoring.score(task, examples, answers, **options)
    if task == "attributes" and any(c is not None for own in confidences for c in own.values()):
        recall = confidence.interval(examples, answers, confidences)
        scores = replace(scores, metrics={**scores.metrics, RECALL: recall}, protocol=f"{scores.protocol} {PROTOCOL}")
    return Evaluation(scores, answers, confidences, view, 1000 * found.seconds / len(examples), counts)


def evaluate_run(
    run: str | Path,
    split: str = "test",
    spec: str | None = None,
    view: View | None = None,
    knowledge: str | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluate a run's best student on a split of its own data (or of other data of the same schema)."""
    recipe = recipe_of(run)
    student, own = load(run)
    examples = data.examples_of(recipe, split, spec, knowledge)
    return evaluate(student, examples, recipe.task, view or own, recipe.precision, 2 * recipe.batch_size, **options)


def primary(task: str, examples: Sequence[Any], answers: Sequence[Any]) -> float:
    """The metric by which checkpoints are chosen, without intervals."""
    return scoring.score(task, examples, answers, resamples=1).value
