"""The linking sets in their original files: counts as their READMEs state them, mentions, and nothing that tells."""

import json
import shutil
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.tasks.readers import READERS, data_root, read
from magister.tasks.readers.mentions import find


@cache
def public(name):
    folder = data_root() / READERS[name].folder
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}; set MAGISTER_DATA")
    return read(name)


# examples by split, refused mentions by split, entities
COUNTS = [
    ("grocery_linking", {"train": 405, "valid": 60, "test": 243}, {}, 81),
    ("wikimel", {"train": 18080, "valid": 2626, "test": 4945}, {"mention": 7}, 18880),
    ("richpedia_mel", {"train": 12988, "test": 3123}, {"train.json": 1256, "test.json": 338}, 17805),
    ("wikidiverse", {"train": 11151, "valid": 1656, "test": 1826}, {}, 7574),
]


@pytest.mark.parametrize(("name", "examples", "refused", "entities"), COUNTS)
def test_counts(name, examples, refused, entities):
    dataset = public(name)
    assert {split: len(found) for split, found in dataset.splits.items()} == examples
    assert len(dataset.faults) == sum(refused.values())
    assert all("is not in its sentence" in fault.problem for fault in dataset.faults)
    (base,) = dataset.graphs
    assert len(base.entities) == entities
    assert all(example.gold.best in base.number for found in dataset.splits.values() for example in found)


def test_richpedia_has_the_readmes_samples():
    dataset = public("richpedia_mel")
    refused = Counter(fault.where.split(",")[0].rsplit("/", 1)[1] for fault in dataset.faults)
    assert len(dataset.split("train")) + refused["train.json"] == 14244
    assert len(dataset.split("test")) + refused["test.json"] == 3461


def test_wikimel_has_the_files_mentions():
    folder = data_root() / READERS["wikimel"].folder
    dataset = public("wikimel")
    samples = json.loads((folder / "Wikidata-MEL.json").read_bytes())
    splits = json.loads((folder / "splits.json").read_bytes())
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 15508, "dev": 2213, "test": 4261}
    read_in = [(e.text, e.gold.best) for split in ("train", "valid", "test") for e in dataset.split(split)]
    in_file = [
        (samples[id]["sentence"], answer)
        for split in ("train", "dev", "test")
        for id in splits[split]
        for answer in samples[id]["answer"]
    ]
    left_out = Counter(in_file) - Counter(read_in)
    assert sum(left_out.values()) == len(dataset.faults) == 7
    assert not Counter(read_in) - Counter(in_file)


def test_wikidiverse_reads_a_caption_in_one_split():
    folder = data_root() / READERS["wikidiverse"].folder
    dataset = public("wikidiverse")
    splits = json.loads((folder / "splits.json").read_bytes())
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 5569, "val": 803, "test": 938}
    notes = dataset.notes
    assert notes["captions_in_a_later_split.train"] + notes["captions_in_a_later_split.valid"] == 7310 - 7285
    assert sum(map(len, dataset.splits.values())) == 14633
    (base,) = dataset.graphs
    assert sum(bool(entity.images) for entity in base.entities) == 175
    assert {base.entity("Q1384").name, *base.entity("Q1384").aliases} == {"New York", "New York (state)"}


def test_pictures_are_there_and_bear_no_answer():
    people = [e for split in public("richpedia_mel").splits.values() for e in split if e.images]
    assert len(people) == 9
    photos = [e for split in public("grocery_linking").splits.values() for e in split]
    assert all(len(e.images) == 1 for e in photos)
    for example in (*people, *photos):
        assert example.images[0].source.startswith("data:image/jpeg;base64,")
        assert example.images[0].example == example.id
        assert example.gold.best not in example.id
    assert people[0].images[0].open().mode == photos[0].images[0].open().mode == "RGB"
    wikimel = [e for split in public("wikimel").splits.values() for e in split if e.images]
    assert len({e.images[0].source for e in wikimel}) == 36
    icons = [entity.images for entity in public("grocery_linking").graphs[0].entities]
    assert all(images and images[0].open().mode == "RGB" for images in icons[::20])


@pytest.mark.parametrize("name", ["grocery_linking", "wikidiverse", "richpedia_mel", "wikimel"])
def test_the_order_tells_no_answer(name):
    dataset = public(name)
    (base,) = dataset.graphs
    numbers = [base.number[example.gold.best] for example in dataset.split("train")]
    bound = 4 / np.sqrt(len(numbers)) if name == "grocery_linking" else 0.1  # the others' order is the source's
    assert abs(np.corrcoef(np.arange(len(numbers)), numbers)[0, 1]) < bound
    assert [e.id for e in dataset.split("train")] == [f"train-{at}" for at in range(len(numbers))]


def test_grocery_products():
    dataset = public("grocery_linking")
    (base,) = dataset.graphs
    assert len({entity.aliases[0] for entity in base.entities}) == 43
    shared = Counter(entity.aliases[0] for entity in base.entities)
    assert sum(count for count in shared.values() if count > 1) == 50
    for split in ("train", "test"):
        ambiguous = sum(shared[example.mention.text] > 1 for example in dataset.split(split))
        assert dataset.notes[f"ambiguous.{split}"] == ambiguous
    assert base.entity("Cabbage").aliases == ("Cabbage",)  # its title is null in the file


FOUND = [
    ("Powers", "Powers with Noel Harrison", 0, "Powers", ""),
    ("UK", "a BUKA in the UK", 0, "UK", ""),
    ("Scotty,", 'as "Scotty" in', 0, "Scotty", ""),
    ("al-Khatib", "Ahmad Al-Khatib", 0, "Al-Khatib", "other_case"),
    ("Ottawa", "a car in OttawaPhoto: Neil", 0, "Ottawa", "part_of_a_word"),
    ("Elsie Wolfe", "with Elsie de Wolfe in", 0, "Elsie de Wolfe", "words_left_out"),
    ("Isabella Castile", "Isabella I of Castile", 0, "Isabella I of Castile", "words_left_out"),
    ("Stanhope 4th Earl", "Philip Stanhope, 4th Earl of", 0, "Stanhope, 4th Earl", "words_left_out"),
    ("£", "bought for £1 at", 0, "£", ""),
]


@pytest.mark.parametrize(("mention", "text", "turn", "wanted", "way"), FOUND)
def test_where_a_mention_stands(mention, text, turn, wanted, way):
    start, end, how = find(mention, text, turn)
    assert (text[start:end], how) == (wanted, way)


@pytest.mark.parametrize(
    ("mention", "text"),
    [
        ("I", "William of Prussia"),
        ("", "x"),
        (" , ", "a , b"),
        ("Ion", "Michael Paris"),
        ("Bob Smith", "Bob and Mary Smith"),
    ],
)
def test_a_mention_that_is_not_there(mention, text):
    assert find(mention, text) is None


def test_a_mention_listed_again_has_the_next_place():
    text = "New York, New York."
    assert [find("New York", text, turn)[0] for turn in range(3)] == [0, 10, 10]


word = st.text(st.characters(categories=["L"]), min_size=3, max_size=8)


@given(st.lists(word, max_size=5), st.lists(word, min_size=1, max_size=3), st.lists(word, max_size=5))
def test_what_was_put_in_is_found(before, mention, behind):
    text = " ".join([*before, *mention, *behind])
    start, end, way = find(" ".join(mention), text)
    assert (text[start:end], way) == (" ".join(mention), "")
    assert text[max(start - 1, 0) : start] in ("", " ")
    assert text[end : end + 1] in ("", " ")


def test_bad_rows_are_named_and_the_rest_is_read(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    samples = {
        "1": {"sentence": "Ann met Bo.", "mentions": ["Ann", "Bo"], "answer": ["Q1", "Q2"]},
        "2": {"sentence": "Ann.", "mentions": ["Ann"], "answer": ["Q1", "Q2"]},
        "3": {"sentence": "Nobody here.", "mentions": ["Cy"], "answer": ["Q1"]},
        "4": {"sentence": "Dee here.", "mentions": ["Dee"], "answer": ["Q9"]},
    }
    texts = {
        "Wikidata-MEL.json": samples,
        "splits.json": {"train": ["1", "2", "3", "4", "5"], "dev": [], "test": []},
        "qid2ne.json": {"Q1": "Ann", "Q2": "Bo"},
        "qid2abs.json": {"Q1": "A person."},
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content))
    dataset = read(str(folder))
    assert [(e.id, e.mention.text, e.gold.best) for e in dataset.split("train")] == [
        ("train-0", "Ann", "Q1"),
        ("train-1", "Bo", "Q2"),
    ]
    assert sorted(fault.problem for fault in dataset.faults) == [
        "1 mentions and 2 answers",
        "its answer Q9 is no entity",
        "the mention 'Cy' is not in its sentence",
        "the splits name it, but there is no such sample",
    ]
    assert dataset.notes == {"picture_tables_missing": 1}
    assert dataset.graphs[0].notes == {"entities_without_description": 1}


def test_a_grocery_photo_that_is_missing_is_counted(tmp_path):
    source = data_root() / READERS["grocery_linking"].folder
    if not source.is_dir():
        pytest.skip("no public data")
    for file in ("entities.jsonl", "train.jsonl", "val.jsonl", "test.jsonl"):
        shutil.copy(source / file, tmp_path)
    dataset = read(str(tmp_path))
    assert dataset.notes["pictures_missing"] == 405 + 60 + 243 + 81
    assert sum(map(len, dataset.splits.values())) == 708
