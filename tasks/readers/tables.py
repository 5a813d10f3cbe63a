"""Tab-separated tables with a header, and the tables that say which picture belongs to whom."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..task import DataFault
from .rows import numbered_lines, where


def table(path: Path, columns: Sequence[str], faults: list[DataFault]) -> Iterator[tuple[str, ...]]:
    """The cells of these columns, row by row; a row of another width is appended to ``faults``.

    Raises:
        DataFault: the file cannot be read, or its header has not all of the columns.
    """
    lines = numbered_lines(path)
    header = next(lines, (1, ""))[1].split("\t")
    if missing := [column for column in columns if column not in header]:
        raise DataFault(where(path, 1), f"no column {', '.join(missing)}", f"the header is: {', '.join(header)}")
    wanted = [header.index(column) for column in columns]
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) == len(header):
            yield tuple(cells[at] for at in wanted)
        elif line:
            faults.append(DataFault(where(path, number), f"{len(cells)} columns where the header has {len(header)}"))


def picture_files(
    path: Path, key: str, faults: list[DataFault], notes: Counter[str], only: tuple[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Who is pictured (the column ``key``) and where, of a table whose column ``file`` is relative to its folder.

    A file that is not there is counted in ``notes`` (``pictures_missing``) and left out, and so is a table
    (``picture_tables_missing``): the pictures may lie in a folder of another set that was not copied along.

    Args:
        only: a column and the value that a row must have in it.
    """
    if not path.is_file():
        notes["picture_tables_missing"] += 1
        return
    column, value = only or (key, "")
    for owner, file, found in table(path, (key, "file", column), faults):
        if only and found != value:
            continue
        source = os.path.abspath(path.parent / file)
        if os.path.isfile(source):
            yield owner, source
        else:
            notes["pictures_missing"] += 1
