"""Training, top to bottom: data, student, optimiser, steps, validation, checkpoints, exact resume, early
stop.
"""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn

from .. import students
from . import batches, checkpoint, data, evaluate, features, finished, objectives, origin, progress
from .checkpoint import RunFault
from .recipe import Recipe, check, flat


class Interrupted(RunFault):
    """Ctrl-C (or SIGTERM): says what was saved; the same command goes on from there."""


@dataclass
class Position:
    """Where a run stands; all of it lies in the checkpoint.

    Attributes:
        step: optimiser steps done, of all epochs together.
        best: the best validation score so far, and the step it was reached at.
        worse: evaluations since then.
        seconds: time spent in this and earlier sittings.
    """

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    worse: int = 0
    seconds: float = 0.0


class Objective(nn.Module):
    """The objective as a module, so that several passes through the student are one forward to data
    parallelism.
    """

    def __init__(self, student: nn.Module, recipe: Recipe, teacher: Mapping[str, Tensor] | None) -> None:
        super().__init__()
        self.student, self.recipe, self.teacher = student, recipe, teacher

    def forward(self, examples: list[Any], beta: float) -> tuple[Tensor, float, dict[str, Tensor], Counter[str]]:
        """The loss, how many units it is the mean of, its parts and the counts."""
        loss = objectives.compute(self.student, examples, self.recipe, beta, self.teacher)
        return loss.total, loss.weight, loss.parts, loss.counts


def train(recipe: Recipe) -> Path:
    """Train a recipe's student; gives the run's folder, whose ``best/`` is the student to use.

    The same recipe and folder go on where the last checkpoint stands and give the same losses as a run that
    was never interrupted. Runs under ``accelerate launch`` with any number of processes: ``batch_size`` is
    per process.

    Raises:
        RecipeFault, DataFault: what is asked for cannot be.
        RunFault: the folder is in use, the disk is full, the loss is no number, ...
        Interrupted: Ctrl-C; what was learned is saved.
    """
    recipe = check(flat(recipe))
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    accelerator = Accelerator(
        # Without it, several processes on a machine without a GPU would not find each other.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if recipe.precision == "bf16" else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    folder, main = Path(recipe.output), accelerator.is_main_process
    say = progress.Reporter(main)
    claim = _open_folder(folder, recipe) if main else None
    accelerator.wait_for_everyone()
    try:
        if (folder / "result.json").exists():
            say.line(f"{folder} is finished already: nothing to do")
            return folder
        return _run(recipe, folder, accelerator, say)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunFault(
            f"no room left on the disk of {folder}; the checkpoint there is intact. Make room and give the same "
            "command again"
        ) from error
    finally:
        if claim:
            claim.release()


def _run(recipe: Recipe, folder: Path, accelerator: Accelerator, say: progress.Reporter) -> Path:
    # Data and student.
    main, processes = accelerator.is_main_process, accelerator.num_processes
    seed_all(recipe.seed)
    sets = data.load(recipe)
    say.line("data: " + ", ".join(f"{k} {v:,}" for k, v in sets.counts.items()))
    student = build(recipe, sets.schema, sets.train)
    student.to(accelerator.device)
    if main:
        origin.write(folder / "origin.json", recipe, sets.counts)
    if recipe.images:
        with accelerator.main_process_first():
            pictures = [i for part in (sets.train, sets.valid, sets.extra) for e in part for i in e.images]
            found = features.attach(student, pictures if main else ())
        say.line("pictures: " + ", ".join(f"{k} {v:,}" for k, v in found.items()))
    teacher = finished.posteriors(recipe, sets, folder, accelerator, say) if recipe.teacher_run else None

    # Steps, optimiser and schedule.
    size = recipe.batch_size * recipe.accumulation * processes
    real = [*sets.train, *sets.extra]
    reads = _reads(recipe)

    def plan_of(epoch: int) -> list[list[Any]]:
        # What a teacher made up is not what training ends on.
        pool = real if epoch == recipe.epochs - 1 else [*real, *sets.augmented]
        return batches.steps(pool, size, recipe.seed, epoch, processes, reads)

    per_epoch = len(plan_of(0))
    total = per_epoch * (recipe.epochs - 1) + len(plan_of(recipe.epochs - 1))
    groups = student.parameter_groups(recipe.learning_rate, recipe.head_learning_rate)
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    rates = [group["lr"] for group in optimizer.param_groups]
    objective = Objective(student, recipe, teacher)
    trainable = [p for p in student.parameters() if p.requires_grad]
    say.line(f"student: {sum(map(torch.numel, trainable)):,} trainable weights; {total:,} steps of {size} examples")

    # Where an earlier sitting left off; seeds of this process otherwise.
    position = Position()
    seed_all(recipe.seed + 7919 * accelerator.process_index)
    if (folder / "last").exists():
        position = Position(**checkpoint.load(folder / "last", student, optimizer))
        checkpoint.load_random(folder / "last" / f"random-{accelerator.process_index}.safetensors")
        say.line(f"going on from step {position.step:,} of {total:,} ({folder / 'last'})")
    log = progress.Log(folder / "log.jsonl", position.step) if main else None
    objective, optimizer = accelerator.prepare(objective, optimizer)

    # Training.
    started, counts, plan, planned = time.monotonic() - position.seconds, Counter[str](), [], -1
    with _signals() as stop, say.bar(total, position.step) as bar:
        while position.step < total:
            epoch, within = divmod(position.step, per_epoch)
            if planned != epoch:
                plan, planned = plan_of(epoch), epoch
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * pace(position.step, total, recipe)
            objective.train()
            beta = objectives.beta_at(recipe, position.step / per_epoch)
            losses, seen, stopped = _step(objective, optimizer, plan[within], recipe, beta, accelerator, stop)
            if not math.isfinite(losses["loss"]) or not math.isfinite(losses["gradient_norm"]):
                raise RunFault(_not_a_number(position.step, losses, plan[within], folder))
            position.step += 1
            counts += seen
            bar.advance(losses, epoch)
            if log:
                log.add(step=position.step, epoch=epoch, **losses)

            position.seconds = time.monotonic() - started
            done = False
            if _evaluation_due(within + 1, len(plan), recipe):
                done = _validate(student, sets.valid, recipe, folder, position, accelerator, say, log)
            if (
                done
                or stopped
                or position.step == total
                or position.step % recipe.save_steps == 0
                or within + 1 == per_epoch
            ):
                _save_last(folder, student, optimizer, position, accelerator)
            if done:
                say.line(f"no better for {recipe.patience} evaluations: stopping at step {position.step:,}")
                break
            if stopped:
                raise Interrupted(
                    f"interrupted: step {position.step:,} of {total:,} is saved in {folder / 'last'}; "
                    "the same command goes on from there"
                )
    if main:
        say.line("counts: " + (", ".join(f"{k} {v:,}" for k, v in sorted(counts.items()) if v) or "nothing given up"))
        result = {**asdict(position), "steps": position.step, "counts": dict(counts)}
        checkpoint.write(folder / "result.json", json.dumps(result, indent=1).encode())
        say.line(f"best validation score {position.best:.4f} at step {position.best_step:,}: {folder / 'best'}")
    accelerator.wait_for_everyone()
    return folder


def _step(
    objective: nn.Module,
    optimizer: Any,
    examples: list[Any],
    recipe: Recipe,
    beta: float,
    accelerator: Accelerator,
    stop: Callable[[], bool],
) -> tuple[dict[str, float], Counter[str], bool]:
    """One optimiser step over this process's micro-batches: losses by name, counts, and whether to stop.

    Every micro-batch weighs by its units and the gradient is scaled once at the end, so that it is that of
    the mean over the whole step, however the step is cut into micro-batches and processes.
    """
    processes = accelerator.num_processes
    micros = batches.share(examples, accelerator.process_index, processes, recipe.batch_size)
    sums: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for i, micro in enumerate(micros):
        with nullcontext() if i == len(micros) - 1 else accelerator.no_sync(objective):
            loss, weight, parts, seen = objective(micro, beta)
            accelerator.backward(loss * weight)
        sums["weight"] += weight
        for name, value in {"loss": loss, **parts}.items():
            sums[name] += float(value.detach()) * weight
        counts += seen
    sums["stopped"] = float(stop())
    if processes > 1:
        sums = _sum_over_processes(sums, accelerator)
    weight, stopped = sums.pop("weight"), sums.pop("stopped") > 0
    for parameter in objective.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(processes / weight)  # data parallelism has averaged over the processes
    losses = {name: value / weight for name, value in sums.items()}
    losses["gradient_norm"] = float(accelerator.clip_grad_norm_(objective.parameters(), recipe.clip))
    if math.isfinite(losses["loss"]) and math.isfinite(losses["gradient_norm"]):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return losses, counts, stopped


def _sum_over_processes(sums: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """Sums by name over all processes, whose names may differ (a process can be without unlabelled
    examples).
    """
    gathered = gather_object([dict(sums)])
    total: dict[str, float] = defaultdict(float)
    for one in gathered:
        for name, value in one.items():
            total[name] += value
    return total


def _validate(
    student: Any,
    examples: tuple[Any, ...],
    recipe: Recipe,
    folder: Path,
    position: Position,
    accelerator: Accelerator,
    say: progress.Reporter,
    log: progress.Log | None,
) -> bool:
    """Score the validation split, keep the student if it is the best yet; true if patience has run out."""
    student.eval()
    score = 0.0
    if accelerator.is_main_process:
        with accelerator.autocast():
            answers = student.predict(examples, objectives.text_view(recipe), batch_size=2 * recipe.batch_size)
        score = evaluate.primary(recipe.task, examples, answers)
    score = _from_main(score, accelerator)
    better = score > position.best
    if better:
        position.best, position.best_step, position.worse = score, position.step, 0
        if accelerator.is_main_process:
            checkpoint.replace_folder(folder / "best", student.save_pretrained, "the best student")
    else:
        position.worse += 1
    say.line(f"step {position.step:,}: validation {score:.4f}" + (" (best)" if better else ""))
    if log:
        log.add(step=position.step, validation=score)
    return bool(recipe.patience and position.worse >= recipe.patience)


def _save_last(folder: Path, student: nn.Module, optimizer: Any, position: Position, accelerator: Accelerator) -> None:
    """Write ``last/``: what exact resume needs. Every process adds its random state."""
    random_file = f"random-{accelerator.process_index}.safetensors"
    waiting = folder / f"waiting-{random_file}"
    checkpoint.save_random(waiting)
    accelerator.wait_for_everyone()

    def fill(into: Path) -> None:
        checkpoint.save(into, student, optimizer, asdict(position))
        for file in sorted(folder.glob("waiting-random-*")):
            os.replace(file, into / file.name.removeprefix("waiting-"))

    if accelerator.is_main_process:
        checkpoint.replace_folder(folder / "last", fill, f"the checkpoint of step {position.step:,}")
    accelerator.wait_for_everyone()


def build(recipe: Recipe, schema: Any, examples: Sequence[Any] = ()) -> Any:
    """A new student of the recipe, made for the schema (and, where it needs a vocabulary, for the examples)."""
    derived = {"view": objectives.text_view(recipe), "two_prefix": recipe.objective == "two_prefix"}
    update = {key: value for key, value in derived.items() if key in recipe.settings.derived}
    config = recipe.settings.model_copy(update=update)
    return students.find(recipe.student).create(config, {recipe.task: schema}, examples)


def pace(step: int, total: int, recipe: Recipe) -> float:
    """The learning rate at a step, as a share of its full value: linear warm-up, then linear decay to 0 (or
    flat).
    """
    rising = recipe.warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    return 1.0 if recipe.schedule == "constant" else (total - step) / max(1.0, total - rising)


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's random generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _open_folder(folder: Path, recipe: Recipe) -> checkpoint.Claim:
    claim = checkpoint.Claim(folder)
    try:
        checkpoint.same_recipe(folder, recipe)
        for name in ("last", "best"):
            checkpoint.recover(folder / name)
    except BaseException:
        claim.release()
        raise
    return claim


def _reads(recipe: Recipe) -> tuple[str, ...]:
    """The side texts that decide how long a batch is."""
    if recipe.objective == "prompt_distillation" and not recipe.teacher_run:
        return recipe.teacher_context
    return recipe.context


def _evaluation_due(done: int, steps: int, recipe: Recipe) -> bool:
    """Whether to evaluate after so many of an epoch's steps."""
    return done in {round(steps * (i + 1) / recipe.evals_per_epoch) for i in range(recipe.evals_per_epoch)}


def _from_main(value: float, accelerator: Accelerator) -> float:
    if accelerator.num_processes == 1:
        return value
    mine = torch.tensor([value if accelerator.is_main_process else 0.0], dtype=torch.float64)
    return float(accelerator.reduce(mine.to(accelerator.device), "sum"))


def _not_a_number(step: int, losses: dict[str, float], examples: list[Any], folder: Path) -> str:
    named = ", ".join(f"{k} {v:.4g}" for k, v in losses.items())
    ids = ", ".join(e.id for e in examples[:4])
    return (
        f"the loss is not a number at step {step + 1:,} ({named}; examples {ids}, ...). The earlier "
        f"checkpoint in {folder / 'last'} is intact. Lower learning_rate or head_learning_rate, or set "
        "precision=fp32"
    )


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the run to stop after the step; a second one stops it at once."""
    asked: list[int] = []

    def ask(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
