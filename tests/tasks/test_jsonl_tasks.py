"""Our JSON lines for relations and for the tasks on graphs: exact round trip, also of pictures inside entities."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.tasks import TASKS, alignment, completion, linking, ner, relations
from magister.tasks.dataset import Dataset
from magister.tasks.graph import Entity, Relation
from magister.tasks.images import Image
from magister.tasks.readers import READERS, data_root, jsonl, read

texts = st.text(min_size=1, max_size=12).filter(str.strip)
sources = st.sampled_from(["/pictures/a.jpg", "/p/ä b.png", "data:image/png;base64,AAAA"])


@st.composite
def entities(draw, count):
    found = []
    for id in draw(st.lists(texts, min_size=count, max_size=count, unique=True)):
        owner = draw(st.sampled_from([id, "", "other"]))
        images = tuple(Image(source=s, example=owner) for s in draw(st.lists(sources, max_size=2)))
        said = draw(st.sampled_from([{}, {"images": ("of", "whom")}, {"height": ("3 m",)}]))
        found.append(Entity(id=id, name=draw(st.just("") | texts), attributes=said, images=images, description="d"))
    return found


def mention(text, first, last):
    return ner.Entity(text=text[first:last], type="", start=first, end=last)


@st.composite
def examples(draw, task, id):
    given, *others = draw(entities(3))
    context = draw(st.dictionaries(st.sampled_from(["images", "caption"]), texts, max_size=2))
    ranked = {"ranking": (others[0].id,), "scores": draw(st.sampled_from([(), (0.5,)]))}
    text = f"{draw(texts)} | {draw(texts)}"
    pair = (mention(text, 0, 1), mention(text, len(text) - 1, len(text)))
    images = tuple(Image(source=s, example=id) for s in draw(st.lists(sources, max_size=2)))
    fields = {"id": id, "context": context}
    if task == "completion":
        fields |= {"given": given, "relation": Relation(name="r", title="is"), "candidates": tuple(others)}
        fields |= {"asked": draw(st.sampled_from(["head", "tail"])), "gold": completion.Answer(**ranked)}
    elif task == "alignment":
        fields |= {"entity": given, "candidates": tuple(others), "facts": ("a | b | c",)}
        fields |= {"gold": alignment.Answer(**ranked)}
    elif task == "linking":
        fields |= {"text": text, "mention": pair[0], "candidates": tuple(others), "images": images}
        fields |= {"gold": linking.Answer(**ranked)}
    elif draw(st.booleans()):
        gold = relations.Answer(relation=draw(st.sampled_from(["None", "likes"])))
        fields |= {"text": text, "pair": pair, "images": images, "gold": gold}
    else:
        triples = (relations.Triple(head=pair[0], relation="likes", tail=pair[1]),)
        gold = relations.Answer(triples=draw(st.sampled_from([(), triples])))
        fields |= {"text": text, "images": images, "gold": gold}
    return TASKS[task].Example(**fields)


SCHEMAS = {
    "relations": relations.Schema(
        relations=(relations.RelationType(name="likes", title="likes", guideline="", head="p"),)
    ),
    "completion": completion.Schema(relations=(Relation(name="r", title="is"), Relation(name="s"))),
    "alignment": alignment.Schema(left="a", right="b"),
    "linking": linking.Schema(knowledge_base="k", nil=True),
}


@pytest.mark.parametrize("task", SCHEMAS)
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_round_trip_is_exact(task, data):
    train = tuple(data.draw(examples(task, id)) for id in ("1", "2"))
    dataset = Dataset("d", task, SCHEMAS[task], {"train": train, "test": ()})
    with tempfile.TemporaryDirectory() as folder:
        jsonl.write(dataset, Path(folder) / "a.jsonl")
        again = read(f"{folder}/a.jsonl")
    assert again.faults == ()
    assert again == dataset


def test_pictures_of_entities_move_with_the_file(tmp_path):
    picture = Image(source=str(tmp_path / "p.jpg"), example="e")
    entity = Entity(id="e", images=(picture,))
    example = completion.Example(id="1", given=entity, relation=Relation(name="r"), candidates=(entity,))
    jsonl.write(Dataset("d", "completion", SCHEMAS["completion"], {"train": (example,)}), tmp_path / "a" / "d.jsonl")
    line = json.loads((tmp_path / "a" / "d.jsonl").read_text().splitlines()[1])
    assert line["given"]["images"] == line["candidates"][0]["images"] == ["../p.jpg"]
    assert "images" not in line
    (tmp_path / "a").rename(tmp_path / "b")
    assert read(str(tmp_path / "b" / "d.jsonl")).split("train") == (example,)


def test_bad_lines_become_named_faults(tmp_path):
    def faults(task, *rows):
        header = {"task": task, "schema": SCHEMAS[task].model_dump()}
        (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in (header, *rows)))
        return [(fault.where.rpartition(" ")[2], fault.problem) for fault in read(str(tmp_path / "x.jsonl")).faults]

    ask = {"id": "1", "given": {"id": "e"}, "relation": {"name": "r"}}
    found = faults(
        "completion",
        ask,
        ask,
        {**ask, "id": "2", "relation": {"name": "t"}},
        {**ask, "id": "3", "given": {"id": "e", "images": [3]}},
        {**ask, "id": "4", "candidates": 5},
        {**ask, "id": "5", "given": 5, "candidates": [[], {"id": "f", "images": "x"}]},
    )
    parts = ["the id '1' is used twice", "unknown relation 't'", "given.images.0", "candidates", "given"]
    for (number, problem), (line, part) in zip(found, enumerate(parts, 3), strict=True):
        assert number == str(line)
        assert part in problem
    post = {
        "id": "1",
        "text": "ab",
        "pair": [{"text": t, "type": "", "start": i, "end": i + 1} for i, t in enumerate("ab")],
    }
    assert faults("relations", {**post, "gold": {"relation": "None"}}) == []
    assert "unknown relation 'hates'" in faults("relations", {**post, "gold": {"relation": "hates"}})[0][1]
    assert "one relation where a pair is given" in faults("relations", {**post, "gold": {}})[0][1]
    triple = {"head": post["pair"][0], "relation": "None", "tail": post["pair"][1]}
    joint = {"id": "1", "text": "ab", "gold": {"triples": [triple]}}
    assert "unknown relation 'None'" in faults("relations", joint)[0][1]


@pytest.mark.parametrize("name", ["countries_s3", "mnre_joint"])
def test_public_sets_round_trip(name, tmp_path):
    if not (data_root() / READERS[name].folder).is_dir():
        pytest.skip("no public data; set MAGISTER_DATA")
    whole = read(name)
    dataset = replace(whole, splits={split: whole.split(split)[:800] for split in ("valid", "test")})
    jsonl.write(dataset, tmp_path / "a.jsonl")
    again = read(str(tmp_path / "a.jsonl"))
    assert (again.faults, again.schema, again.notes) == ((), dataset.schema, dataset.notes)
    for split, some in dataset.splits.items():
        assert list(some) == list(again.split(split))
