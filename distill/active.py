"""Active learning: what to label next, and how many labels it saves where the labels are known.

Source: Zheng et al., OpenTag, KDD 2018, section 4. Any student that has ``paths`` (its best tag sequence of a text and
how sure it is of it) can be asked; random choice needs none.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import students
from ..eval import record
from ..eval.score import PRIMARY
from ..tasks import readers
from ..tasks.dataset import Dataset
from ..tasks.readers import jsonl
from ..tasks.task import DataFault
from . import batches, checkpoint, data, evaluate, objectives, rounds, sampling, train
from .checkpoint import RunFault
from .recipe import Recipe, RecipeFault
from .rounds import ALL, Plan, Round

STRATEGIES = ("random", "least_confidence", "tag_flip")

#: A round takes at least so many steps (a few labels make short epochs), and tag flips are counted over so many looks
#: at the pool, evenly spread over the round.
LEAST_STEPS, LOOKS = 200, 10

#: Says something to whoever waits.
Say = Callable[[str], None]


def simulate(
    recipe: Recipe,
    folder: Path,
    plan: Plan,
    strategies: Sequence[str] = STRATEGIES,
    additions: int = 10,
    seeds: int = 3,
    say: Say = print,
) -> dict[str, Any]:
    """Label a labelled training set little by little, as each strategy would have it; gives ``result.json``.

    Every round trains the recipe's student from scratch on the labels so far, for the recipe's epochs and at least
    `LEAST_STEPS` steps, and judges it at the end on the held-out part: nothing is chosen there. The pool's examples
    are asked all attributes of their category, so that gold is not told by what is asked. The same command goes on
    behind the last round kept; more additions, seeds or strategies go on, too.

    Args:
        additions: how many rounds there are beside the first one.
        seeds: how many runs of each strategy, the first with the recipe's seed.

    Raises:
        RecipeFault: a strategy that the student cannot serve, or that there is not.
        RunFault: the folder holds something else.
    """
    _check(recipe, strategies)
    claim = checkpoint.Claim(folder)
    try:
        rounds.keep_plan(folder, recipe, plan)
        torch.set_num_threads(recipe.threads or torch.get_num_threads())
        sets = data.load(recipe)
        held_out = sets.test if plan.split == "test" else sets.valid
        if not held_out:
            raise DataFault(recipe.data, f"has no {plan.split} examples to judge on", "take another --split")
        known = rounds.read(folder / rounds.ROUNDS)
        for seed in range(recipe.seed, recipe.seed + seeds):
            own = recipe.model_copy(update={"seed": seed})
            for strategy in (ALL, *strategies):
                for made in _rounds(own, sets, held_out, plan, strategy, additions, known):
                    rounds.append(folder / rounds.ROUNDS, made)
                    known[made.strategy, made.seed, made.number] = made
                    f1 = made.metrics[PRIMARY[recipe.task]].value
                    say(f"seed {seed}, {strategy}, {made.labels:,} labels: {100 * f1:.1f} ({made.seconds:.0f} s)")
        result = rounds.summary(recipe, plan, known, strategies)
        checkpoint.write(folder / rounds.RESULT, (json.dumps(result, indent=1) + "\n").encode())
        return result
    finally:
        claim.release()


def _rounds(
    recipe: Recipe, sets: data.Data, held_out: Sequence[Any], plan: Plan, strategy: str, additions: int, known: Any
) -> Iterator[Round]:
    """The rounds that are not known yet, in their order."""
    by_id = {example.id: example for example in sets.train}
    if len(by_id) < len(sets.train):
        raise DataFault(recipe.data, "several training examples have the same id", "give each its own")
    drawn = sampling.highest([0.0] * len(sets.train), plan.start, f"start:{recipe.seed}")
    labelled = list(by_id) if strategy == ALL else [sets.train[at].id for at in drawn]
    for number in range(1 if strategy == ALL else additions + 1):
        made = known.get((strategy, recipe.seed, number))
        if made is None:
            made = _round(recipe, sets, held_out, plan, strategy, number, [by_id[one] for one in labelled])
            yield made
        labelled += made.chosen
        if not made.chosen:
            return


def _round(
    recipe: Recipe,
    sets: data.Data,
    held_out: Sequence[Any],
    plan: Plan,
    strategy: str,
    number: int,
    labelled: list[Any],
) -> Round:
    started = time.monotonic()
    taken = {example.id for example in labelled}
    pool = [unlabelled(e, sets.schema) for e in sets.train if e.id not in taken]
    student, scores = choose(recipe, sets.schema, labelled, pool, strategy)
    places = sampling.highest(scores, plan.batch, f"{strategy}:{recipe.seed}:{number}")
    size = 2 * recipe.batch_size
    seen = {"train": labelled} if recipe.task == "attributes" else {}
    judged = evaluate.evaluate(student, held_out, recipe.task, None, recipe.precision, size, **seen)
    return Round(
        strategy=strategy,
        seed=recipe.seed,
        number=number,
        labels=len(labelled),
        chosen=tuple(pool[at].id for at in places),
        metrics=record.measures(judged.scores),
        counts={**judged.scores.counts, **judged.counts},
        protocol=judged.scores.protocol,
        seconds=round(time.monotonic() - started, 1),
    )


def choose(
    recipe: Recipe, schema: Any, labelled: Sequence[Any], pool: Sequence[Any], strategy: str
) -> tuple[Any, list[float]]:
    """A student trained on some examples, and how much it would gain from each of the pool (the higher, the more)."""
    looks: list[list[list[int]]] = []

    def look(student: Any) -> None:
        looks.append([path for path, _ in paths(student, pool, recipe)])

    student = fit(recipe, schema, labelled, look if strategy == "tag_flip" and pool else None)
    if strategy == "tag_flip":
        return student, sampling.tag_flip(looks)
    if strategy == "least_confidence":
        return student, sampling.least_confidence([sure for _, sure in paths(student, pool, recipe)])
    return student, [0.0] * len(pool)


def pick(run: Path, spec: str, count: int, strategy: str, out: Path) -> list[tuple[str, float]]:
    """Write the ``count`` unlabelled examples of some data that a run would gain most from, as JSON lines; gives their
    ids with their scores, the highest first.

    An example that names no attributes is asked all of its category. Tag flips are counted while the run's recipe is
    trained once more; the other strategies take the run as it is.
    """
    recipe = evaluate.recipe_of(run)
    _check(recipe, [strategy])
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    dataset = readers.read(spec)
    if dataset.task != recipe.task:
        raise DataFault(spec, f"is data for {dataset.task}, and the run's task is {recipe.task}")
    examples = [e for split in dataset.splits.values() for e in split if e.gold is None]
    if not examples:
        raise DataFault(spec, "has no unlabelled example", "examples to choose from have no gold")
    pool = [e if e.asked else unlabelled(e, dataset.schema) for e in examples]
    if strategy == "tag_flip":
        sets = data.load(recipe)
        _, scores = choose(recipe, sets.schema, sets.train, pool, strategy)
    elif strategy == "least_confidence":
        student, _ = evaluate.load(run)
        scores = sampling.least_confidence([sure for _, sure in paths(student, pool, recipe)])
    else:
        scores = [0.0] * len(pool)
    places = sampling.highest(scores, count, recipe.seed)
    picked = {"picked": tuple(pool[at] for at in places)}
    jsonl.write(Dataset(dataset.name, dataset.task, dataset.schema, picked), out)
    return [(pool[at].id, scores[at]) for at in places]


def fit(recipe: Recipe, schema: Any, examples: Sequence[Any], look: Callable[[Any], None] | None = None) -> Any:
    """The recipe's student trained on some examples, without checkpoints and without a validation split.

    It learns for the recipe's epochs and at least `LEAST_STEPS` steps. ``look`` is shown the student `LOOKS` times.
    """
    train.seed_all(recipe.seed)
    student = train.build(recipe, schema, examples)
    student.to("cuda" if torch.cuda.is_available() else "cpu").train()
    groups = student.parameter_groups(recipe.learning_rate, recipe.head_learning_rate)
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    rates = [group["lr"] for group in optimizer.param_groups]
    plan_of = lambda epoch: batches.steps(examples, recipe.batch_size, recipe.seed, epoch)
    per_epoch = len(plan_of(0))
    total = per_epoch * max(recipe.epochs, math.ceil(LEAST_STEPS / per_epoch))
    seen = {round(total * (n + 1) / LOOKS) for n in range(LOOKS)}
    for step in range(total):
        epoch, within = divmod(step, per_epoch)
        if within == 0:
            plan = plan_of(epoch)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * train.pace(step, total, recipe)
        with torch.autocast(student.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = objectives.compute(student, plan[within], recipe).total
        if not math.isfinite(loss.item()):
            raise RunFault(f"the loss is not a number at step {step + 1:,}: lower head_learning_rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if look is not None and step + 1 in seen:
            look(student)
    return student.eval()


def paths(student: Any, examples: Sequence[Any], recipe: Recipe) -> list[tuple[list[int], float]]:
    """Each example's best tag sequence and its log probability, in the order given; dropout off."""
    found: list[tuple[list[int], float]] = student.in_batches(examples, 2 * recipe.batch_size, student.paths)
    return found


def unlabelled(example: Any, schema: Any) -> Any:
    """An example without gold; a product is asked every attribute of its category."""
    if not hasattr(example, "asked"):
        return example.model_copy(update={"gold": None})
    asked = tuple(dict.fromkeys(attribute.name for attribute in schema.of(example.category)))
    return example.model_copy(update={"gold": None, "asked": asked})


def _check(recipe: Recipe, strategies: Sequence[str]) -> None:
    mistakes = [
        f"strategy {name!r}: there is none; there are: {', '.join(STRATEGIES)}"
        for name in strategies
        if name not in STRATEGIES
    ]
    if recipe.objective not in ("gold", "queries"):
        mistakes.append(f"objective {recipe.objective}: active learning learns from gold alone")
    if recipe.images:
        mistakes.append("images: active learning is without pictures")
    asking = [name for name in strategies if name != "random"]
    if asking and not hasattr(students.find(recipe.student), "paths"):
        mistakes.append(f"the student {recipe.student} gives no tag sequences, which {', '.join(asking)} asks for")
    if mistakes:
        raise RecipeFault("active learning", mistakes)
