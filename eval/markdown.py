"""The little Markdown that reports need: pipe tables and escaping."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table; cells are escaped."""
    lines = [[escape(cell) for cell in line] for line in (header, *rows)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|" + " --- |" * len(header), *text[1:]]) + "\n"


def escape(text: str) -> str:
    """Text for a cell or a line: no line break, no column border, no tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """Text as a code span on one line; a backtick in it becomes an apostrophe."""
    return "`" + " ".join(text.split()).replace("`", "'") + "`"
