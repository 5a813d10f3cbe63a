"""A whole catalogue into a file or folder, resumable: whatever stops it, the same command goes on.

Beside the rows lies the run's folder: what decided the rows (``run.json``), every reply of the teacher
(``ledger-00000.jsonl`` for the first `BLOCK` products, and so on, so that an open ledger stays small), and how far the
rows are (``state.json``), written after the rows are on the disk. After a kill the rows behind that state are cut off
and made again; what the teacher has answered is in the ledger and is not asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from ..tasks.attributes import Attribute
from ..tasks.task import DataFault
from ..teachers.generation.collect import Interrupted, Stopped
from ..teachers.knowledge.corpus import write_atomically
from ..teachers.ledger.ledger import Ledger
from ..teachers.ledger.lock import LedgerFault, take_lock
from .catalogue import to_parquet
from .counts import Counts
from .pipeline import Extraction
from .product import Product

#: So many products are asked together, and so often the state is written.
CHUNK = 1_024
#: So many products share a ledger, a multiple of `CHUNK`. Only the open one is in memory.
BLOCK = 100 * CHUNK
SETTINGS, STATE, ROWS, DESCRIPTIONS = "run.json", "state.json", "rows.jsonl", "descriptions"
#: Seconds between two lines of progress.
EVERY = 10.0

Say = Callable[[str], None]


def extract_to(
    out: Path,
    products: Iterable[Product | str | DataFault],
    attributes: Sequence[str | Attribute] = (),
    *,
    retry_failed: bool = False,
    say: Say = lambda line: None,
    **options: Any,
) -> Counts:
    """Extract a catalogue into ``out``; called again with the same products, it goes on where it stopped.

    Args:
        out: a ``.jsonl`` file, written row by row; a ``.parquet`` file, written at the end; or a folder, for
            ``rows.jsonl``. The run's folder is called as the file with ``.run`` behind, or is the folder itself.
        products: a stream, the same in every call; it may have grown at its end.
        retry_failed: make all rows again, and ask again what failed.
        options: see `Extraction`.

    Returns:
        The counts of all rows, those of earlier calls included.

    Raises:
        DataFault: ``out`` belongs to another run, the products are others; says what differs.
        LedgerFault: the run is in use by another process, or the disk is full.
        Interrupted, Stopped: Ctrl-C, or the teacher broke down; says what is saved.
    """
    place = _Place.of(Path(out))
    extraction = Extraction(attributes, kept=place.folder / DESCRIPTIONS, **options)
    try:
        with place.locked(), place.stopping():
            place.check(extraction.settings())
            run = _Run(place, extraction, retry_failed, say)
            run.go(products)
            if place.parquet is not None and not run.pending:
                to_parquet(place.rows, place.parquet)
            return run.counts
    finally:
        extraction.close()


class _Place:
    """Where a run's rows go, and its folder."""

    def __init__(self, out: Path, folder: Path, rows: Path, parquet: Path | None = None) -> None:
        self.out, self.folder, self.rows, self.parquet = out, folder, rows, parquet

    @classmethod
    def of(cls, out: Path) -> _Place:
        folder = out.with_name(out.name + ".run")
        if out.suffix == ".jsonl":
            return cls(out, folder, out)
        if out.suffix == ".parquet":
            return cls(out, folder, folder / ROWS, out)
        if out.suffix and not out.is_dir():
            raise DataFault(
                str(out), "rows are not written in this form", "end it in .jsonl or .parquet, or in nothing"
            )
        return cls(out, out, out / ROWS)

    def check(self, settings: dict[str, Any]) -> None:
        """Refuse what is no run, or another one; keep the settings."""
        path = self.folder / SETTINGS
        if not path.exists():
            there = [p for p in self.folder.iterdir() if not p.name.startswith(STATE) and p.name != DESCRIPTIONS]
            taken = self.folder if there else next((p for p in (self.out, self.rows) if p.is_file()), None)
            if taken is not None:
                raise DataFault(str(taken), "is there and is no extraction's", "choose another --out, or remove it")
            write_atomically(path, lambda p: p.write_text(json.dumps(settings, indent=2), encoding="utf-8"))
            return
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataFault(str(path), f"cannot be read: {error}", "choose another --out") from None
        settings = json.loads(json.dumps(settings))
        differs = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if differs:
            said = "; ".join(f"{n} was {_short(before.get(n))}, is {_short(settings.get(n))}" for n in differs)
            raise DataFault(
                str(self.out), f"belongs to an extraction with other settings: {said}",
                "choose another --out, or set them back",
            )  # fmt: skip

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The run for this process alone.

        Raises:
            LedgerBusy: another process has it.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise DataFault(str(self.folder), "is a file", "choose another --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(self.folder / STATE)
        try:
            yield
        finally:
            os.close(lock)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Whatever ends the run early says what is saved."""

        def saved() -> str:
            try:
                done = json.loads((self.folder / STATE).read_text(encoding="utf-8"))["products"]
            except (OSError, ValueError, KeyError):
                done = 0
            return f"{done:,} rows are in {self.rows}, further replies in {self.folder}; the same command goes on"

        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted(f"stopped by Ctrl-C: {saved()}") from None
        except (DataFault, LedgerFault):
            raise
        except Exception as error:
            cause = (error.__cause__ or error) if isinstance(error, Stopped) else error
            raise Stopped(f"stopped by {type(cause).__name__}: {cause}: {saved()}") from error


class _Run:
    """The rows of a run: those that are there, and those to come.

    Attributes:
        counts: of all rows up to the state.
        pending: products without a row, since the teacher's replies to them are still to come.
    """

    def __init__(self, place: _Place, extraction: Extraction, retry_failed: bool, say: Say) -> None:
        self._place, self._extraction, self._retry, self._say = place, extraction, retry_failed, say
        self._digest = hashlib.sha256()
        self._ledger: tuple[int, Ledger] | None = None
        self.pending = 0
        self.done, self._bytes, self._before = 0, 0, ""
        state = self._place.folder / STATE
        if state.exists() and not retry_failed:
            self._read(state)

    @property
    def counts(self) -> Counts:
        return self._extraction.counts

    def go(self, products: Iterable[Product | str | DataFault]) -> None:
        """Make the rows that are missing."""
        stream = self._skipped(iter(products))
        started = last = time.monotonic()
        first = at = self.done
        with open(self._place.rows, "ab") as file:
            file.truncate(self._bytes)
            try:
                while chunk := list(islice(stream, CHUNK - at % CHUNK)):
                    rows = list(self._extraction.rows(chunk, at, self._of_block(at), self._retry))
                    at += len(chunk)
                    self._add(file, chunk, rows)
                    now = time.monotonic()
                    if now - last >= EVERY:
                        last = now
                        self._say(f"{at:,} products, {(at - first) / (now - started):.1f} a second")
            finally:
                if self._ledger is not None:
                    self._ledger[1].close()
        if self.pending:
            self._say(f"{self.pending:,} products wait for replies that are still to come; behind the first of them no "
                      f"row is written. {self._extraction.advice}")  # fmt: skip

    def _add(self, file: Any, chunk: Sequence[Any], rows: Sequence[dict[str, Any]]) -> None:
        """Put rows onto the disk, then the state. Behind a product whose reply is still to come nothing is written."""
        waiting = sum((row["fault"] or "").startswith("pending") for row in rows)
        if waiting or self.pending:
            self.pending += waiting
            return
        file.write(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())
        for product in chunk:
            self._digest.update(_bytes(product))
        self.done, self._bytes = self.done + len(rows), file.tell()
        state = {
            "products": self.done,
            "bytes": self._bytes,
            "digest": self._digest.hexdigest(),
            "counts": self.counts.as_dict(),
        }
        write_atomically(self._place.folder / STATE, lambda p: p.write_text(json.dumps(state), encoding="utf-8"))

    def _read(self, path: Path) -> None:
        remedy = "run it with --retry-failed: rows are made again, and what was answered is not asked again"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            self.done, self._bytes, self._before = state["products"], state["bytes"], state["digest"]
            self.counts.__dict__.update(Counts.of_dict(state["counts"]).__dict__)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataFault(str(path), f"cannot be read: {error}", remedy) from None
        size = self._place.rows.stat().st_size if self._place.rows.exists() else 0
        if size < self._bytes:
            raise DataFault(
                str(self._place.rows), f"is shorter than it was ({size:,} of {self._bytes:,} bytes)", remedy
            )

    def _skipped(self, products: Iterator[Any]) -> Iterator[Any]:
        """The products behind those that have their rows; a `DataFault` if those are others than they were."""
        number = 0
        for product in islice(products, self.done):
            self._digest.update(_bytes(product))
            number += 1
        if number < self.done:
            raise DataFault("the products", f"there were {self.done:,}, now {number:,}", _OTHERS)
        if self.done and self._digest.hexdigest() != self._before:
            raise DataFault("the products", f"the first {self.done:,} are others than they were", _OTHERS)
        return products

    def _of_block(self, product: int) -> Ledger:
        """The open ledger of a product's block."""
        block = product // BLOCK
        if self._ledger is None or self._ledger[0] != block:
            if self._ledger is not None:
                self._ledger[1].close()
            ledger = Ledger(self._place.folder / f"ledger-{block:05}.jsonl")
            self._ledger = block, ledger
            if ledger.opened.torn_bytes or ledger.opened.damaged:
                self._say(f"{ledger.path}: {ledger.opened}")
        return self._ledger[1]


_OTHERS = "put the catalogue back as it was, or choose another --out; it may grow at its end"


def _bytes(product: Product | str | DataFault) -> bytes:
    said = product.model_dump_json() if isinstance(product, Product) else str(product)
    return said.encode("utf-8", "surrogatepass") + b"\n"


def _short(value: Any) -> str:
    said = json.dumps(value, ensure_ascii=False)
    return said if len(said) <= 80 else f"{said[:77]}..."
