"""A worker's share of a run that several processes make: it asks one block of requests, into a part of the ledger.

Whatever ends a worker, the block may be given to another one: what the part holds is not asked again.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ...tasks.record import Record
from .. import spec
from ..ledger.ledger import Ledger
from ..teacher import Request
from .budget import Budget, resumed
from .collect import collect


class Block(Record):
    """Requests that stand together in the order of asking, and what they may cost.

    Attributes:
        part: the file that takes the replies; no other block has it.
        identity: of the teacher by which the requests are keyed.
    """

    part: Path
    requests: tuple[Request, ...]
    budget: Budget
    identity: dict[str, Any]


class Told(Record):
    """What a worker says of its block; the replies themselves are in the part.

    Attributes:
        worker: its host and process.
        left: why requests have no reply, by key, see `Collected`.
        stopped: why the block was given up, if it was.
        notes: the teacher's counted remarks on this block.
    """

    part: Path
    worker: str
    left: dict[str, str] = Field(default_factory=dict)
    stopped: str = ""
    notes: dict[str, int] = Field(default_factory=dict)


class OtherTeacher(ValueError):
    """Here the spec names another teacher than where the run was planned: its answers would be taken for others'."""


class Worker:
    """Makes the teacher once, and asks it block after block.

    Args: limits: of an endpoint, see `spec.teacher`; for this worker alone.
    """

    def __init__(self, teacher: str, limits: Mapping[str, Any]) -> None:
        self.teacher = spec.teacher(teacher, **limits)
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def ask(self, block: Block) -> Told:
        """Ask what the block's part does not hold yet. An error is told, not raised: other blocks go on."""
        before = Counter[str](getattr(self.teacher, "notes", ()))
        again = block.part.exists()
        try:
            if (here := self.teacher.identity()) != block.identity:
                raise OtherTeacher(f"the run's teacher is {block.identity}, on {self.name} it is {here}")
            with Ledger(block.part) as part:
                waiting = {r.key: r for r in block.requests if not part.settled(r)}
                meter = resumed(block.budget, self.teacher, part, block.requests)
                done = collect(part, self.teacher, waiting, len(block.requests), meter)
        except Exception as error:
            return Told(part=block.part, worker=self.name, stopped=f"{type(error).__name__}: {error}")
        new = Counter[str](getattr(self.teacher, "notes", ())) - before
        new["blocks_taken_over_from_a_worker_that_died"] += again
        return Told(part=block.part, worker=self.name, left=done.left, notes=dict(+new))
