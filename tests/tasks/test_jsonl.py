"""Our JSON lines: exact round trip, and bad lines as named faults."""

import json
import os
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.tasks import attributes, ner
from magister.tasks.dataset import Dataset
from magister.tasks.images import Image
from magister.tasks.readers import jsonl, read
from magister.tasks.task import DataFault

words = st.text(min_size=1, max_size=12).filter(str.strip)  # any character, line separators among them
texts = st.text(min_size=1, max_size=40).filter(str.strip)
names = st.text(string.ascii_letters + "._- é", min_size=1, max_size=10).map(lambda n: f"x{n}.jpg")
sources = st.one_of(names.map(lambda n: f"/pictures/of/{n}"), names.map(lambda n: f"data:image/png;base64,{n}"))
images = st.lists(st.builds(Image, source=sources, example=st.sampled_from(["", "other"])), max_size=2).map(tuple)
contexts = st.dictionaries(texts, texts, max_size=2)


@st.composite
def entities(draw, text):
    found = []
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        found.append(ner.Entity(text=text[start:end], type=draw(st.sampled_from(["PER", "LOC"])), start=start, end=end))
    return ner.Answer(entities=tuple(found))


@st.composite
def posts(draw, identity):
    own = draw(st.lists(words, max_size=4).map(tuple))
    text = " ".join(own) if own else draw(texts)
    gold = draw(st.none() | entities(text))
    own_images = draw(images)
    pictures = (*own_images, Image(source="/p/a.jpg", example=identity)) if draw(st.booleans()) else own_images
    return ner.Example(id=identity, text=text, words=own, images=pictures, context=draw(contexts), gold=gold)


@st.composite
def products(draw, identity):
    asked = draw(st.lists(st.sampled_from(["Color", "Size"]), unique=True).map(tuple))
    values = {name: tuple(draw(st.lists(texts, max_size=2))) for name in asked}
    values |= {"Kind": (draw(st.sampled_from(["a", "b"])),)} if draw(st.booleans()) else {}
    gold = draw(st.sampled_from([None, attributes.Answer(values=values)]))
    category = draw(st.sampled_from(["", "Hats"]))
    return attributes.Example(
        id=identity, text=draw(texts), category=category, asked=asked, images=draw(images), gold=gold
    )


NER = ner.Schema(types=tuple(ner.EntityType(name=n, title=n, guideline=f"{n}: say.") for n in ("PER", "LOC")))
ATTRIBUTES = attributes.Schema(
    attributes=(
        attributes.Attribute(name="Color", examples=("red",)),
        attributes.Attribute(name="Size", type="free", description="How large\u2028it is."),
        attributes.Attribute(name="Kind", type="one_of", options=("a", "b")),
    )
)


@st.composite
def data_sets(draw):
    task, schema, one = draw(st.sampled_from([("ner", NER, posts), ("attributes", ATTRIBUTES, products)]))
    ids = iter(draw(st.lists(st.text(max_size=6), min_size=6, max_size=6, unique=True)))
    splits = {
        split: tuple(draw(one(next(ids))) for _ in range(draw(st.integers(0, 3)))) for split in ("train", "test 1")
    }
    return Dataset(draw(texts), task, schema, splits, notes={"orphans": 3})


@given(data_sets())
def test_round_trip_is_exact(dataset):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sub" / "all.jsonl"
        jsonl.write(dataset, path)
        again = read(str(path))
        assert again == dataset
        assert list(again.splits) == list(dataset.splits)
        assert [p.name for p in path.parent.iterdir()] == ["all.jsonl"]


HEADER = {"task": "ner", "schema": {"types": [{"name": "PER", "title": "person", "guideline": "People."}]}}


def lines(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


def test_bad_lines_become_named_faults_and_the_rest_is_read(tmp_path):
    gold = {"entities": [{"text": "Ann", "type": "PER", "start": 0, "end": 3}]}
    rows = [
        HEADER,
        {"id": "1", "text": "Ann sings", "gold": gold},
        "{not json",
        {"id": "2", "text": "x", "colour": "red"},
        {"id": "1", "text": "again"},
        {"id": "3", "text": ""},
        {"id": "4", "text": "  "},
        {"id": "5", "text": "Bob sings", "gold": gold},
        {
            "id": "6",
            "text": "Ann",
            "gold": {"entities": [{"text": "Ann", "type": "LOC", "start": 0, "end": 3}]},
        },
        ["no object"],
        {"id": "7", "text": "x", "split": 3},
        {"id": "8", "text": "x", "images": [{"path": "a.jpg"}]},
        "",
        {"id": "9", "text": "good", "split": "valid"},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text(lines(*rows), encoding="utf-8")
    dataset = read(str(path))
    assert {split: [e.id for e in examples] for split, examples in dataset.splits.items()} == {
        "train": ["1"],
        "valid": ["9"],
    }
    expected = [
        (3, "not JSON"),
        (4, "colour"),
        (5, "the id '1' is used twice"),
        (6, "text: "),
        (7, "example 4: the text is empty"),
        (8, "gold entity 'Ann' is not the text at its offsets"),
        (9, "unknown label 'LOC'"),
        (10, "not a JSON object"),
        (11, "split is no name"),
        (12, "images.0"),
    ]
    for fault, (line, part) in zip(dataset.faults, expected, strict=True):
        assert fault.where == f"{path}, line {line}"
        assert part in fault.problem


def test_attribute_faults(tmp_path):
    header = {
        "task": "attributes",
        "schema": {"attributes": [{"name": "Kind", "type": "one_of", "options": ["a"]}]},
    }
    rows = [
        header,
        {"id": "1", "text": "x", "asked": ["Kind"], "gold": {"values": {"Kind": ["a"]}}},
        {"id": "2", "text": "x", "asked": ["Colour"]},
        {"id": "3", "text": "x", "asked": ["Kind"], "gold": {"values": {"Kind": ["b"]}}},
    ]
    (tmp_path / "all.jsonl").write_text(lines(*rows))
    dataset = read(str(tmp_path / "all.jsonl"))
    assert [e.id for e in dataset.split("all")] == ["1"]
    assert "unknown attribute 'Colour'" in str(dataset.faults[0])
    assert "Kind 'b' is none of its options (they are: a)" in str(dataset.faults[1])


def test_folder_with_schema_beside_and_relative_pictures(tmp_path, monkeypatch):
    (tmp_path / "schema.json").write_text(json.dumps({"name": "mine", **HEADER}))
    (tmp_path / "train.jsonl").write_text(lines({"id": "1", "text": "a", "images": ["pics/a.jpg"]}))
    (tmp_path / "test.jsonl").write_text(lines({"id": "2", "text": "b"}))
    dataset = read(str(tmp_path))
    assert dataset.name == "mine"
    assert {split: len(examples) for split, examples in dataset.splits.items()} == {"train": 1, "test": 1}
    assert dataset.split("train")[0].images == (Image(source=str(tmp_path / "pics" / "a.jpg"), example="1"),)
    monkeypatch.chdir(tmp_path)
    assert read("train.jsonl").split("train") == dataset.split("train")


def test_written_file_can_move_with_its_pictures(tmp_path):
    example = ner.Example(id="1", text="a", images=(Image(source=str(tmp_path / "a" / "p.jpg"), example="1"),))
    jsonl.write(Dataset("d", "ner", NER, {"train": (example,)}), tmp_path / "a" / "d.jsonl")
    assert json.loads((tmp_path / "a" / "d.jsonl").read_text().splitlines()[1])["images"] == ["p.jpg"]
    os.rename(tmp_path / "a", tmp_path / "b")
    (moved,) = jsonl.read(tmp_path / "b" / "d.jsonl").split("train")
    assert moved.images[0].source == str(tmp_path / "b" / "p.jpg")


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ({"id": "1", "text": "x"}, "no schema there and no schema.json beside it"),
        ({"schema": {}}, "not a header: task: Field required"),
        ({"task": "ner", "schema": {"types": [{"name": "PER"}]}}, "no schema of the task ner"),
        ({"task": "nerr", "schema": {}}, "unknown task 'nerr'"),
        ({**HEADER, "version": 2}, "version"),
        ("", "no schema there"),
    ],
)
def test_bad_headers(tmp_path, first, problem):
    (tmp_path / "all.jsonl").write_text(lines(first))
    with pytest.raises(DataFault, match=problem):
        read(str(tmp_path / "all.jsonl"))


def test_files_of_one_folder_share_a_schema(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(HEADER))
    (tmp_path / "b.jsonl").write_text(lines({"task": "ner", "schema": {"types": []}}))
    with pytest.raises(DataFault, match=r"b\.jsonl: another task or schema than a\.jsonl"):
        read(f"jsonl:{tmp_path}")
