"""Plain copies of records and texts, such as are safe in the hands of a template."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from ..tasks.record import Record

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


def plain(value: Any) -> Any:
    """A record, its tuples and dicts as plain copies; every text without working control marks."""
    if isinstance(value, Record):
        return SimpleNamespace(**{k: plain(getattr(value, k)) for k in type(value).model_fields})
    if isinstance(value, list | tuple):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    return defuse(value) if isinstance(value, str) else value


def sentence(text: str) -> str:
    """A guideline as a sentence: capital letter, full stop; empty stays empty."""
    text = " ".join(text.split())
    return text and text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
