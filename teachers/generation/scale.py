"""Asking by several workers: what `collect` does in one process, with a part of the ledger for each block.

What waits is cut, in the order of asking, into blocks; a pool of workers asks them; each block's part is merged into
the ledger when its worker tells of it. Parts that a killed run left are merged when the folder is next opened.

The budget that is left is shared out over the blocks by their estimates, and each worker keeps its block's share by
the rule of `budget`, so the sum keeps the whole by the same rule: up to the error of the prompts' estimate, and, for a
worker that is killed, what it had under way, which its successor asks once more. What a block did not use is shared
out again.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

from ..ledger.ledger import Ledger
from ..ledger.merge import merge
from ..teacher import Request, Teacher
from .budget import Budget, Meter
from .collect import Collected, Progress, Stopped, stopping
from .run_folder import PARTS
from .worker import Block, Told

log = logging.getLogger(__name__)

#: Has blocks asked by its workers, and yields what each says, in any order; a block that was lost is not told of.
Pool = Callable[[Sequence[Block]], Generator[Told, None, None]]

#: Blocks a worker: few, so that an engine seldom runs empty at a block's end; several, so that all end together.
BLOCKS_A_WORKER = 8
#: Requests in a block, at least and at most.
SMALLEST, LARGEST = 16, 4_096
#: A millionth of a millionth of a dollar: shares are rounded down to it.
CENT = Decimal("1e-12")


class Scaled:
    """Stands in for `collect`, with the same arguments, outcome and errors.

    Args:
        pool: the workers.
        workers: how many they are.
    """

    def __init__(self, pool: Pool, workers: int) -> None:
        self.pool, self.workers = pool, workers

    def __call__(
        self,
        ledger: Ledger,
        teacher: Teacher,
        waiting: Mapping[str, Request],
        total: int,
        meter: Meter,
        progress: Progress | None = None,
    ) -> Collected:
        run = _Run(self, ledger, teacher, waiting, total, meter, progress)
        started = time.monotonic()
        with stopping(ledger, total - len(waiting), total):
            run.ask()
        run.done.seconds = time.monotonic() - started
        return run.done


class _Run:
    """One asking: rounds of blocks, until all are answered or nothing more fits into the budget."""

    def __init__(
        self,
        scaled: Scaled,
        ledger: Ledger,
        teacher: Teacher,
        waiting: Mapping[str, Request],
        total: int,
        meter: Meter,
        progress: Progress | None,
    ) -> None:
        self.pool, self.workers = scaled.pool, scaled.workers
        self.ledger, self.waiting, self.total, self.meter = ledger, waiting, total, meter
        self.progress, self.identity, self.done = progress, teacher.identity(), Collected()

    def ask(self) -> None:
        """Rounds with all workers; when a round answers less than one request a block, the budget's last crumbs go
        into one block, which may use them as a run without workers would."""
        todo, alone = list(self.waiting.values()), False
        while todo and self.meter.fits(todo[0]):
            blocks = self._blocks(todo, 1 if alone else self.workers * BLOCKS_A_WORKER)
            left, replied = self._round(blocks)
            asked = {request.key for request in todo}
            unasked = {key for key, why in left.items() if why == "over_budget"}
            self.done.left |= {key: left.get(key, "no_reply") for key in asked - replied - unasked}
            todo = [request for request in todo if request.key in unasked]
            if len(blocks) == 1:
                break
            alone = len(replied) < len(blocks)
        self.done.left |= dict.fromkeys((request.key for request in todo), "over_budget")

    def _blocks(self, requests: Sequence[Request], most: int) -> list[Block]:
        """At most so many blocks (more where each would be too large), each with its share of the budget."""
        size = min(max(-(-len(requests) // most), SMALLEST), LARGEST) if most > 1 else len(requests)
        cut = [tuple(requests[start : start + size]) for start in range(0, len(requests), size)]
        weights = [estimate.prompt_tokens + estimate.completion_tokens for estimate in map(self.meter.estimate, cut)]
        folder, run = self.ledger.path.parent.absolute() / PARTS, uuid.uuid4().hex[:12]
        return [
            Block(
                part=folder / f"{run}-{place:05}.jsonl",
                requests=block,
                budget=share(self.meter.left, weights[place], sum(weights)),
                identity=self.identity,
            )
            for place, block in enumerate(cut)
        ]

    def _round(self, blocks: Sequence[Block]) -> tuple[dict[str, str], set[str]]:
        """Why requests have no reply, as far as the workers say, and which have one; all parts are merged."""
        left, replied = dict[str, str](), set[str]()
        given_up = 0
        told = self.pool(blocks)
        try:
            for block in told:
                replied |= self._take([block.part])
                left |= block.left
                self.done.notes.update(block.notes)
                if not block.stopped:
                    given_up = 0
                    continue
                given_up += 1
                self.done.notes["blocks_that_a_worker_gave_up"] += 1
                log.warning("worker %s gave a block up: %s", block.worker, block.stopped)
                if given_up == min(self.workers, len(blocks)):  # one after the other: so would the rest be
                    raise Stopped(f"the workers gave up, the last one by {block.stopped}")
        finally:
            told.close()
            replied |= self._take(block.part for block in blocks)  # what dead workers left, too
            with suppress(OSError):  # another run's part is there
                blocks[0].part.parent.rmdir()
        return left, replied

    def _take(self, parts: Iterable[Path]) -> set[str]:
        """Merge parts, as far as they are there, and count their replies; the keys of these."""
        rows = merge(self.ledger, (part for part in parts if part.exists())).rows
        for row in rows:
            request, done = self.waiting[row.key], self.done
            self.meter.start(request)
            done.count(row, self.meter, request)
            if self.progress is not None:
                self.progress(self.total - len(self.waiting) + done.replies, self.total, row)
        return {row.key for row in rows}


def share(left: Budget, part: int, whole: int) -> Budget:
    """``part / whole`` of a budget, rounded down; all of it where nothing has a weight."""
    part, whole = (part, whole) if whole else (1, 1)
    tokens = None if left.tokens is None else left.tokens * part // whole
    usd = None if left.usd is None else (left.usd * part / whole).quantize(CENT, ROUND_DOWN)
    return left.model_copy(update={"tokens": tokens, "usd": usd})
