"""What a recipe trains and is judged on: the splits, with knowledge joined and duplicates out, and their
counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tasks import TASKS, readers
from ..tasks.dataset import Dataset
from ..tasks.task import DataFault
from ..teachers.knowledge import corpus
from . import batches
from .recipe import Recipe


@dataclass(frozen=True)
class Data:
    """The splits of a recipe.

    Attributes:
        schema: the data set's label set.
        train, valid, test: labelled examples, the teacher's texts in their context.
        extra: unlabelled examples of other data sets, for distillation alone.
        counts: what there is and what fell away, printed and kept in the run's folder.
    """

    schema: Any
    train: tuple[Any, ...]
    valid: tuple[Any, ...]
    test: tuple[Any, ...]
    extra: tuple[Any, ...]
    counts: dict[str, int]


def load(recipe: Recipe) -> Data:
    """Read, subset and join the data of a recipe; a `DataFault` where it cannot be."""
    dataset = readers.read(recipe.data)
    if dataset.task != recipe.task:
        raise DataFault(recipe.data, f"is data for {dataset.task}, and the recipe's task is {recipe.task}")
    counts: Counter[str] = Counter(faults=len(dataset.faults), **dataset.notes)
    train, valid = _train_and_valid(dataset, recipe)
    if recipe.answers:
        said = corpus.answers(find(recipe.answers), recipe.answers_prompt)
        answer = TASKS[recipe.task].Answer
        train, counts["train_without_answer_dropped"] = batches.answered(train, said, answer, recipe.answers)
    splits = {
        "train": batches.subset(train, recipe.train_fraction, recipe.train_limit),
        "valid": batches.subset(valid, 1.0, recipe.valid_limit),
        "test": batches.subset(dataset.splits.get(recipe.test_split, ()), 1.0, recipe.test_limit),
    }
    texts = corpus.texts(find(recipe.knowledge), recipe.knowledge_prompt) if recipe.knowledge else {}
    for name, examples in splits.items():
        if recipe.knowledge and examples:
            splits[name], counts[f"{name}_without_knowledge"] = batches.join(examples, texts, recipe.knowledge)
        counts[name] = len(examples)
    for name in ("train", "valid"):
        if not splits[name]:
            refused = f"; {len(dataset.faults)} rows were refused, the first: {dataset.faults[0]}"
            raise DataFault(recipe.data, f"its {name} split has no examples{refused if dataset.faults else ''}")
    extra, more = _extra(recipe, [*splits["valid"], *splits["test"]])
    return Data(dataset.schema, splits["train"], splits["valid"], splits["test"], extra, {**counts, **more})


def examples_of(recipe: Recipe, split: str, spec: str | None = None, knowledge: str | None = None) -> tuple[Any, ...]:
    """A split to evaluate on: of the recipe's own data, or of another set ``spec`` with its ``knowledge``."""
    if spec in (None, recipe.data) and split in (recipe.valid_split, recipe.test_split):
        sets = load(recipe)
        examples = sets.valid if split == recipe.valid_split else sets.test
        if examples:
            return examples
    examples = tuple(readers.read(spec or recipe.data).split(split))
    path = knowledge or (recipe.knowledge if spec in (None, recipe.data) else None)
    if path:
        examples, _ = batches.join(examples, corpus.texts(find(path), recipe.knowledge_prompt), path)
    return examples


def find(path: str) -> Path:
    """A file or folder as given, or below the folder of public data (``MAGISTER_DATA``), at any task's
    place.
    """
    root = readers.data_root()
    tries = [Path(path), root / path, *sorted(root.glob(f"*/{path}"))]
    for candidate in tries:
        if candidate.exists():
            return candidate
    raise DataFault(path, "there is no such file or folder", f"looked here and below {root}")


def _train_and_valid(dataset: Dataset, recipe: Recipe) -> tuple[Sequence[Any], Sequence[Any]]:
    train = [e for name in recipe.train_split for e in dataset.split(name)]
    if recipe.valid_split in dataset.splits:
        return train, dataset.split(recipe.valid_split)
    if recipe.valid_fraction is None:
        raise DataFault(
            dataset.name,
            f"has no split {recipe.valid_split!r}",
            "set valid_fraction to split it off train, or valid_split to one of: " + ", ".join(dataset.splits),
        )
    return batches.split_off(train, recipe.valid_fraction, recipe.seed)


def _extra(recipe: Recipe, held_out: Sequence[Any]) -> tuple[tuple[Any, ...], Counter[str]]:
    """Examples of other data sets, unlabelled, with their own knowledge, none of them held out here."""
    kept: list[Any] = []
    counts: Counter[str] = Counter()
    for spec, knowledge in zip(recipe.extra_data, recipe.extra_knowledge, strict=True):
        texts = corpus.texts(find(knowledge), recipe.knowledge_prompt)
        other = readers.read(spec)
        asked = [e for split in recipe.extra_split for e in other.split(split)]
        examples, _ = batches.join(asked, texts, knowledge)
        known = tuple(e for e in examples if "knowledge" in e.context)
        clean, duplicates = batches.without_duplicates(batches.without_gold(known), held_out)
        clean = batches.subset(clean, 1.0, recipe.extra_limit)
        kept += [e.model_copy(update={"id": f"{spec}:{e.id}"}) for e in clean]
        counts.update(
            extra=len(clean),
            extra_without_knowledge_dropped=len(examples) - len(known),
            extra_near_duplicates_of_held_out_dropped=duplicates,
        )
    return tuple(kept), counts
