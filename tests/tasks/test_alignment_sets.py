"""The alignment sets in their original files: counts as their READMEs state them, and nothing that tells a link."""

import gzip
import json
import shutil
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.tasks.facts import Facts
from magister.tasks.graph import Entity, KnowledgeGraph, Relation
from magister.tasks.readers import READERS, data_root, dbp15k, fb_db, flags, read
from magister.tasks.readers.pairs import aligned
from magister.tasks.task import DataFault


@cache
def public(name):
    folder = data_root() / READERS[name].folder
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}; set MAGISTER_DATA")
    return read(name)


# name, entities, triples, links, share of seed pairs, entities with a picture
COUNTS = [
    ("dbp15k_zh_en", (19388, 19572), (70414, 95142), 14800, 0.3, (216, 215)),
    ("dbp15k_fr_en", (19661, 19993), (105998, 115722), 14800, 0.3, (186, 187)),
    ("fb15k237_db15k", (14541, 12842), (309816, 98728), 12458, 0.2, (218, 208)),
    ("country_flags", None, None, 245, 0.3, (245, 245)),
]


@pytest.mark.parametrize(("name", "entities", "triples", "links", "share", "pictured"), COUNTS)
def test_counts(name, entities, triples, links, share, pictured):
    dataset = public(name)
    left, right = dataset.graphs
    if entities:
        assert (len(left.entities), len(right.entities)) == entities
        assert (len(left.triples["train"]), len(right.triples["train"])) == triples
    assert tuple(sum(bool(e.images) for e in graph.entities) for graph in dataset.graphs) == pictured
    sizes = {split: len(examples) for split, examples in dataset.splits.items()}
    seeds = round(share * links)
    assert sizes == {"train": seeds - round(seeds / 10), "valid": round(seeds / 10), "test": links - seeds}
    pairs = {link for examples in dataset.splits.values() for link in examples.links}
    assert len(pairs) == links
    assert dataset.faults == ()
    assert not any("pictures" in note for note in dataset.notes)


def test_links_are_those_of_the_file():
    folder = data_root() / READERS["dbp15k_zh_en"].folder
    dataset = public("dbp15k_zh_en")
    uris = {}
    for side in "12":
        with gzip.open(folder / f"ent_ids_{side}.gz", "rt", encoding="utf-8") as file:
            uris |= {line.split("\t")[0]: line.split("\t")[1].rstrip("\n") for line in file}
    wanted = {tuple(uris[end] for end in line.split()) for line in (folder / "ill_ent_ids").read_text().splitlines()}
    assert {(e.entity.id, e.gold.best) for examples in dataset.splits.values() for e in examples} == wanted


@pytest.mark.parametrize("name", [row[0] for row in COUNTS])
def test_neither_numbers_nor_file_names_tell_a_link(name):
    dataset = public(name)
    left, right = dataset.graphs
    pairs = np.array([(left.number[a], right.number[b]) for e in dataset.splits.values() for a, b in e.links])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4 / np.sqrt(len(pairs))
    assert len(np.unique(pairs[:, 0] - pairs[:, 1])) > len(pairs) / 3
    places = np.arange(len(pairs))  # the examples' own order
    assert all(abs(np.corrcoef(places, side)[0, 1]) < 4 / np.sqrt(len(pairs)) for side in pairs.T)
    sources = [image.source for graph in dataset.graphs for entity in graph.entities for image in entity.images]
    named = [source for source in sources if not source.startswith("data:image/jpeg;base64,")]
    assert all("/fb15k_images/" in source for source in named)
    assert len(named) == (30 if name == "fb15k237_db15k" else 0)


def test_dbp15k_examples():
    dataset = public("dbp15k_zh_en")
    test = dataset.split("test")
    example = next(e for e in test if e.entity.name == "西宁市")
    assert (example.gold.best, example.entity.aliases) == ("http://dbpedia.org/resource/Xining", ("xining city",))
    assert 0 < len(example.facts) <= 8
    assert all("西宁市" in fact.split(" | ") for fact in example.facts)
    assert test[3].id == "test-3"
    assert test[2:6:3].numbers == range(2, 6, 3)
    assert test[2:6][1] == test[3] == test[-len(test) + 3]
    with pytest.raises(IndexError):
        test[len(test)]
    names = {entity.name for entity in dataset.graphs[0].entities}
    assert "What turns you on?" in names
    assert not any(relation.title == relation.name for relation in dataset.graphs[0].relations)
    assert not any(entity.aliases for entity in dataset.graphs[1].entities)


def test_fb_db_shares_are_nested_and_numbers_are_attributes():
    few = public("fb15k237_db15k")
    links = [link for examples in few.splits.values() for link in examples.links]
    many = aligned("more", *few.graphs, links, fb_db.SEEDS["fb15k237_db15k_80"], few.schema)
    assert len(many.split("test")) == 12458 - round(0.8 * 12458)
    assert set(many.split("test").links) < set(few.split("test").links)
    left, _ = few.graphs
    assert sum(len(values) for e in left.entities for values in e.attributes.values()) == 29247
    assert left.entity("/m/06rf7").attributes["location.location.area"] == ("15763.18",)
    assert not any(entity.name for entity in left.entities)
    assert few.notes == {"db15k.repeated_triples": 9831, "links_to_an_entity_linked_before": 4}
    photos = [len(entity.images) for entity in left.entities]
    assert sum(photos) == 208 + 30
    pictured = next(entity for entity in left.entities if len(entity.images) == 3)
    assert pictured.images[0].open().mode == "RGB"


def test_titles_of_relations():
    compound = "/tv/tv_program/regular_cast./tv/regular_tv_appearance/actor"
    assert fb_db.freebase_title(compound) == "tv program regular cast / regular tv appearance actor"
    assert fb_db.dbpedia_title("<http://dbpedia.org/ontology/birthPlace>") == "birth place"
    assert fb_db.dbpedia_title("<http://www.w3.org/1999/02/22-rdf-syntax-ns#type>") == "type"
    assert dbp15k.label("<http://dbpedia.org/resource/STEP_you/is_this_LOVE%3F>") == "STEP you/is this LOVE?"


def test_country_flags():
    dataset = public("country_flags")
    left, right = dataset.graphs
    names = {
        left.entity(example.entity.id).name: right.entity(example.gold.best).name
        for examples in dataset.splits.values()
        for example in examples
    }
    assert names["Andorra"] == "Principality of Andorra"
    assert names["Ivory Coast"] == "Republic of Côte d'Ivoire"
    for graph in dataset.graphs:
        number = {entity.id: at for at, entity in enumerate(graph.entities)}
        assert all(id == f"{graph.name}-{at}" for id, at in number.items())
        assert len(np.unique(graph.triples["train"], axis=0)) == len(graph.triples["train"])
        backwards = graph.triples["train"][:, ::-1]
        borders = {tuple(row) for row in graph.triples["train"][graph.triples["train"][:, 1] == 4].tolist()}
        assert not borders & {tuple(row) for row in backwards.tolist()}
    first = dataset.split("test")[0]
    shown = first.images[0], right.entity(first.gold.best).images[0]
    assert [image.open().size for image in shown] == [(250, shown[0].open().height), (136, 128)]


def test_each_fact_of_the_flags_is_told_by_someone():
    facts = [(f"c{i}", "language", f"language:{i % 7}") for i in range(3000)]
    told = Counter((flags.told(fact, "flat"), flags.told(fact, "waved")) for fact in facts)
    assert told[False, False] == 0
    assert all(900 < told[kind] < 1100 for kind in [(True, True), (True, False), (False, True)])


def small_dbp15k(folder):
    """Three Chinese and three English entities in the files of DBP15K."""
    rows = {
        "ent_ids_1.gz": "0\thttp://zh.dbpedia.org/resource/甲_(城)\n1\thttp://zh.dbpedia.org/resource/乙\n",
        "ent_ids_2.gz": "10\thttp://dbpedia.org/resource/A\n11\thttp://dbpedia.org/resource/B\n",
        "triples_1.gz": "0\t5\t1\n",
        "triples_2.gz": "10\t7\t11\n11\t7\t11\n",
        "dbp_zh_en.json.gz": json.dumps([[0, ["first", "city"]], [1, []]]),
    }
    folder.mkdir()
    for name, text in rows.items():
        (folder / name).write_bytes(gzip.compress(text.encode()))
    (folder / "ill_ent_ids").write_text("0\t10\n1\t11\n")
    (folder / "entity_images.tsv").write_text("kg\tentity_id\tfile\n1\t0\t../flag.jpg\n")
    return folder


def test_a_small_set_by_its_folder(tmp_path):
    dataset = read(str(small_dbp15k(tmp_path / "set")))
    assert dataset.name == "dbp15k_zh_en"
    examples = [example for split in dataset.splits.values() for example in split]
    assert {e.entity.name: (e.gold.best[-1], e.entity.aliases, e.facts) for e in examples} == {
        "甲 (城)": ("A", ("first city",), ("甲 (城) | relation 5 | 乙",)),
        "乙": ("B", (), ("甲 (城) | relation 5 | 乙",)),
    }
    assert dataset.notes == {"dbpedia_zh.pictures_missing": 1}
    assert not any(entity.images for entity in dataset.graphs[0].entities)


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("ill_ent_ids", "0\t10\n1\n", r"ill_ent_ids, line 2: 1 fields between tabs, not 2"),
        ("ill_ent_ids", "0\t99\n", r"ill_ent_ids: no entity has the number 99"),
        ("triples_1.gz", "0\t5\t7\n", r"triples_1.gz: no entity has the number 7"),
        ("dbp_zh_en.json.gz", "[[0", r"dbp_zh_en.json.gz: not a gzipped JSON list"),
        ("ent_ids_2.gz", None, r"ent_ids_2.gz: there is no such file"),
    ],
)
def test_broken_files_are_named(tmp_path, file, text, match):
    folder = small_dbp15k(tmp_path / "set")
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(gzip.compress(text.encode()) if file.endswith(".gz") else text.encode())
    with pytest.raises(DataFault, match=match):
        read(f"dbp15k_zh_en:{folder}")


def test_a_link_to_an_unknown_entity_is_named(tmp_path):
    source = data_root() / READERS["country_flags"].folder
    if not source.is_dir():
        pytest.skip("no public data")
    (tmp_path / "flat").mkdir()
    (tmp_path / "waved").mkdir()
    lines = (source / "countries.tsv").read_text(encoding="utf-8").splitlines()[:4]
    (tmp_path / "countries.tsv").write_text("\n".join([*lines, "XX\tonly two"]), encoding="utf-8")
    shutil.copy(source / "flat" / "ad.jpg", tmp_path / "flat")
    dataset = read(str(tmp_path))
    assert (dataset.name, sum(map(len, dataset.splits.values()))) == ("country_flags", 3)
    assert dataset.notes == {"flat.pictures_missing": 2, "waved.pictures_missing": 3}
    assert "2 columns where the header has 10" in str(dataset.faults[0])


def graph_of(triples, entities=6, relations=3):
    return KnowledgeGraph(
        "small",
        tuple(Entity(id=f"e{i}") for i in range(entities)),
        tuple(Relation(name=f"r{i}") for i in range(relations)),
        {"train": np.array(triples, np.int64).reshape(-1, 3), "test": np.array([[0, 0, 5]])},
    )


triple = st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 5))


@given(st.lists(triple, max_size=30), st.integers(0, 5), st.integers(1, 8))
def test_facts_are_the_triples_about_an_entity(triples, number, limit):
    facts = Facts(graph_of(triples))
    about = {t for t in triples if number in (t[0], t[2])}
    assert set(map(tuple, facts.about(number).tolist())) == about
    assert len(facts.about(number)) == facts.degrees[number] == len(about)
    assert facts.neighbours(number).tolist() == sorted({e for h, _, t in about for e in (h, t)} - {number})
    told = facts.of(number, limit)
    assert len(told) == len(set(told)) == min(limit, len(about))
    assert set(told) <= {f"e{h} | r{r} | e{t}" for h, r, t in about}
    kinds = {(r, h == number) for h, r, t in about}
    parts = [fact.split(" | ") for fact in told]
    assert len({(r, h == f"e{number}") for h, r, _ in parts}) == min(limit, len(kinds))


def test_facts_tell_the_best_known_first():
    facts = Facts(graph_of([(0, 0, 1), (0, 0, 2), (0, 1, 3), (2, 2, 4), (2, 2, 5), (3, 2, 4)]))
    assert facts.of(0) == ("e0 | r0 | e2", "e0 | r1 | e3", "e0 | r0 | e1")
