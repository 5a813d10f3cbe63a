"""Which pictures a teacher is shown: never what it cannot see, nor what gives an answer away, nor dozens."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from magister.prompts.library import find
from magister.tasks import TASKS, alignment, completion, linking, ner
from magister.tasks.graph import Entity, Relation
from magister.tasks.images import Image
from magister.tasks.task import DataFault
from magister.teachers.describe import Description
from magister.teachers.generation.plan import Sampling, plan
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parent))
from fake_teacher import SCHEMA, FakeTeacher, example


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


OWN, OTHER = (Image.of_bytes(png(colour)) for colour in ("red", "blue"))
GONE = Image(source="gone.png")
REL = Relation(name="r", title="in")
ONE, TWO = Entity(id="1", name="one", images=(OTHER,)), Entity(id="2", name="two")
SCHEMAS = {
    "completion": completion.Schema(relations=(REL,)),
    "alignment": alignment.Schema(left="l", right="r"),
    "linking": linking.Schema(knowledge_base="K"),
}


def asked(key: str, id: str = "a", images=(OWN,), candidates=(ONE, TWO), word: str = "Foo"):
    module = {"completion": completion, "alignment": alignment, "linking": linking}[key]
    entity = Entity(id=word, name=word, images=images)
    about = {
        "completion": {"given": entity, "relation": REL},
        "alignment": {"entity": entity},
        "linking": {
            "text": f"{word} is",
            "mention": ner.Entity(text=word, type="", start=0, end=len(word)),
            "images": images,
        },
    }[key]
    gold = module.Answer(ranking=("1",))
    return module.Example(id=id, candidates=candidates, gold=gold, context={"note": "seen in May"}, **about)


def planned(key, examples, *, sees=True, mode="zero_shot", **options):
    schema = SCHEMA if key == "ner" else SCHEMAS[key]
    teacher = FakeTeacher(sees_images=sees)
    return plan(TASKS[key], examples, schema, teacher, [find(f"{key}/{mode}")], Sampling(), **options)


def pictures(item) -> list[Image]:
    assert item.request is not None, item.fault
    return [image for message in item.request.prompt.messages for image in message.images]


@pytest.mark.parametrize("key", SCHEMAS)
@pytest.mark.parametrize("describe", [None, lambda image: Description(colours=("crimson",))])
def test_a_teacher_that_cannot_see_is_given_no_picture_at_all(key, describe):
    bare = asked(key, "b", images=(), candidates=(TWO,))
    items, notes = planned(key, [asked(key), bare], sees=False, describe=describe)
    assert [pictures(item) for item in items] == [[], []]
    said = "".join(message.text for message in items[0].request.prompt.messages)
    assert ("crimson" in said) == (describe is not None)
    assert items[0].example.context["note"] == "seen in May"
    assert notes["candidates_whose_pictures_the_teacher_cannot_see"] == 1
    assert notes.get("examples_whose_pictures_the_teacher_cannot_see", 0) == (describe is None)


def test_candidates_pictures_alone_are_hidden_too():
    items, notes = planned("linking", [asked("linking", images=())], sees=False)
    assert pictures(items[0]) == []
    assert notes == {"candidates_whose_pictures_the_teacher_cannot_see": 1}


@pytest.mark.parametrize("sees", [True, False])
def test_a_mentions_own_picture_never_stands_beside_a_candidate(tmp_path, sees):
    """Not under another path, either."""
    (tmp_path / "own.png").write_bytes(png("red"))
    (tmp_path / "copy.png").write_bytes(png("red"))
    own, copy = (Image(source=str(tmp_path / name)) for name in ("own.png", "copy.png"))
    candidates = (ONE.model_copy(update={"images": (copy, own, OTHER)}), TWO.model_copy(update={"images": (copy,)}))
    items, _ = planned("linking", [asked("linking", images=(own,), candidates=candidates)], sees=sees)
    assert pictures(items[0]) == ([own, OTHER] if sees else [])


def test_a_demonstration_whose_picture_cannot_be_read_is_left_out_and_counted(tmp_path):
    (tmp_path / "torn.png").write_bytes(png("red")[:60])
    near = [
        example(n, f"Ann{n} sees Rome in winter {n}", images=(image,))
        for n, image in ((7, GONE), (8, Image(source=str(tmp_path / "torn.png"))), (9, OWN))
    ]
    far = example(5, "an evening of football")
    items, notes = planned("ner", [example(1), example(2)], mode="few_shot", demonstrations=[*near, far], shots=2)
    assert [pictures(item) for item in items] == [[OWN], [OWN]]
    assert notes == {"demonstrations_left_out_for_their_pictures": 2}
    items, notes = planned("ner", [example(1)], sees=False, mode="few_shot", demonstrations=near, shots=3)
    assert "demonstrations_left_out_for_their_pictures" not in notes  # nobody looks at them
    assert items[0].request is not None


@pytest.mark.parametrize("key", SCHEMAS)
def test_demonstrations_come_without_their_candidates_pictures(key):
    pool = [asked(key, f"d{n}", word=word) for n, word in enumerate(("Alpha", "Zebra"))]
    items, notes = planned(key, [asked(key)], mode="few_shot", demonstrations=pool, shots=2)
    assert pictures(items[0]) == [OWN, OWN, OWN, OTHER]
    assert notes == {"demonstrations_shown_without_their_candidates_pictures": 2}


def test_the_blind_plan_has_no_picture_in_its_demonstrations_and_may_be_hopeless():
    near = [example(7, "Ann7 sees Rome in winter", images=(GONE,)), example(9, "Ann9 eats in Rome", images=(OWN,))]
    items, _ = planned("ner", [example(1)], mode="few_shot", demonstrations=near, shots=1, blind=True)
    assert pictures(items[0]) == []
    assert "Ann9" in items[0].request.prompt.messages[-1].text  # the same as is shown with pictures
    with pytest.raises(DataFault, match="cannot be asked of any example"):
        planned("linking", [asked("linking", candidates=())])
    items, _ = planned("linking", [asked("linking", candidates=())], blind=True)
    assert items[0].request is None
