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
from . import augment, batches
from .recipe import Recipe


@dataclass(frozen=True)
class Data:
    """The splits of a recipe.

    Attributes:
        schema: the data set's label set.
        train, valid, test: labelled examples, the teacher's texts in their context.
        extra: unlabelled examples of other data sets, for distillation alone.
        augmented: labelled examples made of those in train (`augment`), for all epochs but the last.
        counts: what there is and what fell away, printed and kept in the run's folder.
    """

    schema: Any
    train: tuple[Any, ...]
    valid: tuple[Any, ...]
    test: tuple[Any, ...]
    extra: tuple[Any, ...]
    counts: dict[str, int]
    augmented: tuple[Any, ...] = ()


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
    targets: list[Any] = []
    for spec in recipe.without:
        target = readers.read(spec).split(recipe.test_split)
        train, counts[f"train_near_duplicates_of_{spec}_dropped"] = batches.without_duplicates(train, target)
        targets += target
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
    extra, more = _extra(recipe, [*splits["valid"], *splits["test"], *targets])
    counts.update(more)
    augmented: tuple[Any, ...] = ()
    if recipe.augment:
        kept = corpus.rows(find(recipe.augment), status="kept")
        augmented, more = augment.samples(splits["train"], kept, recipe.augment_dimensions)
        counts.update(more)
        if not augmented:
            reasons = ", ".join(f"{name} {n:,}" for name, n in more.items()) or "no row is about them"
            raise DataFault(recipe.augment, f"gives no new examples of the training split ({reasons})")
    return Data(dataset.schema, splits["train"], splits["valid"], splits["test"], extra, dict(counts), augmented)


def examples_of(recipe: Recipe, split: str, spec: str | None = None, knowledge: str | None = None) -> tuple[Any, ...]:
    """A split to evaluate on: of the recipe's own data, or of another set ``spec`` with its ``knowledge``."""
    if spec in (None, recipe.data) and split in (recipe.valid_split, recipe.test_split):
        sets = load(recipe)
        examples = sets.valid if split == recipe.valid_split else sets.test
        if examples:
            return examples
    examples = tuple(readers.read(spec or recipe.data).split(split))
    if spec and (names := renamed(recipe, spec)):
        examples = tuple(_in_types(e, names) for e in examples)
    path = knowledge or (recipe.knowledge if spec in (None, recipe.data) else None)
    if path:
        examples, _ = batches.join(examples, corpus.texts(find(path), recipe.knowledge_prompt), path)
    return examples


def renamed(recipe: Recipe, spec: str) -> dict[str, str]:
    """Entity types of another set by the name that those of the same title have in the recipe's own: MISC by OTHER."""
    if recipe.task != "ner" or spec == recipe.data:
        return {}
    own, other = readers.read(recipe.data).schema, readers.read(spec).schema
    by_title = {t.title.casefold(): t.name for t in own.types}
    found = {t.name: by_title.get(t.title.casefold(), t.name) for t in other.types if t.name not in own.labels}
    return {theirs: ours for theirs, ours in found.items() if theirs != ours}


def _in_types(example: Any, names: dict[str, str]) -> Any:
    """The example with its gold entities' types by other names."""
    if example.gold is None:
        return example
    entities = [e.model_copy(update={"type": names.get(e.type, e.type)}) for e in example.gold.entities]
    return example.model_copy(update={"gold": example.gold.model_copy(update={"entities": tuple(entities)})})


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
