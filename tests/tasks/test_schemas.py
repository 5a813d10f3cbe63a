"""Typed attributes, and schemas read out of every form: what is read, what is refused, all mistakes at once."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.tasks.attributes import MOST, Attribute, Example, Schema, answer_schema
from magister.tasks.schemas import BadSchema, read_schema, to_json_schema, to_nuextract
from magister.tasks.task import DataFault
from pydantic import BaseModel, Field, ValidationError


def of(source: Any) -> dict[str, dict[str, Any]]:
    """What was read, by name, without what is as usual."""
    dumped = (a.model_dump(exclude_defaults=True) for a in read_schema(source).attributes)
    return {d.pop("name"): d for d in dumped}


def mistakes(source: Any) -> tuple[str, ...]:
    with pytest.raises(BadSchema) as caught:
        read_schema(source)
    assert all(f"  - {m}" in str(caught.value) for m in caught.value.mistakes)
    return caught.value.mistakes


# --- attributes ---


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"options": ("a",)}, "options belong to the types one_of and several_of"),
        ({"type": "one_of"}, "options belong"),
        ({"type": "several_of"}, "options belong"),
        ({"type": "one_of", "options": ("a", "a")}, "stands twice"),
        ({"unit": "g"}, "a unit belongs to the type number"),
        ({"type": "boolean", "names": {"y": "true"}}, "names belong to no boolean"),
        ({"type": "boolean", "many": True}, "a boolean has one value"),
        ({"type": "one_of", "options": ("a",), "many": True}, "several are several_of"),
        ({"type": "several_of", "options": ("a",), "many": False}, "has many values"),
        ({"aliases": ("x",)}, "its own name"),
        ({"type": "boolean", "unit": "g", "many": True}, "a unit belongs .*; a boolean has one value"),
    ],
)
def test_fields_that_do_not_fit_the_type(fields, says):
    with pytest.raises(ValidationError, match=says):
        Attribute(name="x", **fields)


def test_what_a_type_implies():
    several = Attribute(name="x", type="several_of", options=("a", "b"))
    assert several.many
    assert Attribute(name="x", type="boolean").choices == ("true", "false")
    assert several.choices == ("a", "b")
    assert {t: Attribute(name="x", type=t).copied for t in ("verbatim", "number", "date", "free", "boolean")} == {
        "verbatim": True, "number": True, "date": True, "free": False, "boolean": False,
    }  # fmt: skip


def test_an_attribute_of_the_first_version_is_written_as_then():
    """The digest of a schema is stored with each corpus: new fields may not change it."""
    old = Schema(attributes=(Attribute(name="Brand", description="Maker.", examples=("Acme",)),))
    assert old.model_dump_json() == (
        '{"attributes":[{"name":"Brand","description":"Maker.","type":"verbatim","options":[],"examples":["Acme"],'
        '"categories":[]}]}'
    )


def test_answer_schema_of_every_type():
    schema = Schema(
        attributes=(
            *(Attribute(name=t, type=t) for t in ("verbatim", "free", "number", "date", "boolean")),
            Attribute(name="one", type="one_of", options=("a", "b")),
            Attribute(name="several", type="several_of", options=("a", "b")),
            Attribute(name="many", many=True),
        )
    )
    asked = tuple(a.name for a in schema.attributes)
    made = answer_schema(schema, Example(id="1", text="x", asked=asked))
    assert made["required"] == list(asked)
    assert all(p["anyOf"][1] == {"type": "null"} for p in made["properties"].values())
    value = {name: p["anyOf"][0] for name, p in made["properties"].items()}
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    assert all(value[name] == text for name in ("verbatim", "free", "number", "date"))
    assert value["boolean"] == {"type": "boolean"}
    choice = {"type": "string", "enum": ["a", "b"]}
    assert value["one"] == choice
    assert value["several"] == {"type": "array", "items": choice, "minItems": 1, "maxItems": 2}
    assert value["many"] == {"type": "array", "items": text, "minItems": 1, "maxItems": MOST}


def test_a_grammar_can_be_made_of_every_type():
    """What is asked of a constrained teacher must be a grammar that exists."""
    llguidance = pytest.importorskip("llguidance", reason="the extra with llguidance is not installed")
    schema = read_schema({"a": "number", "b": "boolean", "c": [["x", "y"]], "d": ["verbatim-string"], "e": "date"})
    written = json.dumps(answer_schema(schema, Example(id="1", text="x", asked=("a", "b", "c", "d", "e"))))
    assert llguidance.LLMatcher.validate_grammar(llguidance.LLMatcher.grammar_from_json_schema(written)) == ""


# --- JSON Schema and pydantic ---


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(BaseModel):
    width: float | None = Field(None, description="Width in cm.", ge=0)
    unit: Literal["cm", "in"] = "cm"


class Chair(BaseModel):
    """A chair for sale."""

    brand: str = Field(
        description="Maker.", examples=["Acme"], json_schema_extra={"x-type": "verbatim", "x-boundary": "no (R)"}
    )
    colour: Colour | None = Field(None, description="Of the seat.")
    colours: list[Colour] = []
    fit: Literal["slim", "wide", None] = None
    price: Decimal
    legs: int | None
    stackable: bool | None = None
    made: date
    size: Size | None = None
    tags: list[str] | None = Field(None, examples=[["new", "used"]])
    alone_or_many: str | list[str] = ""
    whatever: Any = None


def test_a_pydantic_model(caplog):
    with caplog.at_level(logging.WARNING):
        assert of(Chair) == {
            "brand": {"description": "Maker.", "examples": ("Acme",), "boundary": "no (R)"},
            "colour": {"description": "Of the seat.", "type": "one_of", "options": ("red", "blue")},
            "colours": {"type": "several_of", "options": ("red", "blue"), "many": True},
            "fit": {"type": "one_of", "options": ("slim", "wide")},
            "price": {"type": "number"},
            "legs": {"type": "number"},
            "stackable": {"type": "boolean"},
            "made": {"type": "date"},
            "size.width": {"type": "number", "description": "Width in cm."},
            "size.unit": {"type": "one_of", "options": ("cm", "in")},
            "tags": {"type": "free", "many": True, "examples": ("new", "used")},
            "alone_or_many": {"type": "free", "many": True},
            "whatever": {"type": "free"},
        }
    assert "minimum (#/properties/size/properties/width)" in caplog.text


def schema_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("node", "fields"),
    [
        ({"type": "string"}, {"type": "free"}),
        ({"type": ["string", "null"], "format": "date-time"}, {"type": "date"}),
        ({"enum": ["a", None, 3, 1.5]}, {"type": "one_of", "options": ("a", "3", "1.5")}),
        ({"enum": [True, False]}, {"type": "boolean"}),
        ({"const": "a"}, {"type": "one_of", "options": ("a",)}),
        ({"type": ["integer", "number"]}, {"type": "number"}),
        ({"anyOf": [{"const": "a"}, {"enum": ["b", "a"]}]}, {"type": "one_of", "options": ("a", "b")}),
        ({"type": "array"}, {"type": "free", "many": True}),
        ({"type": "array", "items": {"type": "integer"}, "x-unit": "cm"},
         {"type": "number", "unit": "cm", "many": True}),
        ({"$ref": "#/$defs/t", "description": "mine"}, {"type": "number", "description": "mine"}),
        ({"allOf": [{"$ref": "#/$defs/t"}]}, {"type": "number", "description": "its"}),
        ({"type": "string", "x-aliases": ["b"], "x-names": {"r": "red"}, "x-categories": ["c"], "examples": [1, None]},
         {"type": "free", "aliases": ("b",), "names": {"r": "red"}, "categories": ("c",), "examples": ("1",)}),
        (True, {"type": "free"}),
    ],
)  # fmt: skip
def test_a_property_of_json_schema(node, fields):
    document = schema_of(x=node) | {"$defs": {"t": {"type": "number", "description": "its"}}}
    assert of(document) == {"x": fields}


def test_every_mistake_of_a_json_schema_at_once(tmp_path):
    document = schema_of(
        good={"type": "string"},
        rows={"type": "array", "items": {"type": "object", "properties": {"a": {}}}},
        either={"type": ["integer", "boolean"]},
        open={"type": "object", "additionalProperties": {"type": "string"}},
        out={"$ref": "http://example.org/x"},
        lost={"$ref": "#/$defs/nothing"},
        loop={"$ref": "#/properties/loop"},
        nested={"type": "object", "properties": {"bad": {"type": "colour"}, "": {"type": "string"}}},
        never={"not": {"type": "string"}},
        nulls={"type": "null"},
        twice={"enum": ["a", "a"]},
        kind={"type": "string", "x-type": "colour"},
        flags={"type": "array", "items": {"type": "boolean"}},
        plain=3,
    )
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(document))
    found = mistakes(path)
    assert [m.split(":")[0].removeprefix("#/properties/") for m in found] == [
        *("rows", "either", "open", "out", "lost", "loop", "nested/properties/bad", "nested/properties/", "never"),
        *("nulls", "flags", "plain", "twice", "kind"),
    ]
    said = "\n".join(found)
    for words in ("a list of objects", "boolean or number", "open keys", "leads out of the file", "points to nothing",
                  "refers to itself", "type 'colour' is none of", "not cannot be read", "this has none", "stands twice",
                  "(types: verbatim, free, number", "a list of booleans", "not a schema: 3"):  # fmt: skip
        assert words in said


KEYWORDS = [
    *("type", "enum", "properties", "$ref", "$defs", "anyOf", "items", "a", "b", "examples", "name", "x-type"),
    *("description", "attributes", "allOf", "const", "format", "x-names"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
    | st.sampled_from(["string", "number", "#", "#/$defs/a", "null", "array", "object", "date"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(KEYWORDS),
        inner, max_size=4),
    max_leaves=14,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["properties", "$defs", "attributes", "type", "$ref", "a"]), JSON, max_size=4))
def test_no_document_makes_it_crash(document):
    with suppress(BadSchema):
        assert read_schema(document).attributes


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=8).filter(
    lambda t: t == t.strip() and len(t.splitlines()) == 1
)


@st.composite
def attributes(draw):
    kind = draw(st.sampled_from(["verbatim", "free", "number", "date", "boolean", "one_of", "several_of"]))
    fields = {"type": kind, "description": draw(TEXTS | st.just("")), "boundary": draw(TEXTS | st.just(""))}
    if kind in ("one_of", "several_of"):
        fields["options"] = tuple(draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True)))
    elif kind != "boolean":
        fields["many"] = draw(st.booleans())
    if kind == "number":
        fields["unit"] = draw(TEXTS | st.just(""))
    if kind != "boolean":
        fields["names"] = draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
    fields["examples"] = tuple(draw(st.lists(TEXTS, max_size=2)))
    return fields


@given(st.dictionaries(TEXTS.filter(lambda name: name[0] != "$"), attributes(), min_size=1, max_size=4))
def test_json_schema_round_trip(drawn):
    schema = Schema(attributes=tuple(Attribute(name=name, **fields) for name, fields in drawn.items()))
    written = json.loads(json.dumps(to_json_schema(schema, drawn)))
    assert read_schema(written) == schema
    assert read_schema(schema.model_dump(mode="json")) == schema
    listed = [a for a in schema.attributes if a.type != "one_of" or len(a.options) > 1]
    for attribute in (a for a in schema.attributes if a not in listed):
        with pytest.raises(DataFault, match="no choice of one"):
            to_nuextract(schema, [attribute.name])
    if listed:
        template = read_schema(to_nuextract(schema, [a.name for a in listed]))
        assert [(a.name, a.type, a.options, a.many) for a in template.attributes] == [
            (a.name, a.type, a.options, a.many) for a in listed
        ]


# --- NuExtract ---


def test_a_nuextract_template():
    template = {
        "Brand": "verbatim-string",
        "price": {"amount": "number", "currency": "currency"},
        "sizes": ["number"],
        "colour": ["red", "blue"],
        "features": [["dry", "warm"]],
        "organic": "boolean",
        "made": "date-time",
        "region": "region:DE",
        "old": "",
        "olds": [],
    }
    assert of(template) == {
        "Brand": {},
        "price.amount": {"type": "number"},
        "price.currency": {"type": "free", "description": "A currency."},
        "sizes": {"type": "number", "many": True},
        "colour": {"type": "one_of", "options": ("red", "blue")},
        "features": {"type": "several_of", "options": ("dry", "warm"), "many": True},
        "organic": {"type": "boolean"},
        "made": {"type": "date", "description": "A date with the time of day."},
        "region": {"type": "free", "description": "A region of DE."},
        "old": {},
        "olds": {"many": True},
    }
    schema = read_schema(template)
    plain = {name: template[name] for name in ("Brand", "sizes", "colour", "features", "organic")}
    assert to_nuextract(schema, plain) == plain


def test_every_mistake_of_a_template_at_once():
    found = mistakes({"a": "strin", "b": [{"c": "string"}], "d": 3, "e": {"f": ["boolean"]}, "g": [[]], "h": [1, 2]})
    assert [m.split(":")[0] for m in found] == ["a", "b", "d", "e.f", "g", "h"]
    assert "unknown type 'strin'; there are: verbatim-string" in found[0]


# --- CSV ---


def test_a_csv_file(tmp_path):
    path = tmp_path / "schema.csv"
    path.write_text(
        "\ufeffName,type,description,options,examples,unit,boundary,many,aliases,categories\r\n"
        'Brand,,"Maker, on the pack",,Acme | Marvis,,"no ""(R)""",,Make|Maker,\r\n'
        "Weight,number,,,,g,,no,,Foods|Drinks\r\n"
        ",,,,,,,,,\r\n"
        "Colour,several_of,,red|blue,,,,,,\r\n"
        "Flavour,free,,,,,,yes,,\r\n",
        encoding="utf-8",
    )
    assert of(path) == {
        "Brand": {"description": "Maker, on the pack", "examples": ("Acme", "Marvis"), "boundary": 'no "(R)"',
                  "aliases": ("Make", "Maker")},
        "Weight": {"type": "number", "unit": "g", "categories": ("Foods", "Drinks")},
        "Colour": {"type": "several_of", "options": ("red", "blue"), "many": True},
        "Flavour": {"type": "free", "many": True},
    }  # fmt: skip


def test_every_mistake_of_a_csv_file_at_once(tmp_path):
    path = tmp_path / "schema.csv"
    path.write_text("name,type,options,many\na,colour,,\nb,one_of,,\nc,,\n,,x,\nd,,,perhaps\na,,,\ne,free,,\ne,,,\n")
    found = mistakes(path)
    assert sorted(m.split(":")[0] for m in found) == [f"line {n}" for n in (2, 3, 4, 5, 6, 9)]
    assert "line 4: 3 cells under 4 columns" in found
    assert "line 6: many is yes or no, not 'perhaps'" in found
    path.write_text("name,kind\na,b\n")
    assert "unknown columns 'kind'; there are: name, type" in mistakes(path)[0]
    path.write_text('name,type\n"a,free\n')
    assert "line 2: not CSV" in mistakes(path)[0]


# --- files, and what all forms have in common ---


def test_our_own_dump_names_each_mistake():
    good = {"name": "a", "type": "number", "unit": "g"}
    assert of({"attributes": [good]}) == {"a": {"type": "number", "unit": "g"}}
    found = mistakes({"attributes": [good, {"name": "b", "unit": "g"}, {"type": "free"}, {"name": "c", "colour": 1}]})
    assert [m.split(":")[0] for m in found] == ["attributes[1]", "attributes[2]", "attributes[3]"]
    assert of({"attributes": ["red", "blue"]}) == {"attributes": {"type": "one_of", "options": ("red", "blue")}}


def test_one_name_twice_only_for_different_categories():
    def two(first, second):
        return {"attributes": [{"name": "a", "categories": first}, {"name": "a", "categories": second}]}

    assert len(read_schema(two(["x"], ["y"])).attributes) == 2
    assert "'a' is the name of an attribute before it" in mistakes(two(["x"], ["y", "x"]))[0]
    assert mistakes(two([], ["y"]))
    assert "'b'" in mistakes({"attributes": [{"name": "a", "aliases": ["b"]}, {"name": "b"}]})[0]
    assert "one line" in mistakes({"a\nb": "string"})[0]
    assert mistakes({"": "string", 3: "string", "a": {" ": "date"}}) == (
        ": no name: ''", "3: no name: 3", "a. : no name: ' '",
    )  # fmt: skip


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataFault, match="no such file"):
        read_schema(tmp_path / "x.json")
    with pytest.raises(DataFault, match=r"a schema is a \.json or a \.csv file"):
        read_schema("schema.yaml")
    path = tmp_path / "x.json"
    for text, says in (
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "no attribute"),
        ('{"a": "string", "a": "date"}', "'a' stands twice"),
        ("[" * 99999, "not JSON"),
    ):
        path.write_text(text)
        assert says in mistakes(path)[0]
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataFault, match="save it as UTF-8"):
        read_schema(path)
    assert "not a pydantic model" in mistakes(int)[0]
    schema = read_schema({"a": "string"})
    assert read_schema(schema) is schema
