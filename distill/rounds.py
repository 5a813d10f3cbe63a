"""What a simulation of active learning keeps in its folder: its plan, its rounds, and what came of them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..eval import record
from ..eval.score import PRIMARY
from ..tasks.record import Record
from . import checkpoint, origin
from .checkpoint import RunFault
from .recipe import Recipe

#: The name under which the rounds on all labels are kept.
ALL = "all"
#: Labels needed are counted to this share of what all labels give.
SHARE = 0.9

ROUNDS, PLAN, RESULT = "rounds.jsonl", "plan.json", "result.json"


class Round(Record):
    """One round of a simulation; ``rounds.jsonl`` keeps one a line.

    Attributes:
        strategy, seed, number: which round it is, from 0.
        labels: how many examples were labelled.
        chosen: the ids to be labelled next.
        metrics, counts, protocol: what the student scored on the held-out part, as `eval.score` has them.
        seconds: of training, choosing and judging.
    """

    strategy: str
    seed: int
    number: int
    labels: int
    chosen: tuple[str, ...]
    metrics: dict[str, record.Measure]
    counts: dict[str, int]
    protocol: str
    seconds: float


class Plan(Record):
    """What must be the same where a simulation goes on; ``plan.json`` keeps it.

    Attributes:
        start: labels of the first round, drawn by the seed.
        batch: labels added by each round.
        split: the held-out part: the recipe's ``test`` or ``valid``.
    """

    start: int = 50
    batch: int = 50
    split: str = "test"


def keep_plan(folder: Path, recipe: Recipe, plan: Plan) -> None:
    """Write recipe and plan; a `RunFault` if the folder holds those of another simulation."""
    checkpoint.same_recipe(folder, recipe)
    path = folder / PLAN
    if not path.exists():
        return checkpoint.write(path, plan.model_dump_json(indent=1).encode())
    kept = Plan.model_validate_json(path.read_bytes())
    if kept != plan:
        raise RunFault(f"{folder} holds a simulation with {kept!r}, not {plan!r}: give another folder")


def read(path: Path) -> dict[tuple[str, int, int], Round]:
    """The rounds kept, by strategy, seed and number; a line cut short by a kill is taken away."""
    if not path.exists():
        return {}
    held = path.read_bytes()
    whole = held[: held.rfind(b"\n") + 1]
    if len(whole) < len(held):
        os.truncate(path, len(whole))
    made = [Round.model_validate_json(line) for line in whole.splitlines()]
    return {(one.strategy, one.seed, one.number): one for one in made}


def append(path: Path, made: Round) -> None:
    """Add a round, at once."""
    with path.open("ab") as file:
        file.write(made.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def summary(
    recipe: Recipe, plan: Plan, known: Mapping[tuple[str, int, int], Round], strategies: Sequence[str]
) -> dict[str, Any]:
    """Curves (means over seeds) and the labels that each strategy needs for `SHARE` of what all labels give."""
    name = PRIMARY[recipe.task]
    of = lambda strategy, labels: [
        r.metrics[name].value for r in known.values() if r.strategy == strategy and r.labels == labels
    ]
    mean = lambda values: sum(values) / len(values)
    most = max(r.labels for r in known.values() if r.strategy == ALL)
    full = mean(of(ALL, most))
    curves: dict[str, list[dict[str, Any]]] = {}
    needed: dict[str, int | None] = {}
    for strategy in strategies:
        labels = sorted({r.labels for r in known.values() if r.strategy == strategy})
        curves[strategy] = [{"labels": n, name: mean(of(strategy, n)), "seeds": of(strategy, n)} for n in labels]
        needed[strategy] = next((p["labels"] for p in curves[strategy] if p[name] >= SHARE * full), None)
    return {
        "student": recipe.student,
        "data": recipe.data,
        **plan.model_dump(),
        "metric": name,
        "share": SHARE,
        "all": {"labels": most, name: full, "seeds": of(ALL, most)},
        "needed": needed,
        "curves": curves,
        "seconds": round(sum(r.seconds for r in known.values()), 1),
        "command": origin.command(),
        "revision": origin.revision(),
    }


def text(result: Mapping[str, Any]) -> str:
    """A result as a few lines for a terminal."""
    metric, full = result["metric"], result["all"]
    lines = [
        f"{result['student']} on {result['data']} ({result['split']}), {len(full['seeds'])} seeds",
        f"  all {full['labels']:,} labels: {metric} {100 * full[metric]:.1f}",
    ]
    for strategy, curve in result["curves"].items():
        needed = result["needed"][strategy]
        found = f"{needed:,}" if needed else f"more than {curve[-1]['labels']:,}"
        points = ", ".join(f"{point['labels']}: {100 * point[metric]:.1f}" for point in curve)
        lines.append(f"  {strategy}: {found} labels for {result['share']:.0%} of that ({points})")
    return "\n".join(lines)


def write_records(recipe: Recipe, result: Mapping[str, Any], folder: Path, records: Path) -> list[Path]:
    """A result record of each strategy and seed at the labels that the strategy needed (else at its last round), and
    of each seed on all labels."""
    known = read(folder / ROUNDS).values()
    at = {strategy: result["needed"][strategy] or curve[-1]["labels"] for strategy, curve in result["curves"].items()}
    at[ALL] = result["all"]["labels"]
    written = []
    for one in known:
        if one.labels != at.get(one.strategy):
            continue
        variant = f"text, {one.strategy.replace('_', ' ')} labels"
        dataset = record.dataset_name(recipe.data, result["split"])
        reached = "" if result["needed"].get(one.strategy, one.labels) else "do not "
        made = record.ResultRecord(
            name=record.slug(dataset, recipe.student, variant, one.labels, f"seed{one.seed}"),
            task=recipe.task,
            dataset=dataset,
            system=recipe.student,
            variant=variant,
            seed=one.seed,
            command=result["command"],
            revision=result["revision"],
            backbone=recipe.settings.pretrained(recipe.images),
            protocol=one.protocol,
            metrics=one.metrics,
            counts=one.counts,
            examples={"train": one.labels, "test": one.counts["examples"]},
            seconds=one.seconds,
            date=datetime.date.today().isoformat(),
            notes=f"these labels {reached}reach {SHARE:.0%} of what all give (mean over seeds)",
        )
        written.append(record.write(made, records))
    return written
