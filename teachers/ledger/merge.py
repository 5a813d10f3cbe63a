"""Parts of a ledger: several processes write at once, each into a part of its own; the parts then become the ledger.

A part is a ledger itself, with its own lock, so whatever stops a process leaves a whole part. It is removed only when
all its rows are on the disk in the ledger; a merge that was stopped in between is done again and adds nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .ledger import Ledger, read
from .lock import LedgerBusy
from .row import Row, to_line

#: Seconds that a process which has lost its driver is given to end before its part is said to be in use.
PATIENCE = 15.0


@dataclass
class Merged:
    """What came out of parts.

    Attributes:
        rows: those that the ledger did not hold, in the order of their arrival in each part.
        repeated: rows that it held already, from a merge that was stopped.
        torn, damaged: torn last lines dropped, and lines that could not be read.
    """

    rows: list[Row] = field(default_factory=list)
    repeated: int = 0
    torn: int = 0
    damaged: int = 0

    def remarks(self) -> dict[str, int]:
        """What should be said of parts that an earlier run left, if there is anything to say."""
        remarks = {
            "replies_merged_from_workers_of_a_run_that_was_killed": len(self.rows),
            "torn_last_lines_dropped_from_parts": self.torn,
            "damaged_lines_dropped_from_parts": self.damaged,
        }
        return {remark: number for remark, number in remarks.items() if number}


def merge(ledger: Ledger, parts: Iterable[Path]) -> Merged:
    """Append what the parts hold to the ledger, and remove each part when that is on the disk.

    Raises:
        LedgerBusy: a part is still written to, `PATIENCE` seconds long.
        LedgerFault: it could not be read or written; the parts not yet merged are still there.
    """
    merged = Merged()
    for path in parts:
        with _opened(path) as part:
            lines = {to_line(row): row for row in read(path)}
            held = _held(ledger, lines)
            rows = [row for line, row in lines.items() if line not in held]
            if rows:
                ledger.append(*rows)
            merged.rows += rows
            merged.repeated += len(held)
            merged.torn += part.opened.torn_bytes > 0
            merged.damaged += len(part.opened.damaged)
            path.unlink()
            path.with_name(f"{path.name}.lock").unlink()
    return merged


def _held(ledger: Ledger, lines: dict[bytes, Row]) -> set[bytes]:
    """Those of the lines that stand in the ledger. Its file is only read where it knows their keys."""
    known = {line for line, row in lines.items() if row.key in ledger}
    if known:
        with open(ledger.path, "rb") as file:
            known.intersection_update(file)
    return known


def _opened(part: Path) -> Ledger:
    """The part, for this process alone."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return Ledger(part)
        except LedgerBusy:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
