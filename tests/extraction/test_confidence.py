"""Confidence out of token probabilities: where values stand in a reply, and calibration."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.extraction.confidence import LEAST_SLOTS, Calibrator, isotonic, of_reply, value_places
from magister.prompts.parse import Parsed, parse
from magister.tasks.attributes import Answer, Attribute, Example, Schema
from magister.tasks.task import DataFault
from magister.teachers.teacher import Reply
from sklearn.isotonic import IsotonicRegression

NAMES = ("Brand", "Net Content", "Colour")
EXAMPLE = Example(id="1", text="ACME soap 300 ml", asked=NAMES)


def reply(*tokens: tuple[str, float]) -> Reply:
    return Reply(key="k", text="".join(text for text, _ in tokens), tokens=tokens)


def shown(text: str, names=NAMES) -> dict[str, list[str]]:
    return {name: [text[a:b] for a, b in spans] for name, spans in value_places(text, names).items()}


WHOLE = {"Brand": ["ACME"], "Net Content": ["300 ml"], "Colour": ["null"]}


@pytest.mark.parametrize(
    "text",
    [
        '{"Brand": "ACME", "Net Content": "300 ml", "Colour": null}',
        'Sure:\n```json\n{"brand":"ACME","Net  Content":"300 ml","COLOUR":null}\n```\nBrand: other',
        "{'Brand': 'ACME', 'Net Content': '300 ml', 'Colour': null,}",
        '<think>{"Brand": "x"}</think>{"Brand": "ACME", "Net Content": "300 ml", "Colour": null, "Brand": "y"}',
        '{"attributes": {"Brand": "ACME", "Net Content": "300 ml", "Colour": null}}',
        'A {hint} first. {"x": {"Brand": "no"}, "Brand": "ACME", "Net Content": "300 ml", "Colour": null}',
        "<Brand>ACME</Brand>\n<Net Content>300 ml</Net Content>\n<Colour>null</Colour>",
        '<brand> ACME\n< Net Content >"300 ml"</net content>\n<Colour>null',
        'Brand: ACME\nNet Content: "300 ml"\nColour: null',
        "- **Brand:** ACME\n2. Net Content | 300 ml\n* colour：null\nBrand: again",
    ],
)
def test_values_are_found_in_every_form(text):
    assert shown(text) == WHOLE


def test_lists_numbers_and_truths_are_found():
    text = '{"Brand": ["ACME", "Bolt, \\"x\\""], "Net Content": 300.5, "Colour": []}'
    assert shown(text) == {"Brand": ["ACME", 'Bolt, \\"x\\"'], "Net Content": ["300.5"], "Colour": ["[]"]}
    assert shown('{"Brand": true, "Net Content": "", "Other": "x"}') == {"Brand": ["true"], "Net Content": ['""']}


def test_a_key_inside_a_value_is_no_key():
    text = json.dumps({"Net Content": '"Brand": "fake", {"Brand": "fake"}', "Brand": "ACME"})
    assert shown(text)["Brand"] == ["ACME"]


@pytest.mark.parametrize("text", ["", "{", "no idea", '{"Other": 1}', "{{{{", '"Brand"', "<Brand", "Brand"])
def test_what_is_not_there_is_not_found(text):
    assert shown(text) == {}


@given(st.text(st.sampled_from("{}[]:,\"'\\ \nBrandx<>/|-*"), max_size=60))
def test_any_text_can_be_searched(text):
    for spans in value_places(text, ("Brand", "x")).values():
        assert all(0 <= start <= end <= len(text) for start, end in spans)


VALUES = st.one_of(st.none(), st.text(st.sampled_from('aé中"\\{},:<> '), min_size=1).map(str.strip).filter(bool))


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)), st.booleans())
def test_in_json_the_place_holds_what_was_written(values, ascii_only):
    text = json.dumps(values, ensure_ascii=ascii_only)
    for name, (said,) in shown(text).items():
        assert said == json.dumps(values[name], ensure_ascii=ascii_only).removeprefix('"').removesuffix('"') or (
            values[name] is None and said == "null"
        )
    assert shown(text).keys() == values.keys()


def test_confidence_by_hand():
    said = reply(
        ('{"', -0.1), ("Brand", -0.2), ('": "', -0.3), ("AC", -0.5), ("ME", -0.7), ('", "Net Content": ', -9.0),
        ('"', -4.0), ("300", -0.25), (" ml", -0.35), ('", "Colour":', -1.0), (" null", -1.5), ("}", -0.01),
    )  # fmt: skip
    answer = Answer(values={"Brand": ("ACME",), "Net Content": ("300 ml",), "Colour": ()})
    found = of_reply(said, answer, EXAMPLE)
    assert found == {
        "Brand": pytest.approx(math.exp(-0.6)),
        "Net Content": pytest.approx(math.exp(-0.3)),
        "Colour": pytest.approx(math.exp(-1.5)),
    }


def test_parts_of_a_character_count_with_it():
    said = reply(("Brand: ", -3.0), ("", -0.5), ("é", -0.1), ("", -0.2), ("中", -0.4), ("\n", -5.0), ("", -7.0))
    found = of_reply(said, Answer(values={"Brand": ("é中",)}), EXAMPLE)
    assert found["Brand"] == pytest.approx(math.exp(-(0.5 + 0.1 + 0.2 + 0.4) / 4))


def test_a_null_word_is_an_absent_value_and_a_value_is_none():
    said = reply(("Brand: ", -3.0), ("not stated", -0.5), ("\nColour: ", -1.0), ("red", -0.25))
    found = of_reply(said, Answer(values={"Brand": (), "Colour": ()}), EXAMPLE)
    assert found["Brand"] == pytest.approx(math.exp(-0.5))
    assert found["Colour"] is None, "the reply says red, the answer says absent"
    assert found["Net Content"] is None


def test_without_tokens_or_with_those_of_another_text_there_is_none():
    answer = Answer(values={"Brand": ("ACME",)})
    none = dict.fromkeys(NAMES)
    assert of_reply(None, answer, EXAMPLE) == none
    assert of_reply(Reply(key="k", text="Brand: ACME"), answer, EXAMPLE) == none
    assert of_reply(Reply(key="k", text="Brand: ACME", tokens=(("Brand", -1.0),)), answer, EXAMPLE) == none


@given(
    st.fixed_dictionaries({name: st.sampled_from(["ACME", "300 ml", "soap", None]) for name in NAMES}),
    st.sampled_from(["json", "lines"]),
    st.data(),
)
def test_whatever_parses_has_a_confidence(values, form, data):
    """Cut anywhere into tokens, each with the same probability: so has every value."""
    lines = "\n".join(f"{name}: {value or 'n/a'}" for name, value in values.items())
    text = json.dumps(values) if form == "json" else lines
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    schema = Schema(attributes=tuple(Attribute(name=name) for name in NAMES))
    parsed = parse("attributes", text, EXAMPLE, schema)
    assert isinstance(parsed, Parsed)
    found = of_reply(reply(*((piece, -0.5) for piece in pieces)), parsed.answer, EXAMPLE)
    assert found == {name: pytest.approx(math.exp(-0.5)) for name in NAMES}


# --- calibration ---

POINTS = st.lists(st.tuples(st.sampled_from([n / 16 for n in range(17)]), st.booleans()), min_size=1, max_size=80)


@settings(deadline=None)
@given(POINTS)
def test_isotonic_regression_is_that_of_scikit_learn(points):
    x, y = np.array([p for p, _ in points]), np.array([float(r) for _, r in points])
    knots, shares = isotonic(x, y)
    reference = IsotonicRegression(out_of_bounds="clip").fit(x, y)
    at = np.linspace(-0.1, 1.1, 49)
    assert np.interp(at, knots, shares) == pytest.approx(reference.predict(at), abs=1e-9)
    assert knots == sorted(set(knots))
    assert shares == sorted(shares)


def test_a_calibrator_is_fitted_saved_and_loaded(tmp_path):
    rng = np.random.default_rng(0)
    confidences = rng.random(400)
    right = rng.random(400) < confidences**3
    made = Calibrator.fit(confidences, right)
    assert made.slots == 400
    assert made(0.9) == pytest.approx(0.9**3, abs=0.15)
    assert made(0.2) <= made(0.5) <= made(0.95)
    assert made(-5) == made(min(made.confidences))
    made.save(tmp_path / "c.json")
    again = Calibrator.load(tmp_path / "c.json")
    assert again == made
    assert json.loads((tmp_path / "c.json").read_text())["slots"] == 400


def test_too_few_slots_are_refused():
    with pytest.raises(DataFault, match=f"takes {LEAST_SLOTS} or more"):
        Calibrator.fit([0.5] * (LEAST_SLOTS - 1), [True] * (LEAST_SLOTS - 1))
    with pytest.raises(DataFault, match="no number"):
        Calibrator.fit([math.nan] * 60, [True] * 60)
    assert Calibrator.fit([0.5] * 60, [True, False] * 30)(0.1) == 0.5


@pytest.mark.parametrize(
    "written",
    [
        "", "[]", '{"slots": 60}', '{"slots": 60, "confidences": [], "shares": []}',
        '{"slots": 60, "confidences": [0.1], "shares": []}',
        '{"slots": 60, "confidences": [0.1, 0.0], "shares": [0, 1]}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_calibrator_is_named(tmp_path, written):
    (tmp_path / "bad.json").write_text(written)
    with pytest.raises(DataFault, match=r"bad\.json"):
        Calibrator.load(tmp_path / "bad.json")
    with pytest.raises(DataFault, match=r"none\.json"):
        Calibrator.load(tmp_path / "none.json")
