"""Four ways to ask a student that was trained on two views of a text: each trades what is read for what it costs.

Mode A reads the text alone, so that nothing has to be asked of a captioner or a large model; B the caption, too; C
everything that the view with the knowledge reads. D (selective) reads the text alone first and everything where that
leaves doubt: where the entropy of what the student says, mean over the words, exceeds a threshold. The threshold is the
one that scores best on the validation split; of several, the highest, which asks least.
Source: the modes of chain-of-thought prompt distillation (Chen and Feng 2023).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..students.student import Batch, Output, View
from ..tasks.task import DataFault
from . import evaluate, objectives
from .recipe import Recipe

#: What each mode reads.
MODES = {
    "A": "text alone",
    "B": "text and captions",
    "C": "text and all that the knowledge view reads",
    "D": "text alone first, all of it where that leaves doubt",
}

#: So many thresholds, evenly spaced over the validation examples, are tried.
TRIED = 50


@dataclass(frozen=True)
class Asked:
    """An evaluation under a mode.

    Attributes:
        found: answers, scores, latency and counts.
        threshold: of mode D, the mean entropy (nats) above which everything is read; else None.
        in_full: share of the examples for which everything was read.
    """

    found: evaluate.Evaluation
    threshold: float | None
    in_full: float


def view(recipe: Recipe, mode: str) -> View:
    """What the run's student is shown under mode A, B or C.

    Raises:
        DataFault: the run was not trained on two views, or on none such as the mode shows.
    """
    own = objectives.text_view(recipe)
    if recipe.objective == "cross_view":
        text, names = replace(own, context=()), recipe.context
    elif recipe.objective == "prompt_distillation":
        text, names = own, recipe.teacher_context
    else:
        raise DataFault(recipe.output, f"was trained on one view (objective {recipe.objective}): it has no modes")
    if mode == "A":
        return text
    if recipe.teacher_run:
        raise DataFault(recipe.output, "learned from a finished teacher and has seen the text alone: it has mode A")
    if mode == "B":
        names = tuple(name for name in names if name != "knowledge")
        if not names:
            raise DataFault(recipe.output, "read no captions in training: it has no mode B")
    return View(context=names, images=recipe.images)


def ask(
    mode: str, student: Any, recipe: Recipe, examples: Sequence[Any], valid: Sequence[Any] = (), **options: Any
) -> Asked:
    """Evaluate a run's student under a mode; ``valid`` is what mode D's threshold is chosen on.

    Latency is that of the student: what a captioner or a large model takes stands beside it. ``options`` go to
    `eval.score`.
    """
    how: dict[str, Any] = {"precision": recipe.precision, "batch_size": 2 * recipe.batch_size}
    full = view(recipe, "C" if mode == "D" else mode)
    _told(mode, full, examples)
    if mode != "D":
        found = evaluate.evaluate(student, examples, recipe.task, full, **how, **options)
        return Asked(found, None, float(mode == "C"))
    text = view(recipe, "A")
    first, doubts = doubted(student, valid, text, **how)
    threshold = choose(recipe.task, valid, first, evaluate.answer(student, valid, full, **how), doubts)
    first, doubts = doubted(student, examples, text, **how)
    unsure = [at for at, doubt in enumerate(doubts) if doubt > threshold]
    again = evaluate.answer(student, [examples[at] for at in unsure], full, **how)
    pairs = list(first.pairs)
    for at, pair in zip(unsure, again.pairs, strict=True):
        pairs[at] = pair
    counts = {**(Counter(first.counts) + Counter(again.counts)), "read_in_full": len(unsure)}
    joined = evaluate.Answered(pairs, first.seconds + again.seconds, counts)
    found = evaluate.judged(joined, examples, recipe.task, full, **options)
    return Asked(found, threshold, len(unsure) / len(examples))


def doubted(student: Any, examples: Sequence[Any], view: View, **how: Any) -> tuple[evaluate.Answered, list[float]]:
    """Answers under a view, and how much doubt each leaves: the mean entropy, in one pass."""
    doubts: dict[str, float] = {}

    def watch(batch: Batch, scores: Mapping[str, Tensor]) -> None:
        found = entropy(*objectives.posteriors(student, batch, Output(None, {}, dict(scores)), 1.0))
        doubts.update(zip((e.id for e in batch.examples), found.tolist(), strict=True))

    student.watch = watch
    try:
        found = evaluate.answer(student, examples, view, **how)
    finally:
        student.watch = None
    return found, [doubts[example.id] for example in examples]


def entropy(posteriors: Tensor, mask: Tensor) -> Tensor:
    """Mean entropy ``[B]`` (nats) of log posteriors ``[B, N, K]`` where ``mask [B, N]`` is true."""
    pointwise = -(posteriors.exp() * posteriors.masked_fill(posteriors == -torch.inf, 0)).sum(-1)
    return pointwise.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)


def choose(
    task: str, examples: Sequence[Any], first: evaluate.Answered, full: evaluate.Answered, doubts: Sequence[float]
) -> float:
    """The threshold under which ``first`` answers and above which ``full`` does, best on these examples."""
    steps = np.unique(np.quantile(doubts, np.linspace(0, 1, TRIED)))
    tried = [float("-inf"), *steps.tolist()]  # everything is read in full, ..., nothing is

    def scored(threshold: float) -> float:
        choice = zip(first.pairs, full.pairs, doubts, strict=True)
        return evaluate.primary(task, examples, [(b if d > threshold else a)[0] for a, b, d in choice])

    return max(tried, key=lambda threshold: (scored(threshold), threshold))


def _told(mode: str, shown: View, examples: Sequence[Any]) -> None:
    """Refuse a mode that reads what no example has."""
    if shown.context and not any(e.context.get(name) for e in examples for name in shown.context):
        raise DataFault(f"mode {mode}", f"no example has any of: {', '.join(shown.context)}", "ask mode A")
