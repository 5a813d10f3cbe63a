"""Line answers: what is a bullet, a number or a quote round a value, and what belongs to the value itself."""

import pytest
from magister.prompts.faults import lines_of
from magister.prompts.parse import parse
from magister.tasks import attributes, ner


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("Star Wars - A New Hope | MISC", ["Star Wars - A New Hope | MISC"]),
        ("Level (2) Live | MISC", ["Level (2) Live | MISC"]),
        ("- a - b\n  * c\n• d\n\n", ["a - b", "c", "d"]),
        ("1. FC Köln | ORG", ["1. FC Köln | ORG"]),
        ("1. FC Köln | ORG\nBonn | LOC", ["1. FC Köln | ORG", "Bonn | LOC"]),
        ("1. FC Köln\n1. FC Union", ["1. FC Köln", "1. FC Union"]),
        ("1. a\n2) b\n 3. c", ["a", "b", "c"]),
        ("1. 1. FC Köln\n2. Bonn", ["1. FC Köln", "Bonn"]),
        ("2. a\n3. b", ["2. a", "3. b"]),
        ("", []),
    ],
)
def test_bullets_and_numbers_stand_at_the_start(body, lines):
    assert lines_of(body) == lines


def test_a_dash_in_a_name_stays():
    schema = ner.Schema(types=(ner.EntityType(name="MISC", title="other", guideline=""),))
    example = ner.Example(id="1", text="watching Star Wars - A New Hope")
    parsed = parse("ner", "- Star Wars - A New Hope | MISC", example, schema)
    assert [(e.text, e.start) for e in parsed.answer.entities] == [("Star Wars - A New Hope", 9)]


SCHEMA = attributes.Schema(attributes=(attributes.Attribute(name="Size"), attributes.Attribute(name="Brand")))
SCREEN = attributes.Example(
    id="1", text="""Dunkin' 15.6" screen, HardDrive, 'n' in 5 O'Clock""", asked=("Size", "Brand")
)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ('15.6"', '15.6"'),
        ('"15.6""', '15.6"'),
        ('"screen"', "screen"),
        ("'screen'", "screen"),
        ("Dunkin'", "Dunkin'"),
        ("'Dunkin''", "Dunkin'"),
        ('"Dunkin\'"', "Dunkin'"),
        ("'n' in 5 O'Clock", "'n' in 5 O'Clock"),
    ],
)
def test_quotes_go_only_as_a_pair_round_the_value(said, value):
    parsed = parse("attributes", f"Size: {said}", SCREEN, SCHEMA)
    assert parsed.answer.values["Size"] == (value,)
    assert parsed.ungrounded == ()


@pytest.mark.parametrize("said", ['""', "''"])
def test_an_empty_quotation_says_absent(said):
    assert parse("attributes", f"Size: {said}", SCREEN, SCHEMA).answer.values["Size"] == ()


@pytest.mark.parametrize("name", ["- **Size**: ", "**Size:** ", "* **Size** | ", "Size："])
def test_names_may_be_bold(name):
    parsed = parse("attributes", f'{name}15.6"\n- **Brand**: HardDrive', SCREEN, SCHEMA)
    assert parsed.answer.values == {"Size": ('15.6"',), "Brand": ("HardDrive",)}
    assert parsed.repaired == "lines"


def test_an_object_under_attributes():
    parsed = parse("attributes", '{"attributes": {"Size": "15.6\\"", "Brand": null}}', SCREEN, SCHEMA)
    assert parsed.answer.values == {"Size": ('15.6"',), "Brand": ()}
    assert parsed.repaired == "wrapped"


def test_an_attribute_of_that_name_is_no_wrapping():
    schema = attributes.Schema(attributes=(attributes.Attribute(name="attributes"),))
    example = SCREEN.model_copy(update={"asked": ("attributes",)})
    assert parse("attributes", '{"attributes": "screen"}', example, schema).answer.values == {"attributes": ("screen",)}
    assert parse("attributes", '{"attributes": {"attributes": "screen"}}', example, schema).name == "schema"


@pytest.mark.parametrize(
    ("text", "said", "value"),
    [
        ("Baseball Caps, a baseball cap", "Baseball Cap", "Baseball Cap"),
        ("Hard Drives: HardDrive", "Hard Drive", "Hard Drive"),
        ("a startup sells ART", "ART", "ART"),
        ("a baseball cap", "Baseball Cap", "baseball cap"),
    ],
)
def test_a_value_that_the_source_holds_stays_as_said(text, said, value):
    example = attributes.Example(id="1", text=text, asked=("Size",))
    parsed = parse("attributes", f'{{"Size": "{said}"}}', example, SCHEMA)
    assert (parsed.answer.values["Size"], parsed.ungrounded) == ((value,), ())


def test_the_exact_value_of_any_source_goes_first():
    example = attributes.Example(id="1", text="dry fit", context={"ocr": "Dry Fits"}, asked=("Size",))
    assert parse("attributes", '{"Size": "Dry Fit"}', example, SCHEMA).answer.values["Size"] == ("Dry Fit",)


def test_long_values_are_allowed_by_the_answer_schema():
    allowed = attributes.answer_schema(SCHEMA, SCREEN)["properties"]["Size"]["anyOf"][0]
    assert allowed["maxLength"] == 200
