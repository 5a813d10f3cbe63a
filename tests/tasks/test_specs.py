"""What a spec resolves to, what is said of a wrong one, and how light the readers are to import."""

import json
import subprocess
import sys

import pytest
from magister.tasks.readers import READERS, data_root, read
from magister.tasks.task import DataFault

TWEET = "IMGID:1\nRome\tB-LOC\nrocks\tO\n\n"


def conll_set(folder, tag="B-OTHER"):
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text(TWEET + f"IMGID:2\nX\t{tag}")
    return folder


def test_reader_name_under_the_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MAGISTER_DATA", str(tmp_path))
    assert data_root() == tmp_path
    conll_set(tmp_path / "mner" / "twitter2017", "B-MISC")
    assert read("twitter2017").name == "twitter2017"
    with pytest.raises(DataFault, match=r"twitter2015: no folder .*mner.twitter2015 \(set MAGISTER_DATA"):
        read("twitter2015")


def test_default_root_lies_beside_the_repository(monkeypatch):
    monkeypatch.delenv("MAGISTER_DATA", raising=False)
    assert data_root().parts[-2:] == ("shared", "data")


def test_reader_and_path(tmp_path):
    folder = conll_set(tmp_path / "mine")
    assert len(read(f"twitter2015:{folder}").split("train")) == 2
    assert len(read(f"twitter2017:{folder}").faults) == 1  # OTHER is no label of that set
    with pytest.raises(DataFault, match="no such file or folder"):
        read(f"twitter2015:{tmp_path / 'none'}")


def test_folder_is_recognised_by_its_files(tmp_path):
    assert read(str(conll_set(tmp_path / "a"))).name == "twitter2015"
    assert read(str(conll_set(tmp_path / "b", "B-MISC"))).name == "twitter2017"
    grounded = conll_set(tmp_path / "c")
    (grounded / "boxes.jsonl").write_text(
        json.dumps({"image_id": "1", "width": 2, "height": 2, "objects": [{"name": "Rome"}]}) + "\nnonsense"
    )
    dataset = read(str(grounded))
    assert dataset.name == "gmner"
    assert (dataset.notes["boxes"], len(dataset.faults)) == (1, 1)


def test_unrecognised_folder_says_how_to_name_it(tmp_path):
    (tmp_path / "train.txt").write_text("something else\n")
    with pytest.raises(DataFault, match=r"recognised by its files .*hub:"):
        read(str(tmp_path))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("twiter2017", "did you mean twitter2017 or twitter2015"),
        ("mepav:/x", "did you mean mepave"),
        ("owner/name", "a hub data set is named hub:owner/name"),
        ("zzz", "readers: twitter2015, "),
        ("", "readers: "),
        ("jsonl", "did you mean jsonl"),
        ("/no/such/folder", "readers: "),
        ("none.jsonl", "no such file"),
    ],
)
def test_near_misses(spec, said):
    with pytest.raises(DataFault, match=said):
        read(spec)


def test_columns_belong_to_the_hub(tmp_path):
    with pytest.raises(DataFault, match="for hub: sources only"):
        read(str(tmp_path), columns={"a": "text"})


def test_missing_split_lists_those_there_are(tmp_path):
    with pytest.raises(DataFault, match=r"no split 'test' \(there are: train\)"):
        read(str(conll_set(tmp_path / "a"))).split("test")


def test_every_module_exists_and_import_is_light(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"task": "ner", "schema": {"types": []}}) + '\n{"id": "1", "text": "x"}')
    modules = sorted({reader.module for reader in READERS.values()})
    code = (
        "import importlib, sys\n"
        "from magister.tasks.readers import read\n"
        f"for m in {modules!r}: importlib.import_module('magister.tasks.readers.' + m)\n"
        f"assert len(read({str(path)!r}).split('a')) == 1\n"
        "print(sorted({'torch', 'datasets', 'pyarrow', 'transformers', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
