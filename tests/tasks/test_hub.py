"""Sources that `datasets.load_dataset` opens, on local folders and files."""

import io
import json

import pytest
from magister.tasks.readers import read
from magister.tasks.task import DataFault
from PIL import Image as Pillow

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def jpeg():
    file = io.BytesIO()
    Pillow.new("RGB", (5, 3), "red").save(file, "JPEG")
    return file.getvalue()


def test_parquet_with_class_labels_and_pictures(tmp_path):
    labels = datasets.ClassLabel(names=["O", "B-PER", "I-PER", "B-LOC"])
    features = datasets.Features(
        {
            "words": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(labels),
            "image": datasets.Image(),
            "blip": datasets.Value("string"),
            "url": datasets.Value("string"),
        }
    )
    rows = {
        "words": [["Ann", "Lee", "sings"], ["in"], ["Rome"], ["a", "b"]],
        "ner_tags": [[1, 2, 0], [2], [3], [0]],
        "image": [{"bytes": jpeg(), "path": None}, None, None, None],
        "blip": ["a singer", None, "", "x"],
        "url": ["u"] * 4,
    }
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "validation"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    dataset = read(f"hub:{folder}", columns={"words": "tokens", "blip": "context.caption"})
    assert (dataset.name, dataset.task, list(dataset.splits)) == ("set", "ner", ["train", "valid"])
    assert dataset.schema.labels == ("PER", "LOC")
    first, second, third = dataset.split("valid")
    assert first.id == "valid-1"
    assert first.context == {"caption": "a singer"}
    assert first.gold.entities[0].text == "Ann Lee"
    assert first.images[0].open().size == (5, 3)
    assert first.images[0].source.startswith("data:image/jpeg;")
    assert (second.gold.entities, second.images, second.context) == ((), (), {})
    assert third.gold.entities[0].type == "LOC"
    assert dataset.notes == {"orphan_i_tags.train": 1, "orphan_i_tags.valid": 1, "columns_left_out": 1}
    assert [f.where for f in dataset.faults] == [f"hub:{folder}, {split} row 4" for split in ("train", "valid")]
    assert "2 words but 1 tags" in dataset.faults[0].problem


def test_string_tags_from_json(tmp_path):
    rows = [
        {"id": 7, "tokens": ["Oslo"], "ner_tags": ["B-LOC"]},
        {"id": 8, "tokens": ["x"], "ner_tags": ["FOO"]},
        {"id": 7, "tokens": ["again"], "ner_tags": ["O"]},
    ]
    path = tmp_path / "posts.json"
    path.write_text("\n".join(map(json.dumps, rows)))
    dataset = read(f"hub:{path}")
    assert [e.id for e in dataset.split("train")] == ["7"]
    assert [f.problem for f in dataset.faults] == ["unknown tag 'FOO'", "the id '7' is used twice"]


def test_attributes_from_csv(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text(
        "title,kind,values,picture\n"
        'red shoe,Shoes,"{""Color"": ""red"", ""Size"": null}",a.jpg\n'
        'blue shoe,Shoes,"{""Color"": [""blue"", ""navy""]}",\n'
        "no json,Shoes,what,\n"
        ',Shoes,"{}",\n'
    )
    columns = {"title": "text", "kind": "category", "picture": "image"}
    dataset = read(f"hub:{path}", columns=columns)
    first, second = dataset.split("train")
    assert (first.category, first.asked) == ("Shoes", ("Color", "Size"))
    assert first.gold.values == {"Color": ("red",), "Size": ()}
    assert first.images[0].source == str(tmp_path / "a.jpg")
    assert second.gold.values == {"Color": ("blue", "navy")}
    assert second.images == ()
    color = dataset.schema.attribute("Color", "Shoes")
    assert (color.type, set(color.examples)) == ("free", {"red", "blue", "navy"})  # "navy" stands in no text
    assert dataset.schema.attribute("Size", "Shoes").type == "verbatim"
    assert [f.where for f in dataset.faults] == [f"hub:{path}, train row {n}" for n in (3, 4)]


def test_attributes_from_structs_and_pairs(tmp_path):
    rows = [
        {"text": "red hat", "values": {"Color": "red", "Size": None}},
        {"text": "hat XL", "values": {"Color": None, "Size": "XL"}, "asked": ["Color", "Size"]},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = read(f"hub:{tmp_path}").split("train")
    assert first.asked == ("Color",)  # Arrow cannot tell an absent key from null
    assert second.gold.values == {"Color": (), "Size": ("XL",)}
    pairs = [
        {
            "text": "red hat",
            "values": [{"attribute": "Color", "value": "red"}, {"attribute": "Size", "value": "n/a"}],
        }
    ]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(pairs))
    (example,) = read(f"hub:{path}").split("train")
    assert example.gold.values == {"Color": ("red",), "Size": ()}


def test_what_cannot_be_read_is_said(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,n\nhello,1\n")
    with pytest.raises(DataFault, match=r"neither tokens and ner_tags nor text and values \(columns here: text, n"):
        read(f"hub:{path}")
    with pytest.raises(DataFault, match="no column 'titel'"):
        read(f"hub:{path}", columns={"titel": "text"})
    with pytest.raises(DataFault, match="no field 'txt'"):
        read(f"hub:{path}", columns={"text": "txt"})
    with pytest.raises(DataFault, match="datasets cannot open it"):
        read(f"hub:{tmp_path / 'nowhere'}")
    path = tmp_path / "numbers.json"
    path.write_text(json.dumps({"tokens": ["a"], "ner_tags": [1]}))
    with pytest.raises(DataFault, match="no B- or I- tag"):
        read(f"hub:{path}")
