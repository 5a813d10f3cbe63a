"""The image-necessity probe: what is taken away, and what two answers are compared by."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from magister.tasks import alignment, attributes, completion, linking, ner, relations
from magister.tasks.graph import Entity, Relation
from magister.tasks.images import Image
from magister.teachers.knowledge.corpus import COLUMNS
from magister.teachers.knowledge.probe import COLUMNS as PROBED
from magister.teachers.knowledge.probe import columns, without_image
from magister.teachers.knowledge.verify import Verdict

sys.path.insert(0, str(Path(__file__).parent))
from fake_teacher import example

PICTURE = (Image(source="a.png"),)
WORDS = {"caption": "a cat", "tags": "cat", "colours": "red", "ocr": "MEOW", "knowledge": "cats purr"}
PARIS = Entity(id="Q90", name="Paris", images=PICTURE)
ROME = ner.Entity(text="Rome", type="", start=0, end=4)


@pytest.mark.parametrize(
    "asked",
    [
        example(1, images=PICTURE, context=WORDS),
        attributes.Example(id="p", text="shoe", images=PICTURE, context=WORDS),
        relations.Example(id="r", text="Rome", pair=(ROME, ROME), images=PICTURE, context=WORDS),
        completion.Example(id="c", given=PARIS, relation=Relation(name="r"), candidates=(PARIS,), context=WORDS),
        alignment.Example(id="a", entity=PARIS, candidates=(PARIS,), context=WORDS),
        linking.Example(id="l", text="Rome", mention=ROME, images=PICTURE, candidates=(PARIS,), context=WORDS),
    ],
    ids=lambda e: type(e).__module__.rpartition(".")[2],
)
def test_every_trace_of_the_picture_is_taken_away_and_nothing_else(asked):
    blind = without_image(asked)
    assert "a.png" in asked.model_dump_json()
    assert "a.png" not in blind.model_dump_json()
    assert blind.images == ()
    assert blind.context == {"knowledge": "cats purr"}
    assert (blind.id, blind.text, blind.gold) == (asked.id, asked.text, asked.gold)
    assert [e.id for e in getattr(blind, "candidates", ())] == [e.id for e in getattr(asked, "candidates", ())]
    assert type(asked).model_validate(blind.model_dump()) == blind
    assert without_image(blind) is None


def test_words_of_a_picture_alone_are_taken_away_too():
    assert without_image(example(1, context={"ocr": "MEOW"})).context == {}
    assert without_image(example(1, context={"knowledge": "x"})) is None


ANN, ROME_LOC = example(1).gold.entities
BOTH, ONE, NONE = (Verdict(answer=ner.Answer(entities=some)) for some in ((ANN, ROME_LOC), (ANN,), ()))


@pytest.mark.parametrize(
    ("seen", "blind", "expected"),
    [
        (BOTH, BOTH, (1.0, 0.0, False)),
        (BOTH, ONE, (2 / 3, 1 / 3, True)),  # the picture helped
        (ONE, BOTH, (1.0, -1 / 3, True)),  # it misled
        (NONE, NONE, (0.0, 0.0, False)),
        (BOTH, Verdict().because("not_json", ""), (None, None, None)),
        (Verdict().because("not_json", ""), BOTH, (1.0, None, None)),
        (Verdict(), Verdict(), (None, None, None)),  # free text has nothing to compare
    ],
)
def test_what_the_picture_changed(seen, blind, expected):
    found = columns(ner.TASK, example(1), seen, blind)
    assert tuple(found) == PROBED
    assert set(found) <= {name for name, *_ in COLUMNS}
    assert tuple(found.values()) == pytest.approx(expected)


def test_the_order_of_entities_is_no_change():
    turned = Verdict(answer=ner.Answer(entities=(ROME_LOC, ANN)))
    assert columns(ner.TASK, example(1), BOTH, turned)["answer_changed"] is False


def test_without_gold_only_the_change_is_known():
    bare = example(1).model_copy(update={"gold": None})
    assert tuple(columns(ner.TASK, bare, BOTH, ONE).values()) == (None, None, True)
