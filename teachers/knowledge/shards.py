"""Rows as Parquet shards in ``data/``: of bounded size, replaced together, opened by pyarrow and `datasets`.

One shard is ``train.parquet``, several are ``train-00000-of-00003.parquet`` and so on. They are written beside their
places and then moved. Each says which build it belongs to, so that shards of two builds (the machine stopped between
two moves) are found and refused, never read as one corpus.
"""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ...tasks.task import DataFault
from .columns import COLUMNS, NAMES, NEEDED, STATUSES

FOLDER = Path("data")
#: What `datasets` is to read, as seen from the corpus folder.
PATTERN = "data/train*.parquet"
#: A shard is closed once it is larger; a few megabytes more than this is possible.
SHARD_BYTES = 256 * 1024**2

_BUILD_AGAIN = "the command that made it builds it again from its ledger, asking nothing"
_ROWS = 2_000
_BUILD = b"magister.build"


def write(folder: Path, rows: Iterable[Mapping[str, Any]], shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write the rows as the shards of a corpus folder, in place of those that are there; returns their paths.

    Raises:
        ValueError: a row with an unknown column, or without a reason that it needs.
        OSError: they could not be written; what was there before is whole.
    """
    data = Path(folder) / FOLDER
    data.mkdir(parents=True, exist_ok=True)
    build = secrets.token_hex(8)
    parts: list[Path] = []
    try:
        _write_parts(data, build, iter(rows), shard_bytes, parts)
        count = len(parts)
        names = ["train.parquet"] if count == 1 else [f"train-{n:05d}-of-{count:05d}.parquet" for n in range(count)]
        for part, name in zip(parts, names, strict=True):
            os.replace(part, data / name)
        for old in set(data.glob("train*.parquet")) - {data / name for name in names}:
            old.unlink()
    except OSError as error:
        raise OSError(error.errno, _NOT_WRITTEN.format(error.strerror or error), str(data)) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return [data / name for name in names]


_NOT_WRITTEN = "could not be written ({}); what was there before is whole"


def write_file(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows as one Parquet file."""
    rows = iter(rows)
    _write_part(path, _schema(secrets.token_hex(8)), list(islice(rows, _ROWS)), rows, math.inf)


def _write_parts(
    data: Path, build: str, rows: Iterator[Mapping[str, Any]], shard_bytes: float, parts: list[Path]
) -> None:
    """Fill ``parts`` with the shards to be, each on the disk; one at least, also of no rows."""
    schema = _schema(build)
    batch = list(islice(rows, _ROWS))
    while batch or not parts:
        parts.append(data / f".{build}-{len(parts)}.part")
        batch = _write_part(parts[-1], schema, batch, rows, shard_bytes)


def _write_part(
    path: Path, schema: Any, batch: list[Mapping[str, Any]], rows: Iterator[Mapping[str, Any]], limit: float
) -> list[Mapping[str, Any]]:
    """Write the batch and those that follow until the file is over its limit; returns the first that is left."""
    arrow, parquet = pyarrow()
    with open(path, "wb") as file:
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            begun = file.tell()  # the magic bytes: a shard holds one batch at least, whatever the limit
            while batch and (file.tell() == begun or file.tell() < limit):
                for row in batch:
                    check(row)
                writer.write_table(arrow.Table.from_pylist([_clean(r) for r in batch], schema=schema))
                batch = list(islice(rows, _ROWS))
        file.flush()
        os.fsync(file.fileno())
    return batch


def _schema(build: str) -> Any:
    arrow, _ = pyarrow()
    fields = [arrow.field(name, _arrow_type(arrow, kind)) for name, kind, _ in COLUMNS]
    return arrow.schema(fields, metadata={_BUILD: build.encode()})


def check(row: Mapping[str, Any]) -> None:
    """Refuse a row that is none: a `ValueError` that says which and why."""
    if unknown := row.keys() - set(NAMES):
        raise ValueError(f"unknown columns of a corpus row: {', '.join(sorted(unknown))}")
    status, reason = row["status"], row.get("reason")
    if status not in STATUSES or (status == "kept") != (reason is None):
        raise ValueError(f"row {row['id']}: status {status} with the reason {reason}")


def paths(folder: Path) -> list[Path]:
    """The shards of a corpus in order; a `DataFault` if there are none."""
    found = sorted((Path(folder) / FOLDER).glob("train*.parquet"))
    if not found:
        problem = f"is no corpus: it has no {PATTERN}"
        raise DataFault(str(folder), problem, "make one with generate or corpus import")
    said = re.fullmatch(r"train-\d+-of-(\d+)", found[0].stem)
    if said and int(said[1]) != len(found):
        raise DataFault(str(folder), f"{len(found)} of its {int(said[1])} shards are here", _BUILD_AGAIN)
    return found


def read(folder: Path, columns: Sequence[str] = NAMES) -> Iterator[dict[str, Any]]:
    """The rows in their order, with these columns; one that an older corpus lacks is null.

    Raises:
        DataFault: the folder is no corpus, cannot be read, or holds shards of two builds.
    """
    _, parquet = pyarrow()
    builds = set()
    files = paths(folder)
    for path in files:
        try:
            with parquet.ParquetFile(path) as file:
                there = file.schema_arrow
                if missing := set(NEEDED) - set(there.names):
                    names = ", ".join(sorted(missing))
                    raise DataFault(str(path), f"is no corpus: it lacks the columns {names}")
                builds.add((there.metadata or {}).get(_BUILD))
        except (OSError, ValueError) as error:
            if isinstance(error, DataFault):
                raise
            raise DataFault(str(path), f"cannot be read: {error}", "build it again from its ledger") from None
    if len(builds) > 1:
        problem = f"{len(files)} shards of {len(builds)} builds lie here: a build was stopped in its last moment"
        raise DataFault(str(folder), problem, _BUILD_AGAIN)
    null = dict.fromkeys(columns)
    for path in files:
        with parquet.ParquetFile(path) as file:
            known = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS, columns=known):
                for row in batch.to_pylist():
                    yield null | row


def pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, or an `ImportError` that says what to install."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            "a corpus needs pyarrow, which comes with the train extra: pip install 'magister[train]'"
        ) from None
    return pyarrow, pyarrow.parquet


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside the place, then move: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, _NOT_WRITTEN.format(error.strerror or error), str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def _arrow_type(arrow: Any, kind: str) -> Any:
    kinds = {
        "string": arrow.string(),
        "strings": arrow.list_(arrow.string()),
        "int32": arrow.int32(),
        "float": arrow.float32(),
        "bool": arrow.bool_(),
    }
    return kinds[kind]


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Half characters (lone surrogates) cannot be stored as UTF-8; they become the replacement character."""
    return {
        name: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value
        for name, value in row.items()
    }
