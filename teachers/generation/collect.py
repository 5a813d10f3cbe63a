"""Asking: requests go out as long as the budget allows, replies come in and are saved."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..ledger.commit import Commit
from ..ledger.ledger import Ledger
from ..ledger.lock import LedgerFault
from ..ledger.row import Row
from ..teacher import Reply, Request, Teacher
from .budget import Meter

#: ``(settled, of how many, the row that was just saved)``; called from the thread that saves.
Progress = Callable[[int, int, Row], None]


#: What `collect` is: asks what is waiting, and saves every reply.
Collect = Callable[[Ledger, Teacher, Mapping[str, Request], int, Meter, Progress | None], "Collected"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: says what is saved and that the same command goes on."""


class Stopped(RuntimeError):
    """The engine broke down, or answered what it was not asked: says what is saved."""


@contextmanager
def stopping(ledger: Ledger, settled: int, total: int) -> Iterator[None]:
    """Whatever ends the asking early says what is saved.

    Args:
        settled: how many of the ``total`` requests had an answer when the ledger was opened.

    Raises:
        Interrupted: for Ctrl-C.
        Stopped: for all else but a `LedgerFault`, which says it by itself.
    """

    def saved() -> str:
        count = f"{settled + ledger.arrived():,} of {total:,} answers"
        return f"{count} are saved in {ledger.path}; the same command goes on from there"

    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"stopped by Ctrl-C: {saved()}") from None
    except LedgerFault:
        raise
    except Stopped as error:
        raise Stopped(f"{error}: {saved()}") from None
    except Exception as error:
        raise Stopped(f"stopped by {type(error).__name__}: {error}: {saved()}") from error


@dataclass
class Collected:
    """What asking brought.

    Attributes:
        replies: how many were saved.
        prompt_tokens, completion_tokens, cached_tokens: of these, as the engine counts them.
        uncounted: answers for which the engine counted no tokens.
        left: why the other requests have no reply: ``pending``, ``no_reply`` or ``over_budget``, by key.
        seconds: of asking.
        notes: more counted remarks, for people.
    """

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    uncounted: int = 0
    left: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: Counter[str] = field(default_factory=Counter)

    def count(self, row: Row, meter: Meter, request: Request) -> None:
        """A reply was saved: what it took is settled with the meter."""
        self.replies += 1
        self.prompt_tokens += row.usage.prompt_tokens
        self.completion_tokens += row.usage.completion_tokens
        self.cached_tokens += row.usage.cached_tokens
        self.uncounted += not meter.settle(request, row)


def collect(
    ledger: Ledger,
    teacher: Teacher,
    waiting: Mapping[str, Request],
    total: int,
    meter: Meter,
    progress: Progress | None = None,
) -> Collected:
    """Ask what is waiting and save every reply.

    The teacher draws requests only while they fit into the budget. When it has answered them all and there is budget
    left, because answers were shorter than they might have been, it is given more.

    Args:
        waiting: the requests by key, in the order of asking.
        total: the requests of the whole run, with those that were settled before.

    Raises:
        Interrupted: Ctrl-C.
        Stopped: the engine broke down.
        LedgerFault: a reply could not be written.
    """
    done, todo, identity = Collected(), deque(waiting.values()), teacher.identity()
    settled, under_way = total - len(waiting), dict[str, Request]()
    started = time.monotonic()

    def told(rows: list[Row]) -> None:
        nonlocal settled
        for row in rows:
            settled += 1
            if progress is not None:
                progress(settled, total, row)

    with stopping(ledger, total - len(waiting), total), Commit(ledger, told) as commit:
        for reply in _replies(teacher, todo, under_way, meter):
            request = under_way.pop(reply.key, None)
            if request is None:
                raise Stopped(f"the teacher answered what it was not asked (key {reply.key!r})")
            if reply.failure == "pending":
                done.left[reply.key] = "pending"
                continue
            row = Row.of(request, reply, teacher.spec, identity)
            commit.add(row)
            done.count(row, meter, request)
    done.left |= dict.fromkeys(under_way, "no_reply") | dict.fromkeys((r.key for r in todo), "over_budget")
    done.seconds = time.monotonic() - started
    return done


def _replies(teacher: Teacher, todo: deque[Request], under_way: dict[str, Request], meter: Meter) -> Iterator[Reply]:
    """The replies to what fits into the budget; empties ``todo`` into ``under_way`` as requests are drawn."""

    def drawn() -> Iterator[Request]:
        while todo and meter.fits(todo[0]):
            request = todo.popleft()
            meter.start(request)
            under_way[request.key] = request
            yield request

    before = -1
    while todo and len(todo) != before and meter.fits(todo[0]):
        before = len(todo)
        replies = iter(teacher.generate(drawn()))
        try:
            yield from replies
        finally:
            if close := getattr(replies, "close", None):
                close()
