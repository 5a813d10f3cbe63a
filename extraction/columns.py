"""Which columns of somebody's catalogue hold what a `Product` is made of: named, or guessed and said."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..tasks.images import Image
from ..tasks.readers.rows import reason
from ..tasks.task import DataFault
from .product import Product

#: What a field's column may be called where none is named, in small letters; the first that is there is taken.
GUESSES: dict[str, tuple[str, ...]] = {
    "title": ("title", "name", "product_name", "product_title"),
    "text": ("text", "product_text", "content"),
    "bullets": ("bullets", "bullet_points", "features", "highlights"),
    "description": ("description", "product_description"),
    "table": ("table", "specifications", "specs"),
    "id": ("id", "product_id", "sku", "asin", "gtin"),
    "category": ("category", "product_category", "product_type"),
    "images": ("images", "image", "image_path", "pictures"),
    "context": ("context",),
}
#: The fields that together are the page.
PAGE = ("title", "text", "bullets", "description", "table")
#: Between several pictures, or bullets, in one cell.
SEPARATOR = "|"


@dataclass(frozen=True)
class Named:
    """Columns named by the user; an empty one is guessed. With ``text`` no other column becomes part of the page."""

    text: str = ""
    id: str = ""
    category: str = ""
    images: str = ""

    def columns(self, there: Sequence[str], where: str) -> dict[str, str]:
        """The column of each field, out of those that are ``there``.

        Raises:
            DataFault: a column that was named is not there, or none is known to hold a text.
        """
        if twice := [name for n, name in enumerate(there) if name in there[:n]]:
            raise DataFault(where, f"two columns are called {twice[0]!r}", "rename one")
        found: dict[str, str] = {}
        folded = {"_".join(name.lower().split()): name for name in reversed(there)}
        for field, guesses in GUESSES.items():
            named = getattr(self, field, "")
            if named and named not in there:
                raise DataFault(where, f"there is no column {named!r}", f"there are: {', '.join(there)}")
            guessed = next((folded[guess] for guess in guesses if guess in folded), "")
            if named or (guessed and not (self.text and field in PAGE)):
                found[field] = named or guessed
        if not found.keys() & set(PAGE):
            remedy = f"name it with --text-column, one of: {', '.join(there)}"
            raise DataFault(where, "no column is known to hold the product's text", remedy)
        return found


def spoken(columns: Mapping[str, str], there: Sequence[str]) -> str:
    """Which columns are read as what, and which are not read, in words."""
    read = ", ".join(field if field == column else f"{field} from {column!r}" for field, column in columns.items())
    unread = [name for name in there if name not in columns.values()]
    numbered = "" if "id" in columns else "; no column of ids: products are numbered from 0"
    return f"read: {read}{numbered}" + (f"; not read: {', '.join(unread)}" if unread else "")


def product(row: Mapping[str, Any], columns: Mapping[str, str], folder: Path, where: str) -> Product:
    """The product of a row. Pictures are paths relative to ``folder``, data URLs, or ``{"bytes": ...}``.

    Raises:
        DataFault: a cell is not what its field needs, or there is no text.
    """
    cells = {field: cell for field, column in columns.items() if not _blank(cell := row.get(column))}
    fields: dict[str, Any] = {}
    for field, cell in cells.items():
        try:
            fields[field] = _READ.get(field, _text)(cell)
        except ValueError as error:
            raise DataFault(where, f"{columns[field]}: {error}") from None
    fields["images"] = tuple(_source(image, folder) for image in fields.get("images", ()))
    try:
        made = Product(**fields)
    except ValidationError as error:
        raise DataFault(where, reason(error)) from None
    if not made.page.text:
        raise DataFault(where, "it has no text", f"read for it: {', '.join(columns[f] for f in PAGE if f in columns)}")
    return made


def _blank(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _text(cell: Any) -> str:
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise ValueError(f"a text is needed, this is a {type(cell).__name__}")
    text = str(cell)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not UTF-8 (save the file as UTF-8)") from None
    return text


def _texts(cell: Any) -> tuple[str, ...]:
    if isinstance(cell, list):
        return tuple(_text(one) for one in cell if not _blank(one))
    return tuple(one.strip() for one in _text(cell).split(SEPARATOR) if one.strip())


def _table(cell: Any) -> dict[str, str]:
    """An object, pairs of name and value (as Parquet has a map), or either written as JSON."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise ValueError("an object of names and values is needed") from None
    if isinstance(cell, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in cell):
        cell = dict(cell)
    if not isinstance(cell, dict):
        raise ValueError("an object of names and values is needed")
    return {_text(name): _text(value) for name, value in cell.items() if not _blank(value)}


def _images(cell: Any) -> tuple[str, ...]:
    if isinstance(cell, str) and cell.startswith("data:"):
        return (cell,)
    if not isinstance(cell, list):
        cell = [cell] if isinstance(cell, dict) else list(_texts(cell))
    return tuple(_image(one) for one in cell if not _blank(one))


def _image(cell: Any) -> str:
    """A picture's source; ``{"bytes", "path"}`` is how `datasets` keeps one in Parquet."""
    if isinstance(cell, dict):
        data, cell = cell.get("bytes"), cell.get("path")
        if isinstance(data, bytes):
            return Image.of_bytes(data).source
    return _text(cell)


def _source(image: str, folder: Path) -> str:
    return image if image.startswith("data:") else os.path.join(folder, image)


_READ = {"bullets": _texts, "images": _images, "table": _table, "context": _table}
