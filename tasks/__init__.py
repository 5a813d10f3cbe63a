"""Floor 1: what the tasks are - examples, answers, schemas, graphs, images, data set readers."""

from . import alignment, attributes, completion, linking, ner, relations
from .task import Task

#: Every task by its key.
TASKS: dict[str, Task] = {
    module.TASK.key: module.TASK for module in (ner, attributes, relations, completion, alignment, linking)
}

__all__ = ["TASKS", "Task"]
