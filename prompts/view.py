"""What a template is shown: plain frozen texts, never our own objects, gold only where the front matter asks
for it.

Records are pydantic models, and a pydantic model carries methods that read files and unpickle: in the hands
of a template they would be a hole in the sandbox. So a template sees copies made of texts, tuples and plain
namespaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..tasks import attributes, ner
from ..tasks.images import Image
from ..tasks.record import Record

#: Names in an example's context that put its picture into words.
PICTURE_WORDS = ("caption", "tags", "colours", "ocr")

#: Marks with which chat templates and picture processors steer a model. Out of data they would forge a turn
#: or a picture after tokenisation, so one blank is put behind their first character; `parse` aligns without
#: blanks.
CONTROL = re.compile(
    r"<(?=\|[^|<>\s]{1,40}\|>"
    r"|/?(?:s|bos|eos|pad|unk|think|image|video|audio|img|image_soft_token|video_soft_token)>"
    r"|(?:start|end)_of_(?:turn|image)>|<SYS>>|</SYS>>)"
    r"|\[(?=/?INST\]|IMG(?:_BREAK|_END)?\]|/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\])",
    re.IGNORECASE,
)


def defuse(text: str) -> str:
    """Data text without working control marks: ``<|im_end|>`` becomes ``< |im_end|>``."""
    return CONTROL.sub(lambda m: m[0] + " ", text)


def example_view(
    example: Any, place: Callable[[Image], str], *, gold: bool, asked: tuple[str, ...] | None = None
) -> SimpleNamespace:
    """An example as a template sees it.

    Args:
        example: an example of any task.
        place: gives the mark that stands for a picture.
        gold: whether the gold answer is shown; if not, the view has no such name.
        asked: the attributes asked, where they are not the example's own.
    """
    context = {k: defuse(v) for k, v in example.context.items() if v.strip()}
    view = SimpleNamespace(text=defuse(example.text), context=context, images=tuple(place(i) for i in example.images))
    if isinstance(example, attributes.Example):
        view.category = defuse(example.category)
        view.asked = example.asked if asked is None else asked
    if gold:
        view.gold = None if example.gold is None else plain(example.gold)
    return view


def plain(value: Any) -> Any:
    """A record, its tuples and dicts as plain copies; every text without working control marks."""
    if isinstance(value, Record):
        return SimpleNamespace(**{k: plain(getattr(value, k)) for k in type(value).model_fields})
    if isinstance(value, list | tuple):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    return defuse(value) if isinstance(value, str) else value


def as_json(answer: Any) -> str:
    """An answer in the one-line JSON that a teacher is to give (of several gold alternatives, the first)."""
    if isinstance(answer, ner.Answer):
        value: Any = {"entities": [{"text": e.text, "type": e.type} for e in answer.entities]}
    else:
        value = {name: (values[0] if values else None) for name, values in answer.values.items()}
    return json.dumps(value, ensure_ascii=False)


def claims(schema: Any, answer: Any) -> tuple[str, ...]:
    """An answer as statements that can be judged one by one; at least one, also for an empty answer."""
    if isinstance(answer, ner.Answer):
        titles = {t.name: t.title for t in schema.types}
        said = [f'"{e.text}" is an entity of the type {e.type} ({titles.get(e.type, e.type)})' for e in answer.entities]
        return tuple(defuse(s) for s in said) or ("The text names no entity of these types",)
    said = [f'{name} is "{values[0]}"' if values else f"{name} is not stated" for name, values in answer.values.items()]
    return tuple(defuse(s) for s in said) or ("None of the attributes is stated",)
