"""What is kept, and why the rest is not: hand-made cases for each reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from magister.prompts.messages import Message, Part, Prompt
from magister.prompts.parse import Parsed, parse
from magister.tasks import attributes, ner
from magister.tasks.task import DataFault, Task
from magister.teachers.verify import REASONS, agreement, grounded, leak, verdict, votes

sys.path.insert(0, str(Path(__file__).parent))
from fake_teacher import SCHEMA, example

NER, ATTRIBUTES = ner.TASK, attributes.TASK
PRODUCTS = attributes.Schema(
    attributes=(
        attributes.Attribute(name="Brand"),
        attributes.Attribute(name="Color", type="one_of", options=("red", "blue")),
        attributes.Attribute(name="Use", type="free"),
    )
)
SHOE = attributes.Example(
    id="p1",
    text="Acme running shoe, dark",
    asked=("Brand", "Color", "Use"),
    gold=attributes.Answer(values={"Brand": ("Acme", "ACME"), "Color": (), "Use": ("sport",)}),
)


def prompt(schema: dict | None, shown: str = "Which names?") -> Prompt:
    messages = (Message(role="user", parts=(Part(text=shown),)),)
    return Prompt(template="ner/x.v1", digest="d", messages=messages, answer_schema=schema)


def entities(*pairs: tuple[str, str]) -> str:
    inner = ", ".join(f'{{"text": "{text}", "type": "{kind}"}}' for text, kind in pairs)
    return f'{{"entities": [{inner}]}}'


def ask(text: str, **fields):
    return verdict(NER, example(1), SCHEMA, prompt({}), text, **fields)


def test_a_right_answer_is_kept():
    found = ask(entities(("Ann1", "PER"), ("Rome", "LOC")))
    assert (found.status, found.reason, found.agreement, found.grounded) == ("kept", None, 1.0, True)
    assert found.answer == example(1).gold
    assert not found.repaired


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        ("I'm sorry, but I can't help with that.", "stop", "refused"),
        ("There are two names in it.", "stop", "not_json"),
        ('{"entities": [{"text": "Ann1", "ty', "length", "length"),
        ('{"entities": "Ann1"}', "stop", "schema"),
        (entities(("Ann1", "DOG")), "stop", "unknown_label"),
        ("no " * 300, "length", "loop"),
        (entities(("Bob", "PER")), "stop", "ungrounded"),
    ],
)
def test_every_fault_has_its_name(text, finish, reason):
    found = ask(text, finish=finish)
    assert (found.status, found.reason) == ("quarantined", reason)
    assert reason in REASONS


def test_disagreement_is_measured_and_quarantined_only_when_asked():
    half = entities(("Ann1", "PER"), ("Rome", "PER"))  # 1 of 2 right: precision = recall = F1 = 1/2
    assert ask(half).status == "kept"
    assert ask(half).agreement == 0.5
    assert ask(half, min_agreement=0.5).status == "kept"
    refused = ask(half, min_agreement=0.51)
    assert (refused.reason, refused.detail) == ("disagrees", "agreement with gold 0.50, asked 0.51")
    assert refused.answer is not None


def test_grounding_can_be_measured_only():
    found = ask(entities(("Bob", "PER")), require_grounded=False)
    assert (found.status, found.grounded, found.agreement) == ("kept", False, 0.0)


def test_agreement_of_entities_by_hand():
    ann, rome = example(1).gold.entities
    wrong = ner.Entity(text="sees", type="PER", start=5, end=9)
    lost = ner.Entity(text="Bob", type="PER")
    cases = [((ann, rome), 1.0), ((), 0.0), ((ann,), 2 / 3), ((ann, wrong), 0.5), ((ann, rome, lost), 0.8)]
    for said, score in cases:
        assert agreement(NER, example(1), ner.Answer(entities=said)) == pytest.approx(score)
    nobody = example(1, text="nobody here")
    assert agreement(NER, nobody, ner.Answer()) == 1.0
    assert agreement(NER, nobody, ner.Answer(entities=(lost,))) == 0.0
    assert agreement(NER, nobody.model_copy(update={"gold": None}), ner.Answer()) is None


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ({"Brand": ("ACME",), "Color": (), "Use": ("sport",)}, 1.0),
        ({"Brand": ("Acme",), "Color": ("red",), "Use": ("sport",)}, 2 / 3),
        ({"Brand": (), "Color": ()}, 1 / 3),
        ({}, 1 / 3),
    ],
)
def test_agreement_of_attributes_by_hand(values, score):
    """Slots right of slots in gold; the alternatives Acme and ACME are both right; absent must be absent."""
    assert agreement(ATTRIBUTES, SHOE, attributes.Answer(values=values)) == pytest.approx(score)


def test_agreement_needs_a_slot():
    bare = SHOE.model_copy(update={"gold": attributes.Answer()})
    assert agreement(ATTRIBUTES, bare, attributes.Answer()) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"Brand": "Acme", "Color": "red", "Use": null}', True),
        ('{"Brand": "Umbrella", "Color": "red", "Use": null}', False),
        ('{"Brand": null, "Color": "red", "Use": "jogging"}', None),
        ('{"Brand": null, "Color": null, "Use": null}', None),
    ],
)
def test_grounding_of_attributes(text, found):
    parsed = parse(ATTRIBUTES, text, SHOE, PRODUCTS)
    assert isinstance(parsed, Parsed)
    assert grounded(ATTRIBUTES, SHOE, PRODUCTS, parsed) is found


def test_words_in_the_picture_are_a_source():
    """A teacher that cannot see is shown the picture's text; a value copied from there is grounded."""
    seen = SHOE.model_copy(update={"context": {"ocr": "UMBRELLA sports"}})
    said = '{"Brand": "UMBRELLA", "Color": null, "Use": null}'
    assert verdict(ATTRIBUTES, SHOE, PRODUCTS, prompt({}), said).reason == "ungrounded"
    assert verdict(ATTRIBUTES, seen, PRODUCTS, prompt({}), said).status == "kept"


def test_a_task_without_a_comparison_is_refused_by_name():
    other = Task(**{**vars(NER), "key": "alignment"})
    with pytest.raises(DataFault, match="alignment"):
        agreement(other, example(1), ner.Answer())


# --- free text ---


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("Ann1 is a person who looks at a city.", "stop", None),
        ("Ann1 is a pers", "length", "length"),
        ("  ", "stop", "empty"),
        ("none", "stop", "empty"),
        ("None.", "stop", "empty"),
        ("I'm sorry, but I cannot help with this picture.", "stop", "refused"),
        ("The given answer says that Ann1 is a person.", "stop", "leak"),
        ("Ann1 (PER) looks at Rome.", "stop", "leak"),
    ],
)
def test_rationales(text, finish, reason):
    found = verdict(NER, example(1), SCHEMA, prompt(None), text, finish)
    assert found.reason == reason
    assert (found.answer, found.agreement, found.grounded) == (None, None, None)


def test_a_tag_that_was_shown_is_no_leak():
    shown = prompt(None, "Explain these: Ann1 (PER), Rome (LOC). The given answer is right.")
    said = "Ann1 is a PER and Rome a LOC."
    assert verdict(NER, example(1), SCHEMA, shown, said).status == "kept"
    hinted = verdict(NER, example(1), SCHEMA, shown, f"{said} The given answer says so.")
    assert hinted.reason == "leak"  # scanned for also where the answer was given


@pytest.mark.parametrize(
    ("text", "labels", "leaks"),
    [
        ("as the gold labels show", (), True),
        ("according to the ground truth", (), True),
        ("it matches the Provided Answer", (), True),
        ("the answers that you have given me", (), True),
        ("a golden label of honour", (), True),
        ("gold was found on the ground", (), False),
        ("the answer is given by the picture", (), False),
        ("LOC. is written", ("LOC",), True),
        ("B-person", ("person",), True),
        ("a person", ("person",), False),
        ("the LOCAL PERson", ("LOC", "PER"), False),
        ("@PER and #LOC", ("LOC", "PER"), False),
    ],
)
def test_leaks(text, labels, leaks):
    assert bool(leak(text, labels=labels)) is leaks


def test_what_the_post_itself_says_is_no_leak():
    """A real case: a tweet about the Library of Congress calls it LOC."""
    said = "LOC stands for the Library of Congress. Its gold label shines."
    assert leak(said, source="The LOC honours them", labels=("LOC",)) == "it speaks of 'gold label'"
    assert leak(said, source="The LOC honours them with a gold  LABEL", labels=("LOC",)) == ""


# --- votes ---


def test_votes_count_samples_that_say_the_same():
    ann, rome = example(1).gold.entities
    one, turned = ner.Answer(entities=(ann, rome)), ner.Answer(entities=(rome, ann))
    other = ner.Answer(entities=(ann,))
    assert votes([one, turned, other, None]) == [0.5, 0.5, 0.25, None]
    assert votes([one]) == [None]
    assert votes([None, None]) == [None, None]
    assert votes([]) == []


def test_votes_ignore_case_and_spacing_of_values():
    answers = [attributes.Answer(values={"Brand": (value,)}) for value in ("Acme  Inc", "acme inc", "Acme")]
    assert votes(answers) == [2 / 3, 2 / 3, 1 / 3]
