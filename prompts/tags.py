"""The tagged form of an answer: ``<Brand>ACME</Brand>``, a line a value; ``null`` says absent, a tag again one more.

A value whose characters would break the form (a closing tag, a brace that opens JSON, a line break, quotes round it) is
written as a JSON string in which ``<`` and ``{`` are escaped, so that whatever is written is read back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from .plain import defuse

_PLAIN = re.compile(r"[^<{\"\s](?:[^<{\r\n\v\f\x1c-\x1e\x85\u2028\u2029]*[^<{\"\s])?")


def write(answer: str) -> str:
    """An answer's JSON object (of texts, lists of texts, true, false and null) in tags."""
    lines = []
    for name, said in json.loads(answer).items():
        for value in (said if isinstance(said, list) else [said]) or [None]:
            text = _escaped(value) if isinstance(value, str) else json.dumps(value)
            lines.append(defuse(f"<{name}>{text}</{name}>"))
    return "\n".join(lines)


def _escaped(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False).translate(
        {ord(mark): f"\\u{ord(mark):04x}" for mark in "<{\u2028\u2029\x85"}
    )


def read(body: str, names: Sequence[str], repairs: list[str]) -> dict[str, list[str]] | None:
    """The values in the tags of these names, in any case; None where the text opens none of them.

    A closing tag may be missing at the end of a line (``unclosed``); what stands between tags is left out
    (``outside_tags``). A name is a key as it is in ``names``.
    """
    known = {name.lower(): name for name in reversed(names)}
    any_name = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    if not names or not re.search(rf"<\s*(?:{any_name})\s*>", body, re.IGNORECASE):
        return None
    found: dict[str, list[str]] = {}
    end = 0
    tag = rf"<\s*({any_name})\s*>(?:((?:(?!<\s*\1\s*>).)*?)<\s*/\s*\1\s*>|([^\n]*))"
    for match in re.finditer(tag, body, re.IGNORECASE | re.DOTALL):
        name, closed, line = match.groups()
        if closed is None:
            repairs.append("unclosed")
            closed = re.sub(r"<\s*/?[^<>]*>?\s*\Z", "", line)
        if body[end : match.start()].strip():
            repairs.append("outside_tags")
        found.setdefault(known[name.lower()], []).append(_plain(closed.strip()))
        end = match.end()
    if body[end:].strip():
        repairs.append("outside_tags")
    return found


def _plain(text: str) -> str:
    """A value as written, or out of its JSON string."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            value: Any = json.loads(text)
        except ValueError:
            return text
        return value if isinstance(value, str) else text
    return text
