"""Floor 1: what the tasks are - examples, answers, schemas, images, data set readers."""

from . import attributes, ner
from .task import Task

#: Every task by its key.
TASKS: dict[str, Task] = {t.key: t for t in (ner.TASK, attributes.TASK)}

__all__ = ["TASKS", "Task"]
