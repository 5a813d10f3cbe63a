"""MNRE, with the pair given and joint: counts of the READMEs, what an example holds, bad lines."""

import ast
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from magister.tasks.readers import READERS, data_root, mnre, mnre_joint, read
from magister.tasks.readers.mnre import LONGEST_LINE, SCHEMA
from magister.tasks.task import DataFault


def folder_of(name):
    folder = data_root() / READERS[name].folder
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}; set MAGISTER_DATA")
    return folder


@cache
def public(name):
    folder_of(name)
    return read(name)


def test_schema_has_the_labels_of_the_set():
    labels = json.loads((folder_of("mnre") / "ours_rel2id.json").read_text())
    assert {*SCHEMA.labels, SCHEMA.none} == set(labels)
    assert len(SCHEMA.labels) == len({relation.title for relation in SCHEMA.relations}) == 22
    for relation in SCHEMA.relations:
        kinds = {"person": "per", "organisation": "org", "location": "loc", "other": "misc"}
        assert relation.name.startswith(f"/{kinds[relation.head]}/{kinds[relation.tail]}/")
        assert 40 < len(relation.guideline) < 240
        assert relation.guideline.endswith(".")


@pytest.mark.parametrize(
    ("split", "pairs", "tweets", "none", "pictures"),
    [("train", 12247, 7356, 7744, 32), ("valid", 1624, 931, 1000, 2), ("test", 1369, 794, 852, 9)],
)
def test_counts_of_the_readme(split, pairs, tweets, none, pictures):
    dataset = public("mnre")
    examples = dataset.split(split)
    assert len(examples) == pairs
    assert sum(example.gold.relation == "None" for example in examples) == none
    path = folder_of("mnre") / f"mnre_{'val' if split == 'valid' else split}.txt"
    assert len(set(re.findall(r"'img_id': '([^']+)'", path.read_text(encoding="utf-8")))) == tweets
    assert len({example.text for example in examples}) == len(public("mnre_joint").split(split))
    assert len({image.source for example in examples for image in example.images}) == pictures
    assert dataset.faults == ()
    assert not any(note.startswith("repeated") for note in dataset.notes)


def test_relations_of_the_readme():
    found = Counter(example.gold.relation for example in public("mnre").split("train"))
    assert (found["/per/per/peer"], found["/per/org/member_of"], found["/per/misc/race"]) == (960, 872, 6)
    assert len(found) == 23


def test_types_of_the_mentions_do_not_tell_the_label():
    examples = [example for split in public("mnre").splits.values() for example in split]
    assert {mention.type for example in examples for mention in example.pair} == {""}
    joint = [triple for split in public("mnre_joint").splits.values() for e in split for triple in e.gold.triples]
    assert {mention.type for triple in joint for mention in (triple.head, triple.tail)} == {""}


def test_an_example_is_its_line():
    path = folder_of("mnre") / "mnre_test.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    examples = public("mnre").split("test")
    for number in range(0, len(lines), 50):
        row, example = ast.literal_eval(lines[number]), examples[number]
        assert example.id == f"test-{number + 1}"
        assert [mention.text for mention in example.pair] == [row["h"]["name"], row["t"]["name"]]
        assert (list(example.words), example.gold.relation) == (row["token"], row["relation"])


def test_captions_and_pictures():
    example = public("mnre").split("test")[1]
    assert example.context == {
        "caption": "rafael nadal kisses a fan after winning the french open",
        "long_caption": "A man and a woman are kissing, and a woman is smiling. They are in a crowd.",
    }
    assert example.images[0].example == example.id == "test-2"
    assert example.images[0].open().mode == "RGB"
    examples = [example for split in public("mnre").splits.values() for example in split]
    notes = public("mnre").notes
    assert sum("caption" not in example.context for example in examples) == 60
    assert notes["without_caption.train"] + notes["without_caption.valid"] == 60
    assert all("long_caption" in example.context for example in examples)


@pytest.mark.parametrize(
    ("split", "tweets", "mentions", "pairs", "triples"),
    [("train", 7330, 16863, 12247, 4503), ("valid", 931, 2174, 1624, 624), ("test", 794, 1852, 1369, 517)],
)
def test_joint_counts(split, tweets, mentions, pairs, triples):
    dataset = public("mnre_joint")
    examples = dataset.split(split)
    assert len(examples) == tweets
    assert (dataset.notes[f"mentions.{split}"], dataset.notes[f"pairs.{split}"]) == (mentions, pairs)
    assert sum(len(example.gold.triples) for example in examples) == triples
    assert all(example.pair is None and example.gold.relation is None for example in examples)
    assert dataset.faults == ()


def test_joint_triples_are_the_related_pairs():
    """The same triples by two ways: by tweet, and gathered from the pairs."""

    def texts(example, head, relation, tail):
        return example.text, head.start, head.end, relation, tail.start, tail.end

    joint = {texts(e, t.head, t.relation, t.tail) for e in public("mnre_joint").split("test") for t in e.gold.triples}
    pairs = public("mnre").split("test")
    assert joint == {texts(e, e.pair[0], e.gold.relation, e.pair[1]) for e in pairs if e.gold.relation != "None"}


def test_folders_are_recognised():
    assert mnre_joint.recognise(folder_of("mnre_joint")) == "mnre_joint"
    assert mnre.recognise(folder_of("mnre")) == "mnre"
    assert mnre.recognise(folder_of("mnre_joint")) is mnre_joint.recognise(folder_of("mnre")) is None


# Bad lines ----------------------------------------------------------------------------------------------------------


def pair(**other):
    row = {"token": ["Ann", "Lee", "lives", "in", "Rome"], "h": {"name": "Ann Lee", "pos": [0, 2]}}
    row |= {"t": {"name": "Rome", "pos": [4, 5]}, "img_id": "1.jpg", "relation": "/per/loc/place_of_residence"}
    return repr({**row, **other})


def test_bad_pairs_become_named_faults(tmp_path):
    bad = [
        (pair(h={"name": "Ann", "pos": [0, 2]}), "'Ann' is not the words at [0, 2]"),
        (pair(h={"name": "Rome", "pos": [4, 6]}), "not the words at [4, 6]"),
        (pair(t={"name": "", "pos": [2, 2]}), "not the words at [2, 2]"),
        (pair(t={"name": "Rome", "pos": [-1, 5]}), "not the words at [-1, 5]"),
        (pair(h={"name": "Rome", "pos": [4, 5]}), "head and tail are the same mention 'Rome'"),
        (pair(relation="/per/loc/likes"), "unknown relation '/per/loc/likes'"),
        (pair(colour="red"), "colour"),
        ("{'token': ['a'", "not a Python literal"),
        ("__import__('os').getcwd()", "not a Python literal"),
        ("[" * 500, "not a Python literal"),
        ("7", "valid dictionary"),
        ("'" + "a" * LONGEST_LINE + "'", "a line has at most 20,000"),
        ("{'a': 1}\x00", "not a Python literal"),
    ]
    lines = [pair(), *(line for line, _ in bad), "", pair(), pair(relation="None", img_id="2.jpg")]
    (tmp_path / "mnre_train.txt").write_text("\n".join(lines), encoding="utf-8")
    dataset = read(str(tmp_path))
    assert dataset.name == "mnre"
    assert [e.id for e in dataset.split("train")] == ["train-1", "train-16", "train-17"]
    assert [e.gold.relation for e in dataset.split("train")] == [
        "/per/loc/place_of_residence",
        "/per/loc/place_of_residence",
        "None",
    ]
    for fault, (number, (_, part)) in zip(dataset.faults, enumerate(bad, 2), strict=True):
        assert fault.where == f"{tmp_path / 'mnre_train.txt'}, line {number}"
        assert part in fault.problem
    assert dataset.notes == {
        "picture_tables_missing": 1,
        "repeated.train": 1,
        "without_caption.train": 3,
        "without_long_caption.train": 3,
    }


def test_bad_captions(tmp_path):
    (tmp_path / "mnre_val.txt").write_text(pair(), encoding="utf-8")
    (tmp_path / "captions_blip2_val.txt").write_text("{'img_id': '1.jpg', 'text': ' a town '}\n{'img_id': 3}")
    (tmp_path / "captions_llavanext_val.json").write_text('{"1": 7}')
    dataset = read(f"mnre:{tmp_path}")
    assert dataset.split("valid")[0].context == {"caption": "a town"}
    assert [Path(fault.where.split(",")[0]).name for fault in dataset.faults] == [
        "captions_blip2_val.txt",
        "captions_llavanext_val.json",
    ]
    (tmp_path / "captions_llavanext_val.json").write_text("[")
    with pytest.raises(DataFault, match=r"captions_llavanext_val\.json: not JSON"):
        read(f"mnre:{tmp_path}")
    with pytest.raises(DataFault, match=r"no mnre_train\.txt"):
        read(f"mnre:{Path(__file__).parent}")


def tweet(**other):
    row = {"sentences": [["Ann", "Lee", "in", "Rome"]], "ner": [[[0, 1, "Entity"], [3, 3, "LOC"]]]}
    row |= {"relations": [[[0, 1, 3, 3, "/per/loc/place_of_birth"], [3, 3, 0, 1, "None"]]]}
    return json.dumps({**row, "img_id": "1.jpg", "doc_key": "0", **other})


def test_bad_tweets_become_named_faults(tmp_path):
    bad = [
        (tweet(ner=[[[0, 4, "Entity"]]]), "no words at [0, 4] of 4"),
        (tweet(relations=[[[0, 1, 2, 2, "None"]]]), "a relation between [0, 1, 2, 2]"),
        (tweet(relations=[[[0, 1, 3, 3, "/per/loc/likes"]]]), "unknown relation '/per/loc/likes'"),
        (tweet(sentences=[["a"], ["b"]]), "sentences"),
        ("{", "JSON"),
    ]
    both = tweet(relations=[[[0, 1, 3, 3, "/per/loc/place_of_birth"], [0, 1, 3, 3, "None"]]])
    lines = [tweet(), *(line for line, _ in bad), both, tweet(relations=[[]])]
    (tmp_path / "train.json").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "dev.json").write_text("")
    dataset = read(str(tmp_path))
    assert dataset.name == "mnre_joint"
    assert [e.id for e in dataset.split("train")] == ["train-1", "train-7", "train-8"]
    (triple,) = dataset.split("train")[0].gold.triples
    assert (triple.head.text, triple.head.type, triple.tail.text, triple.tail.type) == ("Ann Lee", "", "Rome", "LOC")
    assert dataset.split("train")[2].gold.triples == ()
    assert (dataset.notes["also_none.train"], dataset.notes["without_triple.train"]) == (1, 1)
    for fault in dataset.faults:
        number = int(fault.where.rpartition(" ")[2])
        assert bad[number - 2][1] in fault.problem
    assert len(dataset.faults) == len(bad)
