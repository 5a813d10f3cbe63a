"""A line of the ledger: what was asked, by key, and what came back, as it was said.

A line is a JSON object. What the ledger's index needs stands first, in a fixed order, and a check sum last, so that a
large ledger is opened without parsing its texts, and a changed byte is found::

    {"v": 2, "key": "…", "finish": "stop", "failure": null, "max_tokens": 256, "usage": {…}, …, "crc": "52a85d3d"}
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from ...tasks.record import Record
from ..teacher import Failure, Finish, Reply, Request, Usage

#: The form of a line. Version 1 had no reasoning, cached tokens or check sum; it is still read.
LINE_VERSION = 2
READABLE = (1, 2)


class Row(Record):
    """One reply in the ledger. ``seconds`` and ``usage`` are the engine's; ``time`` is its arrival (UTC, ISO 8601).

    ``tokens`` (see `Reply`) stand in the line only where there are some.
    """

    v: int = LINE_VERSION
    key: str
    finish: Finish
    failure: Failure | None
    max_tokens: int
    usage: Usage
    example: str
    template: str
    digest: str
    sample: int
    temperature: float
    seed: int
    detail: str
    text: str
    reasoning: str = ""
    seconds: float
    teacher: str
    identity: dict[str, Any]
    time: str
    tokens: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, request: Request, reply: Reply, spec: str, identity: Mapping[str, Any]) -> Row:
        """The row of a reply to a request. An unnamed error is a transport failure: a row is never without a reason.

        Raises:
            ValueError: the reply is still to come (`pending`); only what came is written.
        """
        failure = reply.failure
        if failure == "pending":
            raise ValueError(f"the reply to {request.example} is pending: only what came is written")
        if failure is None and reply.finish == "error":
            failure = "transport"
        return cls(
            key=request.key,
            example=request.example,
            template=request.prompt.template,
            digest=request.prompt.digest,
            sample=request.sample,
            temperature=request.temperature,
            seed=request.seed,
            max_tokens=request.prompt.max_tokens,
            finish=reply.finish,
            failure=failure,
            detail=reply.detail,
            text=reply.text,
            reasoning=reply.reasoning,
            usage=reply.usage,
            seconds=reply.seconds,
            teacher=spec,
            identity=dict(identity),
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            tokens=reply.tokens,
        )


class Facts(NamedTuple):
    """What the ledger's index needs to know of a row."""

    key: str
    finish: str
    failure: str | None
    max_tokens: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    uncounted: bool


class OtherForm(ValueError):
    """A JSON object that is no row this Magister can read."""


_WORDS = {word.encode(): word for word in (*get_args(Finish), *get_args(Failure))}
_WORD = b"|".join(_WORDS)
_LINE = re.compile(
    rb'\{"v": 2, "key": "([0-9a-f]{64})", "finish": "(%s)", "failure": (?:null|"(%s)"), "max_tokens": (\d+), '
    rb'"usage": \{"prompt_tokens": (\d+), "completion_tokens": (\d+), "cached_tokens": (\d+)\}, '
    rb'[^\n]*, "crc": "[0-9a-f]{8}"\}\n?' % (_WORD, _WORD)
)


#: In a row without words. Inside a text its quotes would be escaped.
_SILENT = b'"text": "", "reasoning": "", "seconds": '


def to_line(row: Row) -> bytes:
    """The line of a row, with its line end; ASCII."""
    body = json.dumps(row.model_dump(mode="json", exclude=None if row.tokens else {"tokens"}))[:-1].encode("ascii")
    return b'%s, "crc": "%08x"}\n' % (body, zlib.crc32(body))


def facts(line: bytes) -> Facts | None:
    """What the index needs of a line; None where it is torn or damaged.

    A line as `to_line` writes it is not parsed, only matched and summed up; any other is parsed.

    Raises:
        OtherForm: it is a JSON object, but no row that can be read. To pass over it would ask, and pay for,
            everything once more.
    """
    found = None if _is_changed(line) else _LINE.fullmatch(line)
    if found is None:
        row = of_line(line)
        return None if row is None else of_row(row)
    key, finish, failure, limit, read, written, cached = found.groups()
    failed = None if failure is None else _WORDS[failure]
    counts = int(read), int(written), int(cached)
    blank = not any(counts[:2]) and (failed is None or _SILENT not in line)
    return Facts(key.decode(), _WORDS[finish], failed, int(limit), *counts, blank)


def of_row(row: Row) -> Facts:
    """The same of a row in hand."""
    usage = row.usage
    counts = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
    return Facts(row.key, row.finish, row.failure, row.max_tokens, *counts, uncounted(row))


def uncounted(reply: Reply | Row) -> bool:
    """Whether a reply was paid for though its engine counted no tokens: it is no failure, or one with words in it."""
    usage = reply.usage
    said = reply.text or reply.reasoning or reply.failure is None
    return bool(said) and not usage.prompt_tokens and not usage.completion_tokens


def of_line(line: bytes) -> Row | None:
    """The row of a line; None if it is torn or damaged (no JSON object, or not what its check sum says).

    Raises:
        OtherForm: see `facts`.
    """
    if _is_changed(line):
        return None
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    if data.get("v") not in READABLE:
        raise OtherForm(f"a row of version {data.get('v')!r}, this Magister reads versions 1 and 2")
    data.pop("crc", None)
    try:
        return Row.model_validate(data)
    except ValidationError as error:
        raise OtherForm(f"no row of a ledger: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from None


def _is_changed(line: bytes) -> bool:
    """Whether a line has a check sum, and another content. (In a text the mark's quotes would be escaped.)"""
    body, mark, rest = line.rpartition(b', "crc": "')
    return bool(mark) and rest[:8] != b"%08x" % zlib.crc32(body)
