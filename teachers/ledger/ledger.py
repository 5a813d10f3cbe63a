"""The ledger: the truth of a run. One line a reply, on the disk before the reply counts.

A file is JSON lines (`row`), append-only, written by one process at a time. Everything else (the corpus, its card, its
counts) is rebuilt from it. After a kill -9 or a power cut the only thing that can be wrong is a torn last line; it is
found, dropped and said when the file is next opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from ..teacher import Request, Usage
from .lock import LedgerFault, take_lock
from .row import Facts, OtherForm, Row, facts, of_line, of_row, to_line

T = TypeVar("T")

#: Failures in which the teacher was never asked: nothing was spent, so they are simply asked the next time.
NEVER_ASKED = frozenset({"over_budget", "pending"})


class LedgerFull(LedgerFault):
    """A reply could not be written: the disk is full, or a quota or file size limit was met."""


@dataclass(frozen=True)
class Opened:
    """What was found at opening: rows read, torn bytes dropped at the end, and damaged lines by number
    (1-based)."""

    rows: int
    torn_bytes: int
    damaged: tuple[int, ...]

    def __str__(self) -> str:
        said = [f"{self.rows:,} replies"]
        if self.torn_bytes:
            said.append(f"a torn last line of {self.torn_bytes:,} bytes was dropped (its reply will be asked again)")
        if self.damaged:
            shown = ", ".join(map(str, self.damaged[:10])) + (", ..." if len(self.damaged) > 10 else "")
            said.append(f"{len(self.damaged):,} damaged lines were left out: {shown}")
        return "; ".join(said)


@dataclass
class Spent:
    """What all replies of a ledger used, the superseded ones too: all were paid.

    ``uncounted``: how many replies were paid for though the engine reported no tokens, see `row.uncounted`.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    uncounted: int = 0

    def usage(self) -> Usage:
        """The sums."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
        )

    def add(self, row: Facts) -> None:
        """Count a row."""
        self.prompt_tokens += row.prompt_tokens
        self.completion_tokens += row.completion_tokens
        self.cached_tokens += row.cached_tokens
        self.uncounted += row.uncounted


class _Entry(NamedTuple):
    """What the index keeps of a row: enough to decide, and where the rest lies."""

    offset: int
    length: int
    finish: str
    failure: str | None
    max_tokens: int

    @property
    def preference(self) -> tuple[int, int]:
        """A whole answer is better than a cut one (of two, the one that was allowed more), that than a failure."""
        if self.failure:
            return 0, 0
        return (1, self.max_tokens) if self.finish == "length" else (2, 0)


class Ledger:
    """An open ledger: look rows up by key, append rows. Use as a context manager; one process at a time.

    Only keys and offsets are held in memory (some 285 bytes a row, see benchmarks/ledger.py); texts are read from the
    file when they are needed. One thread writes; `sync` may be called from another (see `commit`).

    Args:
        path: the file; made if it is not there. The lock file lies beside it (``ledger.jsonl.lock``).

    Raises:
        LedgerBusy: another process has it open.
        LedgerFault: the file was written in another form.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self.path)
        self._index: dict[bytes, _Entry] = {}
        self._unsynced: list[tuple[Facts, int, int]] = []
        self._mutex = Lock()
        self._broken: LedgerFull | None = None
        self.spent = Spent()
        try:
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
            try:
                self.opened = self._recover()
                self._start = self._end = os.fstat(self._file.fileno()).st_size
            except BaseException:
                self._file.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and free the lock. May be called twice."""
        if not self._file.closed:
            self._file.close()
            os.close(self._lock)

    def __len__(self) -> int:
        """How many keys have a row."""
        return len(self._index)

    def __contains__(self, key: str) -> bool:
        return _packed(key) in self._index

    def strangers(self, keys: Collection[str]) -> int:
        """How many keys have a row and are not among ``keys``."""
        return len(self._index.keys() - set(map(_packed, keys)))

    def settled(self, request: Request, retry_failed: bool = False) -> bool:
        """Whether this request needs no (further) asking.

        An answer that stopped by itself settles it, whatever the token limit. One that met its limit settles it only
        if no more is allowed now. A failure settles it unless ``retry_failed``, or unless the teacher was never asked.
        """
        entry = self._index.get(_packed(request.key))
        if entry is None:
            return False
        if entry.failure is not None:
            return not retry_failed and entry.failure not in NEVER_ASKED
        return entry.finish != "length" or request.prompt.max_tokens <= entry.max_tokens

    def failed(self, key: str) -> bool:
        """Whether all that came for a key is a failure."""
        entry = self._index.get(_packed(key))
        return entry is not None and entry.failure is not None

    def row(self, key: str) -> Row | None:
        """The row that counts for a key: its last whole answer, else of those cut the last with the largest
        ``max_tokens``, else its last failure."""
        entry = self._index.get(_packed(key))
        if entry is None:
            return None
        return of_line(os.pread(self._file.fileno(), entry.length, entry.offset))

    def arrived(self) -> int:
        """How many rows were written since the opening, counted in the file itself.

        Ctrl-C may fall between the writing of a row and everything else that would count it.
        """
        with open(self.path, "rb") as file:
            file.seek(self._start)
            return sum(line.endswith(b"\n") for line in file)

    def append(self, *rows: Row) -> None:
        """Write rows and wait until they are on the disk: one sync for all of them.

        Raises:
            LedgerFull: they could not be written; the file is put back to its last whole line.
        """
        self.write(*rows)
        self.sync()

    def write(self, *rows: Row) -> None:
        """Write rows without waiting for the disk: they outlive this process at once, a power cut after `sync`.

        They count, and can be looked up, after `sync`.

        Raises:
            LedgerFull: see `append`.
        """
        lines = [to_line(row) for row in rows]
        with self._mutex:
            self._refuse_if_broken()
            try:
                _write_all(self._file, b"".join(lines))
            except OSError as error:
                raise self._full(error, self._end, f"for example {rows[0].example}") from error
            for row, line in zip(rows, lines, strict=True):
                self._unsynced.append((of_row(row), self._end, len(line)))
                self._end += len(line)

    def sync(self) -> None:
        """Wait until everything written is on the disk. May be called from another thread than `write`.

        Raises:
            LedgerFull: the disk refused; the file is put back to what is surely there, and takes nothing more.
        """
        with self._mutex:
            self._refuse_if_broken()
            written, self._unsynced = self._unsynced, []
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            with self._mutex:
                # A second fsync would succeed without having written anything: what the first lost stays lost.
                self._broken = self._full(error, written[0][1] if written else self._end, "last written")
                raise self._broken from error
        for row, offset, length in written:
            self._note(row, offset, length)

    def _refuse_if_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _full(self, error: OSError, end: int, which: str) -> LedgerFull:
        with suppress(OSError):  # if even this fails, the torn line is dropped at the next opening
            os.ftruncate(self._file.fileno(), end)
        return LedgerFull(
            self.path,
            f"{error.strerror or error}: the reply {which} could not be written",
            f"the replies of {len(self):,} requests are saved; make room and run the same command again",
        )

    def _note(self, row: Facts, offset: int, length: int) -> None:
        self.spent.add(row)
        entry = _Entry(offset, length, row.finish, row.failure, row.max_tokens)
        key = _packed(row.key)
        known = self._index.get(key)
        if known is None or entry.preference >= known.preference:
            self._index[key] = entry

    def _recover(self) -> Opened:
        """Index the file and cut off a torn last line. A whole last row without its line end is given one."""
        count, damaged, end, whole = 0, [], 0, True
        for number, offset, line in _lines(self.path):
            row = _of(self.path, number, facts, line)
            ended = line.endswith(b"\n")
            if row is not None:
                self._note(row, offset, len(line))
                count += 1
            elif ended:
                damaged.append(number)
            if ended or row is not None:
                end, whole = offset + len(line), ended
        torn = self.path.stat().st_size - end
        if torn:
            os.ftruncate(self._file.fileno(), end)
        if not whole:
            _write_all(self._file, b"\n")
        os.fsync(self._file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name of a new file, too, has to survive a power cut
        finally:
            os.close(folder)
        return Opened(count, torn, tuple(damaged))


def read(path: Path) -> Iterator[Row]:
    """The rows of a ledger in the order of their arrival, without opening it for writing.

    Every row, so the same key may come several times. A torn last line and damaged lines are passed over;
    open a `Ledger` to have them said.
    """
    for number, _, line in _lines(Path(path)):
        row = _of(Path(path), number, of_line, line)
        if row is not None:
            yield row


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Line number (from 1), offset in bytes, and the line with its end."""
    offset = 0
    with open(path, "rb", buffering=1 << 20) as file:
        for number, line in enumerate(file, 1):
            yield number, offset, line
            offset += len(line)


def _of(path: Path, number: int, parse: Callable[[bytes], T], line: bytes) -> T:
    """A line as parsed; a `LedgerFault` with its number if it is another form of row."""
    try:
        return parse(line)
    except OtherForm as error:
        remedy = "read it with the Magister that wrote it, or choose another folder"
        raise LedgerFault(path, f"line {number} is {error}", remedy) from error


def _packed(key: str) -> bytes:
    """A key in half the memory, where it is a hash as `request_key` makes them."""
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode()


def _write_all(file: Any, data: bytes) -> None:
    """Write every byte: a raw file may take fewer than it was given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
