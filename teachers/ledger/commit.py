"""Group commit: replies that are ready together share one wait for the disk.

A reply is written to the ledger when it comes, so that it outlives the process at once; a thread syncs the file
whenever something is unsynced, and only then is the reply told of. What arrives during one sync shares the next, so no
reply waits longer than two syncs (some milliseconds), however slowly or quickly the others come.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Condition, Thread

from .ledger import Ledger, LedgerFull
from .row import Row

log = logging.getLogger(__name__)


class Commit:
    """The way of rows onto the disk. Use as a context manager; leaving it waits for the last sync.

    Args:
        ledger: where they go.
        told: called with the rows of each sync, in their order, from the thread that syncs. An
            error of its own is logged once and ends nothing: a reply that was paid for is worth more than being
            told of. (A `LedgerFull` that it raises counts as one.)

    Raises (from `add`, and at the end):
        LedgerFull: a row could not be written.
    """

    def __init__(self, ledger: Ledger, told: Callable[[list[Row]], None]) -> None:
        self._ledger, self._told = ledger, told
        self._changed = Condition()
        self._written: list[Row] = []
        self._closing = False
        self._error: Exception | None = None
        self._logged = False
        self._thread = Thread(target=self._sync, name="ledger", daemon=True)

    def __enter__(self) -> Commit:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def add(self, row: Row) -> None:
        """Write a row; it is on the disk soon after."""
        self._ledger.write(row)
        if self._error is not None:
            raise self._error
        with self._changed:
            self._written.append(row)
            self._changed.notify()

    def _sync(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._written or self._closing)
                rows, self._written = self._written, []
            if not rows:
                return
            try:
                self._ledger.sync()
                self._tell(rows)
            except Exception as error:  # the writing thread raises it
                self._error = error
                return

    def _tell(self, rows: list[Row]) -> None:
        try:
            self._told(rows)
        except LedgerFull:
            raise
        except Exception:
            if not self._logged:
                log.warning("what is told of saved replies failed; the run goes on", exc_info=True)
            self._logged = True
