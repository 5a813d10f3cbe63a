"""A template shown for one row of a data set, with whatever else it takes drawn from the data set."""

from __future__ import annotations

from typing import Any

from ..tasks import TASKS
from ..tasks.dataset import Dataset
from ..tasks.task import DataFault
from .faces import face
from .library import Template
from .messages import Prompt
from .render import render
from .view import is_itself

#: So many training examples stand in for demonstrations.
SHOTS = 3


def preview(template: Template, dataset: Dataset, split: str = "train", row: int = 0) -> Prompt:
    """What a teacher would be asked about one row.

    Demonstrations are the first training examples with gold, the answer to be judged is the gold one, and of what
    a template asks about one by one (the entities of a post) it is the first.

    Raises:
        DataFault: there is no such split or row.
        InputFault: the row lacks what the template needs.
    """
    examples = dataset.split(split)
    if not 0 <= row < len(examples):
        raise DataFault(f"{dataset.name}/{split}", f"no row {row}", f"it has {len(examples):,}, counted from 0")
    example = examples[row]
    about, of = face(dataset.task), (*template.front.needs, *template.front.may)
    values = {
        "demonstrations": _demonstrations(dataset, example),
        "answer": example.gold or TASKS[dataset.task].Answer(),
        **dict.fromkeys(about.SUBJECTS, next(iter(about.subjects(of, example)), None)),
    }
    wanted = {name: value for name, value in values.items() if name in template.takes}
    return render(template, dataset.task, example, dataset.schema, **wanted)


def _demonstrations(dataset: Dataset, example: Any) -> list[tuple[Any, Any]]:
    others = (e for e in dataset.splits.get("train", ()) if e.gold and not is_itself(example, e))
    return [(e, e.gold) for e, _ in zip(others, range(SHOTS), strict=False)]
