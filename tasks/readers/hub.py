"""Any source that `datasets.load_dataset` opens: a hub name, a folder or a file of parquet, csv or json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..attributes import ValueType
from ..dataset import Dataset
from ..images import Image
from ..ner import Answer, EntityType, Schema
from ..task import DataFault
from .conll import spans
from .products import Product, alternatives, gather, schema_of
from .rows import Rows

#: What a column can be; ``context.NAME`` besides.
FIELDS = ("id", "text", "tokens", "ner_tags", "category", "asked", "values", "image", "images")
#: Split names as others call them.
SPLITS = {"validation": "valid", "val": "valid", "dev": "valid"}
_BUILDERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json"}


def read(source: str, columns: Mapping[str, str] | None = None) -> Dataset:
    """Read a source; its columns decide the task: ``tokens`` and ``ner_tags``, or ``text`` and ``values``.

    Args:
        source: a folder, a file, or a hub name (``owner/name``, ``owner/name:config``).
        columns: the source's column to one of `FIELDS` or ``context.NAME``; a column that is called like a
            field needs no entry. Columns without a field are left out and counted in ``columns_left_out``.

    ``ner_tags`` are IOB2 strings or a ClassLabel's numbers. ``values`` is a JSON object (as text: null says
    absent; as a struct: Arrow fills null where a row has no such key, so null says not asked, and a column
    ``asked`` lists what is) or a list of ``{"attribute": ..., "value": ...}``. Pictures are
    embedded bytes or paths relative to the source.

    Raises:
        DataFault: the source cannot be opened, or its columns are those of no task.
    """
    loaded = _load(source)
    first = next(iter(loaded.values()))
    fields = _fields(source, list(first.features), columns or {})
    used = list(fields.values())
    splits = {SPLITS.get(split, split): _undecoded(table.select_columns(used)) for split, table in loaded.items()}
    if "ner_tags" in fields and "tokens" in fields:
        rows = _read_entities(source, splits, fields)
    elif "text" in fields and "values" in fields:
        rows = _read_attributes(source, splits, fields)
    else:
        remedy = f"columns here: {', '.join(first.features)}; map them to {', '.join(FIELDS)}"
        raise DataFault(f"hub:{source}", "neither tokens and ner_tags nor text and values", remedy)
    rows.notes["columns_left_out"] += len(first.features) - len(used)
    return rows.dataset()


def _name(source: str) -> str:
    return Path(source).stem if Path(source).exists() else source


def _load(source: str) -> Any:
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise DataFault(f"hub:{source}", "needs the package datasets", "pip install 'magister[train]'") from None
    path = Path(source)
    try:
        if path.is_file() and path.suffix in _BUILDERS:
            more = {"sep": "\t"} if path.suffix == ".tsv" else {}
            return load_dataset(_BUILDERS[path.suffix], data_files=source, **more)
        if path.exists():
            return load_dataset(source)
        repository, _, config = source.partition(":")
        return load_dataset(repository, config or None)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise DataFault(f"hub:{source}", f"datasets cannot open it: {said[0]}") from error


def _fields(source: str, available: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Field to column, from the caller's map and from the columns that are called like a field."""
    for column, field in columns.items():
        if column not in available:
            raise DataFault(f"hub:{source}", f"no column {column!r}", f"there are: {', '.join(available)}")
        if field not in FIELDS and not field.startswith("context."):
            raise DataFault(f"hub:{source}", f"no field {field!r}", f"there are: {', '.join(FIELDS)}, context.NAME")
    fields: dict[str, str] = {field: column for column, field in columns.items()}
    for column in available:
        if column not in columns and (column in FIELDS or column.startswith("context.")):
            fields.setdefault(column, column)
    return fields


def _undecoded(table: Any) -> Any:
    """Pictures as bytes and path instead of decoded: they are opened late, like all others."""
    from datasets import Image as ImageFeature
    from datasets import List

    for column, feature in table.features.items():
        if isinstance(feature, ImageFeature):
            table = table.cast_column(column, ImageFeature(decode=False))
        elif isinstance(getattr(feature, "feature", None), ImageFeature):
            table = table.cast_column(column, List(ImageFeature(decode=False)))
    return table


def _rows(
    source: str, splits: Mapping[str, Any], fields: Mapping[str, str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Split, place and fields of every row; a row without an id gets ``<split>-<row>``, counted from 1."""
    for split, table in splits.items():
        for number, row in enumerate(table, 1):
            found = {field: row[column] for field, column in fields.items()}
            identity = found.get("id")
            found["id"] = f"{split}-{number}" if identity is None else str(identity)
            yield split, f"hub:{source}, {split} row {number}", found


def _read_entities(source: str, splits: Mapping[str, Any], fields: Mapping[str, str]) -> Rows:
    names = _tag_names(next(iter(splits.values())).features[fields["ner_tags"]])
    tags = names or sorted({str(tag) for _, _, row in _rows(source, splits, fields) for tag in row["ner_tags"] or ()})
    labels = list(dict.fromkeys(tag[2:] for tag in tags if tag[:2] in ("B-", "I-")))
    if not labels:
        remedy = "tags are IOB2 strings, or numbers with a ClassLabel's names"
        raise DataFault(f"hub:{source}", "no B- or I- tag in ner_tags", remedy)
    guideline = "Every name of the type {}."
    types = (EntityType(name=n, title=n.lower(), guideline=guideline.format(n)) for n in labels)
    rows = Rows(_name(source), "ner", Schema(types=tuple(types)), splits)
    for split, place, row in _rows(source, splits, fields):
        with rows.row(place):
            words = tuple(str(word) for word in row["tokens"] or ())
            try:
                entities, orphans = spans(words, [_tag(t, names) for t in row["ner_tags"] or ()], labels)
            except ValueError as error:
                raise DataFault(place, str(error)) from None
            rows.add(
                split,
                place,
                id=row["id"],
                text=" ".join(words),
                words=words,
                images=_images(source, row),
                context=_context(row),
                gold=Answer(entities=entities),
            )
            rows.notes[f"orphan_i_tags.{split}"] += orphans
    return rows


def _tag_names(feature: Any) -> list[str]:
    """A ClassLabel's names, also where it stands in a list; empty for strings and plain numbers."""
    return list(getattr(getattr(feature, "feature", feature), "names", None) or ())


def _tag(tag: Any, names: list[str]) -> str:
    if isinstance(tag, int) and 0 <= tag < len(names):
        return names[tag]
    if not isinstance(tag, str):
        raise ValueError(f"the tag {tag!r} has no name")
    return tag


def _read_attributes(source: str, splits: Mapping[str, Any], fields: Mapping[str, str]) -> Rows:
    products: list[Product] = []
    faults: list[DataFault] = []
    for split, place, row in _rows(source, splits, fields):
        try:
            asked: dict[str, tuple[str, ...]] = dict.fromkeys(row.get("asked") or (), ())
            values = asked | _values(row["values"])
        except (ValueError, TypeError, KeyError) as error:
            faults.append(DataFault(place, f"values cannot be read: {error}", "give a JSON object"))
            continue
        text, category = str(row["text"] or ""), str(row.get("category") or "")
        images, context = _images(source, row), _context(row)
        products.append(Product(split, place, row["id"], text, category, values, images, context))
    kinds: dict[str, ValueType] = {}
    for product in products:
        for attribute, found in product.values.items():
            kinds.setdefault(attribute, "verbatim")
            if any(value not in product.text for value in found):
                kinds[attribute] = "free"
    schema = schema_of(products, kinds, lambda attribute, category: f"{attribute} of the product.")
    return gather(_name(source), products, schema, splits, faults)


def _values(given: Any) -> dict[str, tuple[str, ...]]:
    """Attribute to values out of JSON text, a struct, or a list of attribute-value pairs."""
    if isinstance(given, str):
        pairs = list(json.loads(given).items())
    elif isinstance(given, dict):
        pairs = [(name, value) for name, value in given.items() if value is not None]
    else:
        pairs = [(pair["attribute"], pair["value"]) for pair in given or ()]
    found: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        several = value if isinstance(value, list) else () if value is None else (value,)
        found[name] = alternatives((*found.get(name, ()), *(str(one) for one in several)))
    return found


def _images(source: str, row: Mapping[str, Any]) -> tuple[Image, ...]:
    """References to a row's pictures: embedded bytes, a data URL, or a path relative to the source."""
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    found = []
    for given in (row.get("image"), *(row.get("images") or ())):
        embedded = given.get("bytes") if isinstance(given, dict) else None
        path = given.get("path") if isinstance(given, dict) else given
        if embedded is not None:
            found.append(Image.of_bytes(embedded, example=row["id"]))
        elif path:
            place = path if path.startswith("data:") else str(folder / path)
            found.append(Image(source=place, example=row["id"]))
    return tuple(found)


def _context(row: Mapping[str, Any]) -> dict[str, str]:
    """The columns that are called ``context.NAME``, where they say something."""
    named = {field.removeprefix("context."): value for field, value in row.items() if field.startswith("context.")}
    return {name: str(value) for name, value in named.items() if value}
