"""What `magister evaluate` does: judge a student or a teacher, and write that as text, JSON, HTML or record."""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..eval import floors, record, report, score, value_ranking
from ..tasks import TASKS, readers
from ..tasks.images import Image
from ..tasks.task import DataFault
from . import origin
from .recipe import Recipe

#: So many examples are shown on the HTML page.
SHOWN = 12


@dataclass(frozen=True)
class Judgement:
    """A system's scores on a split, and everything its record and its report say beside them.

    Attributes:
        system, variant, seed, backbone, command, notes: as `eval.record.ResultRecord` has them.
        dataset: the data set's name; another split than ``test`` stands behind it.
        examples, answers: what was asked and what came back (None: no answer).
        trained_on: training examples, 0 for a teacher.
        counts: what was given up on the way.
        seconds: wall clock of training (a student) or of answering (a teacher).
        seconds_per_1000: wall clock of answering, per 1,000 examples.
    """

    scores: score.Scores
    task: str
    dataset: str
    system: str
    variant: str
    examples: tuple[Any, ...]
    answers: tuple[Any, ...]
    backbone: str
    command: str
    seed: int = 0
    trained_on: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_per_1000: float = 0.0
    revision: str = ""
    notes: str = ""


def student(
    run: Path, task: str, data: str, split: str = "test", limit: int | None = None, mode: str | None = None
) -> Judgement:
    """Judge a run's best student; side texts and knowledge are joined as in its recipe.

    It is shown what it was trained for, or what a mode (`distill.modes`) shows. Entity types of other data go by the
    names of the run's own where their titles are the same (Twitter-2015's OTHER is Twitter-2017's MISC). A split
    without a predefined test set, and the metric's options, are said in the protocol.
    """
    from . import data as loading
    from . import evaluate, modes

    recipe = evaluate.recipe_of(run)
    if recipe.task != task:
        raise DataFault(str(run), f"was trained for {recipe.task}, not for {task}")
    examples = tuple(loading.examples_of(recipe, split, data))[:limit]
    made, view = evaluate.load(run)
    options: dict[str, Any] = {}
    if task == "attributes":
        options["train"] = loading.load(recipe).train
    notes = [f"best of {recipe.epochs} epochs on validation"]
    if mode is None:
        found = evaluate.evaluate(made, examples, task, view, recipe.precision, 2 * recipe.batch_size, **options)
    else:
        valid = loading.examples_of(recipe, recipe.valid_split) if mode == "D" else ()
        asked = modes.ask(mode, made, recipe, examples, valid, **options)
        found = asked.found
        notes.append(f"mode {mode}: {modes.MODES[mode]}; {asked.in_full:.1%} of the examples read in full")
        if asked.threshold is not None:
            notes.append(f"where the mean entropy exceeds {asked.threshold:.4g} nats (chosen on {recipe.valid_split})")
    notes += [f"{theirs} read as {ours}" for theirs, ours in loading.renamed(recipe, data).items()]
    if hasattr(made, "rank"):
        notes.append(_ranked(value_ranking.measure(examples, made.rank(examples, view))))
    about = json.loads((run / "origin.json").read_text(encoding="utf-8"))
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return Judgement(
        scores=found.scores,
        task=task,
        dataset=record.dataset_name(data, split),
        system=recipe.student,
        variant=", ".join(
            [
                variant(recipe),
                *([f"trained on {recipe.data}"] if data != recipe.data else []),
                *([f"mode {mode}"] if mode else []),
            ]
        ),
        examples=examples,
        answers=tuple(found.answers),
        backbone=recipe.settings.pretrained(recipe.images),
        command=about["sittings"][0]["command"],
        seed=recipe.seed,
        trained_on=about["counts"]["train"],
        counts={**found.counts, **{f"training_{k}": v for k, v in result["counts"].items()}},
        seconds=round(result["seconds"], 1),
        seconds_per_1000=round(found.seconds_per_1000, 2),
        revision=about["sittings"][-1]["revision"],
        notes="; ".join([f"{found.seconds_per_1000:.1f} s per 1,000 answers", *notes]),
    )


def _ranked(measured: Mapping[str, float]) -> str:
    """What `eval.value_ranking` measured, in words."""
    by_ties = (
        f"MRR {measured[f'mrr{end}']:.1%}, Hits@1 {measured[f'hits@1{end}']:.1%}" for end in ("", "_pessimistic")
    )
    optimistic, pessimistic = by_ties
    return (
        f"values ranked: {optimistic} over {measured['slots']:,} slots ({pessimistic} with pessimistic ties; "
        f"{measured['unranked']:,} slots whose gold is no candidate count 0)"
    )


def teacher(
    spec: str, task: str, data: str, split: str = "test", prompt: str = "few_shot", limit: int | None = None,
    say: Callable[[str], None] = print, describe: Callable[[Image], Any] | None = None,
    shots: int = 4, picker: Callable[..., Any] | None = None,
) -> Judgement:  # fmt: skip
    """Ask a teacher about a split and judge its answers; no answer counts as wrong and is counted by its fault.

    A template that takes demonstrations is shown the ``shots`` training examples that are most similar by their words,
    or those that ``picker(training examples, shots=shots)`` picks for an example. ``describe`` puts pictures into words
    for a teacher that cannot see, in place of a describer made for this call.
    """
    from ..prompts.library import find
    from ..teachers.ask import ask
    from ..teachers.describe import Describer
    from ..teachers.spec import teacher as of_spec

    dataset = readers.read(data)
    if dataset.task != task:
        raise DataFault(data, f"is data for {dataset.task}, not for {task}")
    examples = dataset.split(split)[:limit]
    shown = shots > 0 and "demonstrations" in find(prompt if "/" in prompt else f"{task}/{prompt}").takes
    engine = of_spec(spec)
    if not engine.sees_images:
        describe = describe or Describer().describe
    started, answers, faults = time.monotonic(), [], Counter[str]()
    try:
        pool: Any = dataset.split("train") if shown else ()
        pool = picker(pool, shots=shots) if shown and picker else pool
        for n, said in enumerate(
            ask(engine, TASKS[task], examples, dataset.schema, prompt, pool, shots, describe=describe), 1
        ):
            answers.append(said.answer)
            faults.update([said.fault] if said.fault else [])
            if n % 50 == 0:
                say(f"{n:,} of {len(examples):,} asked")
    finally:
        engine.close()
    seconds = time.monotonic() - started
    return Judgement(
        scores=score.score(task, examples, answers),
        task=task,
        dataset=record.dataset_name(data, split),
        system=spec,
        variant=f"{prompt}, {shots} shown" if shown else prompt,
        examples=tuple(examples),
        answers=tuple(answers),
        backbone=spec,
        command=origin.command(),
        counts=dict(faults),
        seconds=round(seconds, 1),
        seconds_per_1000=round(1000 * seconds / len(examples), 2),
        revision=origin.revision(),
        notes=f"{len(examples)} examples of {split}; parsed {1 - faults.total() / len(examples):.1%}",
    )


def floor(name: str, task: str, data: str, split: str = "test", limit: int | None = None) -> Judgement:
    """Judge a floor: what a dictionary of the training values, or the commonest value, gives with no model."""
    known = floors.FLOORS.get(task, {})
    if name not in known:
        raise DataFault(f"floor:{name}", "names no floor", f"for {task} there are: {', '.join(known) or 'none'}")
    dataset = readers.read(data)
    train, examples = dataset.split("train"), dataset.split(split)[:limit]
    started = time.monotonic()
    answers = known[name](train, examples)
    return Judgement(
        scores=score.score(task, examples, answers, **({"train": train} if task == "attributes" else {})),
        task=task,
        dataset=record.dataset_name(data, split),
        system="floor",
        variant=name,
        examples=tuple(examples),
        answers=tuple(answers),
        backbone="none",
        command=origin.command(),
        trained_on=len(train),
        seconds=round(time.monotonic() - started, 1),
        revision=origin.revision(),
    )


def variant(recipe: Recipe) -> str:
    """What a run reads and learns from, in words: ``text + knowledge``, ``text, prompt_distillation``."""
    reads = [*(["text"] if recipe.text else []), *recipe.context, *(["image"] if recipe.images else [])]
    parts = [" + ".join(reads)]
    if recipe.objective != "gold":
        parts.append(recipe.objective)
    if recipe.answers:
        parts.append("a teacher's answers for gold")
    if recipe.teacher_run:
        parts.append(
            "finished teacher" if len(recipe.teacher_run) == 1 else f"{len(recipe.teacher_run)} finished teachers"
        )
    if recipe.extra_data:
        splits = "" if recipe.extra_split == ("train",) else f" ({', '.join(recipe.extra_split)})"
        parts.append("unlabelled " + " + ".join(recipe.extra_data) + splits)
    return ", ".join(parts)


def text(judged: Judgement) -> str:
    """The scores as a few lines for a terminal."""
    lines = [f"{judged.system} ({judged.variant}) on {judged.dataset}, {len(judged.examples):,} examples"]
    lines += [f"  {name:<16} {report.percent(metric)}" for name, metric in judged.scores.metrics.items()]
    lines += [f"  {row.name:<16} {report.percent(row.f1)}  gold {row.gold:,}" for row in judged.scores.by_type[:12]]
    counts = {**judged.scores.counts, **judged.counts}
    lines.append("  " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
    return "\n".join([*lines, f"  protocol: {judged.scores.protocol}"])


def write_json(judged: Judgement, path: Path) -> Path:
    """Scores, per-example sums included, as JSON (`eval.score.read` reads them)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(judged.scores.as_dict(), indent=1) + "\n", encoding="utf-8")
    return path


def write_html(judged: Judgement, path: Path) -> Path:
    """One self-contained page: plots, tables and the first examples with their answers."""
    name = f"{judged.system} ({judged.variant})"
    cards = tuple(
        report.card(judged.task, example, {name: answer})
        for example, answer in list(zip(judged.examples, judged.answers, strict=True))[:SHOWN]
    )
    sections = [*report.score_sections(judged.scores), report.Examples("examples", cards)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.html_report(f"{name} on {judged.dataset}", sections), encoding="utf-8")
    return path


def write_record(judged: Judgement, folder: Path) -> Path:
    """The result record that `magister report` renders."""
    name = record.slug(
        judged.dataset, judged.system, judged.variant, judged.trained_on or "asked", f"seed{judged.seed}"
    )
    made = record.ResultRecord(
        name=name,
        task=judged.task,
        dataset=judged.dataset,
        system=judged.system,
        variant=judged.variant,
        seed=judged.seed,
        command=judged.command,
        revision=judged.revision,
        backbone=judged.backbone,
        protocol=judged.scores.protocol,
        metrics=record.measures(judged.scores),
        counts={**judged.scores.counts, **judged.counts},
        examples={"train": judged.trained_on, "test": len(judged.examples)},
        seconds=judged.seconds,
        date=datetime.date.today().isoformat(),
        notes=judged.notes,
    )
    return record.write(made, folder)
