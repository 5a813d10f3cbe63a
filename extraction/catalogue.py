"""A catalogue of any size as a stream of products: JSON lines, CSV or Parquet, read row by row.

A row that is no product comes as the `DataFault` that names its place, and the rest goes on.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..tasks.task import DataFault
from .columns import Named, product, spoken
from .product import Product

#: What is read, by the file's ending; ``.gz`` may stand behind all but Parquet.
ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
#: Longer cells of a CSV file are refused: behind an open quotation mark a cell is as long as the rest of the file.
LONGEST_CELL = 16 * 1024 * 1024
#: So many rows of a Parquet file are held at once.
ROWS = 1024

#: No column is named by the user.
GUESSED = Named()

Say = Callable[[str], None]
Products = Iterator[Product | DataFault]


def read(path: Path, named: Named = GUESSED, say: Say = lambda line: None) -> Products:
    """The products of a file, in its order; which columns are read as what is said.

    Raises:
        DataFault: the file is missing, of no form that is known, or has no column of texts.
    """
    path = Path(path)
    ending = Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()
    if not path.is_file():
        raise DataFault(str(path), "there is no such file", f"a file that ends in {', '.join(ENDINGS)} is needed")
    if ending in (".csv", ".tsv"):
        return _csv(path, ending, named, say)
    if ending in (".jsonl", ".ndjson"):
        return of_lines(_bytes(path), str(path), path.parent, named, say)
    if path.suffix.lower() == ".parquet":
        return _parquet(path, named, say)
    raise DataFault(str(path), "is of no form that is known", f"rename it so that it ends in {', '.join(ENDINGS)}")


def of_lines(
    lines: Iterable[bytes], name: str, folder: Path, named: Named = GUESSED, say: Say | None = None
) -> Products:
    """The products of JSON lines. Lines may have different fields: each is read by the names it has."""
    known: dict[tuple[str, ...], dict[str, str]] = {}
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            if not isinstance(row, dict):
                raise ValueError(f"an object is needed, this is a {type(row).__name__}")
        except (ValueError, RecursionError) as error:
            yield DataFault(where, f"not JSON: {error}", "one product a line, in UTF-8")
            continue
        there = tuple(row)
        try:
            if there not in known:
                columns = named.columns(there, where)
                if say is not None and not known:
                    say(f"{name}: {spoken(columns, there)}")
                known[there] = columns
            yield product(row, known[there], folder, where)
        except DataFault as fault:
            yield fault


def _bytes(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as lines:
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        raise DataFault(str(path), f"cannot be read: {error}") from None


def _csv(path: Path, ending: str, named: Named, say: Say) -> Products:
    """Rows of a CSV file with a header. Bytes that are no UTF-8 spoil their row only."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    lines = (line.decode("utf-8", "surrogateescape") for line in _bytes(path))
    first = next(lines, "").removeprefix("\ufeff")
    delimiter = "\t" if ending == ".tsv" else max(",;\t", key=first.count)
    rows = csv.reader(_rejoined(first, lines), delimiter=delimiter, strict=True)
    header = next(rows, [])
    columns = named.columns(header, f"{path}, line 1")
    said = "" if delimiter in (",", "\t") else f", cells separated by {delimiter!r}"
    say(f"{path}: {spoken(columns, header)}{said}")
    while True:
        line = rows.line_num + 1
        where = f"{path}, line {line}"
        try:
            cells = next(rows)
            if not cells:
                continue
            if len(cells) != len(header):
                problem = f"has {len(cells)} cells, the header has {len(header)}"
                raise DataFault(where, problem, "put cells with a separator or a line break in quotation marks")
            yield product(dict(zip(header, cells, strict=True)), columns, path.parent, where)
        except StopIteration:
            return
        except csv.Error as error:
            yield DataFault(where, f"no row of CSV: {error}")
        except DataFault as fault:
            yield fault


def _rejoined(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _parquet(path: Path, named: Named, say: Say) -> Products:
    """Rows of a Parquet file, a batch at a time, of the columns that are read."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataFault(str(path), "Parquet needs pyarrow", "pip install pyarrow, or give JSON lines") from None
    try:
        file = parquet.ParquetFile(path, memory_map=True)
        there = file.schema_arrow.names
        columns = named.columns(there, str(path))
        say(f"{path}: {spoken(columns, there)}")
        number = 0
        for batch in file.iter_batches(ROWS, columns=list(dict.fromkeys(columns.values()))):
            for row in batch.to_pylist():
                number += 1
                try:
                    yield product(row, columns, path.parent, f"{path}, row {number}")
                except DataFault as fault:
                    yield fault
    except (pyarrow.ArrowException, OSError) as error:
        raise DataFault(str(path), f"cannot be read as Parquet: {error}") from None


def to_parquet(rows: Path, out: Path) -> None:
    """Write rows (JSON lines) as Parquet in one step: ``id``, ``fault``, and ``values`` and ``found`` as JSON."""
    import pyarrow
    from pyarrow import parquet

    from ..teachers.knowledge.corpus import write_atomically

    names = ("id", "values", "found", "fault")
    schema = pyarrow.schema([(name, pyarrow.string()) for name in names])

    def batches() -> Iterator[list[dict[str, Any]]]:
        waiting: list[dict[str, Any]] = []
        with open(rows, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                nested = {n: None if row[n] is None else json.dumps(row[n], ensure_ascii=False) for n in names[1:3]}
                waiting.append(row | nested)
                if len(waiting) == 10 * ROWS:
                    yield waiting
                    waiting = []
        yield waiting

    def write(path: Path) -> None:
        with parquet.ParquetWriter(path, schema) as file:
            for batch in batches():
                file.write_table(pyarrow.Table.from_pylist(batch, schema))

    write_atomically(out, write)
