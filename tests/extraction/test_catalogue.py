"""Catalogues: JSON lines, CSV and Parquet give the same products; bad rows are faults with their place."""

from __future__ import annotations

import base64
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.extraction import Product
from magister.extraction.catalogue import of_lines, read
from magister.extraction.columns import Named
from magister.tasks.task import DataFault

ROWS = [
    {"sku": "a", "Product Name": "Mug, white", "description": 'says "hi"\nand more', "category": "mugs", "price": "3"},
    {"sku": "b", "Product Name": "Lamp", "description": "", "category": "lamps", "price": "9"},
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            made = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            made.writeheader()
            made.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.tsv", "p.parquet"])
def test_the_same_products_in_every_form(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    products = list(read(written(tmp_path / name, ROWS), say=said.append))
    assert products == [
        Product(id="a", title="Mug, white", description='says "hi"\nand more', category="mugs"),
        Product(id="b", title="Lamp", category="lamps"),
    ]
    (line,) = said
    assert "title from 'Product Name'" in line
    assert "id from 'sku'" in line
    assert "not read: price" in line


def test_columns_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "p.csv", ROWS)
    (first, _) = read(path, Named(text="description", id="Product Name", category="price"))
    assert first == Product(id="Mug, white", text='says "hi"\nand more', category="3")
    with pytest.raises(DataFault, match=r"no column 'titel' \(there are: sku, Product Name"):
        list(read(path, Named(text="titel")))
    with pytest.raises(DataFault, match=r"no column is known .*--text-column, one of: a, b"):
        list(read(written(tmp_path / "q.csv", [{"a": "1", "b": "2"}])))
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(DataFault, match="two columns are called 'a'"):
        list(read(tmp_path / "twice.csv"))


def test_a_row_number_says_that_there_are_no_ids(tmp_path: Path) -> None:
    said: list[str] = []
    assert [p.id for p in read(written(tmp_path / "p.jsonl", [{"text": "x"}]), say=said.append)] == [""]
    assert "products are numbered from 0" in said[0]


def test_bad_lines_are_faults_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = [
        b'{"text": "one"}', b"{broken", b"", b"[1]", b'{"title": "four", "images": 3.5}', b'{"text": "\xff"}',
        b'{"price": 1}', b'{"text": true}', b'{"text": "  "}', b'{"title": "nine", "id": 7}',
        b'{"text": "x", "context": {"title": "y"}}',
    ]  # fmt: skip
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    found = list(read(path))
    assert [p.page.text for p in found if isinstance(p, Product)] == ["one", "four", "nine"]
    faults = [str(p) for p in found if isinstance(p, DataFault)]
    for number, says in ((2, "not JSON"), (4, "an object is needed"), (6, "not JSON"), (7, "--text-column"),
                         (8, "text: a text is needed"), (9, "it has no text"), (11, "belongs into the field")):  # fmt: skip # noqa: E501
        assert any(f"p.jsonl.gz, line {number}: " in fault and says in fault for fault in faults), (number, faults)
    assert len(faults) == 7


def test_bad_rows_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b'id;text\n1;one\n2;two;2\n3;"thr"ee\n4;f\xfcnf\n\n5;"fi\nve"\n6\n')
    said: list[str] = []
    found = list(read(path, say=said.append))
    assert "separated by ';'" in said[0]
    assert [p.text for p in found if isinstance(p, Product)] == ["one", "fi\nve"]
    faults = [str(p) for p in found if isinstance(p, DataFault)]
    for number, says in ((3, "3 cells, the header has 2"), (4, "no row of CSV"), (5, "not UTF-8"), (9, "has 1 cells")):
        assert any(f"line {number}: " in fault and says in fault for fault in faults), (number, faults)


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match="there is no such file"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "p.xlsx").write_text("")
    with pytest.raises(DataFault, match=r"ends in \.jsonl, \.ndjson, \.csv"):
        read(tmp_path / "p.xlsx")
    (tmp_path / "p.parquet").write_text("no parquet")
    pytest.importorskip("pyarrow")
    with pytest.raises(DataFault, match="cannot be read as Parquet"):
        list(read(tmp_path / "p.parquet"))


def test_pictures_bullets_and_tables(tmp_path: Path) -> None:
    import io

    from PIL import Image as Pillow

    made = io.BytesIO()
    Pillow.new("RGB", (2, 2)).save(made, "PNG")
    url = "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()
    rows = [{"text": "x", "images": [{"bytes": made.getvalue(), "path": None}], "bullets": ["a", "b"]}]
    (product,) = read(written(tmp_path / "p.parquet", rows))
    assert isinstance(product, Product)
    assert (product.images, product.bullets) == ((url,), ("a", "b"))
    row = {"text": "x", "image": f"a.png|{tmp_path}/b.png", "bullets": "one | two", "table": '{"Color": "red", "n": 2}'}
    (product,) = read(written(tmp_path / "p.csv", [row]))
    assert isinstance(product, Product)
    assert product.images == (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert product.page.text == "x\none\ntwo\nColor: red\nn: 2"
    (product,) = read(written(tmp_path / "q.csv", [{"text": "x", "image": url}]))
    assert isinstance(product, Product)
    assert product.images == (url,)


FIELD = st.text("ab :\n[]", max_size=6)


@given(FIELD, FIELD, st.lists(FIELD, max_size=3), FIELD, st.dictionaries(FIELD, FIELD, max_size=3))
def test_every_field_is_found_again_in_its_page(title: str, text: str, bullets: Any, last: str, table: Any) -> None:
    product = Product(title=title, text=text, bullets=bullets, description=last, table=table)
    said = {"title": title, "text": text, "description": last}
    said |= {f"bullets[{n}]": bullet for n, bullet in enumerate(bullets)}
    said |= {f"table.{name}": value for name, value in table.items()}
    page = product.page
    assert {part.name: page.text[part.start : part.end] for part in page.parts} == {
        name: value for name, value in said.items() if value.strip()
    }
    for part in page.parts:
        assert page.locate(part.start, part.end) == (part.name, 0, part.end - part.start)
    assert page.locate(0, len(page.text) + 1)[0] == "page"


@given(st.binary(max_size=60))
def test_no_bytes_make_json_lines_raise(line: bytes) -> None:
    for found in of_lines([line, b'{"text": "x"}'], "f", Path()):
        assert isinstance(found, Product | DataFault)
