"""Parsing: the ladder and its record, the closed set of faults, and that no text whatever makes it raise."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.prompts.faults import FaultName
from magister.prompts.parse import Fault, Parsed, Verdict, parse, parse_rationale, parse_verdicts
from magister.prompts.view import as_json
from magister.tasks import attributes, ner

KOBE = '{"entities": [{"text": "Kobe Bryant", "type": "PER"}]}'


@pytest.fixture(scope="session")
def read(probes):
    """Parse a text about the post."""
    return lambda text, finish="stop", example=probes.POST: parse("ner", text, example, probes.TYPES, finish)


@pytest.fixture(scope="session")
def read_product(probes):
    """Parse a text about the product."""
    return lambda text, finish="stop", example=probes.PRODUCT: parse(
        "attributes", text, example, probes.ATTRIBUTES, finish
    )


def said(parsed):
    """(text, type, start) of each entity."""
    assert isinstance(parsed, Parsed), parsed
    return [(e.text, e.type, e.start) for e in parsed.answer.entities]


# --- ner ---


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (KOBE, None),
        (f"\n {KOBE} \n", None),
        (f"```json\n{KOBE}\n```", "fences"),
        (f"Here it is:\n```\n{KOBE}\n``` Hope it helps", "fences"),
        (f"Sure! {KOBE}\n\nPost: another\nAnswer: {{}}", "first_object"),
        (f"As [1] says: {KOBE}", "first_object"),
        ("{'entities': [{'text': 'Kobe Bryant', 'type': 'PER'},],}", "quotes"),
        (
            "Answer: {'entities': [{'text': \"Kobe Bryant\", 'type': 'PER', 'x': None}]}",
            "first_object+quotes+extra_keys",
        ),
        ("Kobe Bryant | PER", "lines"),
        ("- Kobe Bryant | person\n", "lines+labels"),
        ('[{"text": "Kobe Bryant", "type": "PER"}]', "bare_list"),
        ('{"PER": ["Kobe Bryant"], "LOC": [], "MISC": null}', "by_type"),
        ('{"person": "Kobe Bryant", "LOC": "none"}', "by_type+labels"),
        ('{"entities": [{"text": "Kobe Bryant", "type": "per"}], "note": 1}', "extra_keys+labels"),
        (f"<think>maybe {{}} or LOC</think>\n{KOBE}", "thinking"),
        (f"hm, a person.</think>{KOBE}", "thinking"),
        (
            KOBE[:-2] + ', {"text": "Kobe Bryant", "type": "PER"}, {"text": "Kobe bryant", "type": "PER"}]}',
            "duplicates",
        ),
        ('{"entities": [{"text": "Kobe Bryant", "text": "Oslo", "type": "PER"}]}', "duplicate_keys"),
    ],
)
def test_ladder(read, text, repaired):
    parsed = read(text)
    assert said(parsed) == [("Kobe Bryant", "PER", 0)]
    assert parsed.repaired == repaired


@pytest.mark.parametrize("text", ['{"entities": []}', "none", "No entities.", "[]"])
def test_no_entities(read, text):
    assert said(read(text)) == []


@pytest.mark.parametrize(
    ("text", "finish", "name"),
    [
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        ("<think>never ends", "stop", "empty"),
        ("<think>never ends", "length", "length"),
        (KOBE[:-9], "length", "length"),
        ("Kobe Bryant | PER\nLos Ang", "length", "length"),
        ("I'm sorry, but I can't help with that.", "stop", "refused"),
        ("As an AI language model I do not", "stop", "refused"),
        ("抱歉，我无法回答", "stop", "refused"),
        ("The post is about Kobe.", "stop", "not_json"),
        (KOBE[:-9], "stop", "not_json"),
        ('{"entities": [{"text": "Kobe", "type": NaN}]}', "stop", "not_json"),
        ('{"entities": "Kobe"}', "stop", "schema"),
        ('{"entities": ["Kobe"]}', "stop", "schema"),
        ('{"entities": [{"text": "", "type": "PER"}]}', "stop", "schema"),
        ('{"entities": [{"text": 3, "type": "PER"}]}', "stop", "schema"),
        ('{"text": "Kobe", "type": "PER"}', "stop", "schema"),
        ("{}", "stop", "schema"),
        ('{"PER": [{"text": "Kobe", "type": "PER"}], "LOC": [{"text": "Los', "length", "length"),
        ('{"entities": [{"text": "Kobe", "type": "ANIMAL"}]}', "stop", "unknown_label"),
        ('{"entities": [{"text": "Kobe", "type": ["PER"]}]}', "stop", "unknown_label"),
        ("Kobe | ANIMAL", "stop", "unknown_label"),
        ('{"entities": [' + '{"text": "Kobe", "type": "PER"}, ' * 30, "length", "loop"),
        ('{"entities": [' + "\n" * 200, "length", "loop"),
        ("ha" * 100, "stop", "loop"),
        ("[" * 100_000, "stop", "loop"),
    ],
)
def test_faults(read, text, finish, name):
    found = read(text, finish)
    assert isinstance(found, Fault), found
    assert found.name == name


def test_a_run_on_after_a_whole_answer_is_not_cut_short(read):
    parsed = read(f"{KOBE}\n\nPost: something else, and so on and on and", "length")
    assert said(parsed) == [("Kobe Bryant", "PER", 0)]
    assert parsed.repaired == "first_object"


def test_mentions_are_aligned_and_put_in_reading_order(read):
    text = json.dumps(
        {
            "entities": [
                {"text": "Kobe", "type": "PER"},
                {"text": "los angeles", "type": "LOC"},
                {"text": "Staples Center", "type": "LOC"},
                {"text": "KobeBryant", "type": "PER"},
            ]
        }
    )
    parsed = read(text)
    # "Kobe" is said before "Kobe Bryant", but the longer mention takes its place first.
    assert said(parsed) == [
        ("Kobe Bryant", "PER", 0),
        ("Los Angeles", "LOC", 21),
        ("Kobe", "PER", 37),
        ("Staples Center", "LOC", None),
    ]
    assert parsed.ungrounded == ("Staples Center",)
    assert all(e.start is None or e.text == "Kobe Bryant lands in Los Angeles ! # Kobe"[e.start : e.end]
               for e in parsed.answer.entities)  # fmt: skip


def test_one_place_with_two_types_is_kept_as_said(read):
    text = '{"entities": [{"text": "Los Angeles", "type": "LOC"}, {"text": "Los Angeles", "type": "MISC"}]}'
    assert said(read(text)) == [("Los Angeles", "LOC", 21), ("Los Angeles", "MISC", 21)]


@pytest.mark.parametrize("text", [
    '{"LOC": ["New York"], "MISC": ["New York Times"]}',
    '{"MISC": ["New York Times"], "LOC": ["New York"]}',
    "New York | LOC\nNew York Times | MISC",
])  # fmt: skip
def test_a_shorter_name_is_not_sought_in_a_longer_one(read, text):
    post = ner.Example(id="1", text="The New York Times moved within New York today")
    assert said(read(text, example=post)) == [("New York Times", "MISC", 4), ("New York", "LOC", 32)]


def test_a_name_inside_another_is_found_where_it_stands_nowhere_else(read):
    post = ner.Example(id="1", text="The New York Times")
    text = '{"LOC": ["New York"], "MISC": ["New York Times"]}'
    assert said(read(text, example=post)) == [("New York", "LOC", 4), ("New York Times", "MISC", 4)]


# --- attributes ---

SHIRT = {"Brand": "ACME", "Neckline": "V-Neck"}


@pytest.mark.parametrize(
    ("text", "values", "repaired"),
    [
        ('{"Brand": "ACME", "Neckline": "V-Neck", "Use": null}', SHIRT, None),
        ('{"Brand": "acme", "Neckline": "v-neck", "Use": "sport"}', SHIRT | {"Use": "sport"}, None),
        ('{"Brand": "N/A", "Neckline": "unknown", "Use": " "}', {}, None),
        ('{"Brand": "not specified", "Neckline": "none", "Use": "无"}', {"Neckline": "None"}, None),
        ('{"brand": "Runner\'s", "Neckline": null, "Use": null}', {"Brand": "Runner’s"}, "labels"),
        ('{"Brand": "ACME"}', {"Brand": "ACME"}, "missing_keys"),
        ('{"Brand": 100, "Neckline": null, "Use": null}', {"Brand": "100"}, "numbers"),
        ('{"Brand": ["ACME", null], "Neckline": null, "Use": []}', {"Brand": "ACME"}, "list"),
        ('{"Brand": "100% cotton", "Neckline": null, "Use": null}', {"Brand": "100 % Cotton"}, None),
        ("Brand: ACME\nNeckline: V-Neck\nUse: n/a", SHIRT, "lines"),
        ('- Brand | "ACME"', {"Brand": "ACME"}, "lines+missing_keys"),
        ('{"Brand": "ACME", "Neckline": null, "Use": null, "Size": "XL"}', {"Brand": "ACME"}, "not_asked"),
        ('{"Brand": "Dry Fit", "Neckline": null, "Use": null}', {"Brand": "Dry Fit"}, None),
    ],
)  # fmt: skip
def test_attribute_values(read_product, text, values, repaired):
    parsed = read_product(text)
    assert isinstance(parsed, Parsed), parsed
    assert {k: v[0] for k, v in parsed.answer.values.items() if v} == values
    assert list(parsed.answer.values) == ["Brand", "Neckline", "Use"]
    assert parsed.repaired == repaired
    assert parsed.ungrounded == ()


def test_a_value_that_is_not_in_the_source_is_listed(read_product):
    parsed = read_product('{"Brand": "Nike", "Neckline": null, "Use": "free words"}')
    assert parsed.answer.values["Brand"] == ("Nike",)
    assert parsed.ungrounded == ("Nike",)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"Colour": "red"}', "unknown_label"),
        ('{"Brand": "ACME", "Colour": null}', "unknown_label"),
        ('{"Neckline": "Halter"}', "schema"),
        ('{"Brand": {"value": "ACME"}}', "schema"),
        ('{"Brand": true}', "schema"),
        ('{"Brand": [["ACME"]]}', "schema"),
        ('{"Brand": "ACME", "brand": "Nike"}', "schema"),
        ("{}", "schema"),
        ("Brand: ACME\nBrand: Nike", "schema"),
        ("It is a shirt", "not_json"),
        ("Note: it is a shirt", "not_json"),
        ("Brand: ACME\nthat is all", "not_json"),
        ("Brand: ACME\nColour: red", "unknown_label"),
    ],
)
def test_attribute_faults(read_product, text, name):
    found = read_product(text)
    assert isinstance(found, Fault), found
    assert found.name == name


# --- properties ---

ALPHABET = st.sampled_from(
    [
        *list("{}[]\",:'|`\\ \n\x00�é👍PER LOC Kobe null entities 0-1."),
        "```",
        "<think>",
        "\\ud800",
        "text",
        "type",
    ]
)
WILD = st.one_of(st.text(), st.lists(ALPHABET, max_size=60).map("".join), st.from_regex(r"\{.*\}"))
KEYS = ["entities", "text", "type", "Brand", "Use", "PER", "x"]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def check(found, example):
    """A result that can be written to any file, with spans that are the text's."""
    assert isinstance(found, Parsed | Fault)
    if isinstance(found, Fault):
        assert found.name in get_args(FaultName)
        found.detail.encode()
        return
    if not isinstance(found.answer, str):
        found.answer.model_dump_json().encode()
    for entity in getattr(found.answer, "entities", ()):
        if entity.start is not None:
            assert example.text[entity.start : entity.end] == entity.text


@given(WILD | JSON.map(json.dumps) | JSON.map(repr), st.sampled_from(["stop", "length", "error"]))
def test_no_text_makes_it_raise(read, read_product, probes, text, finish):
    check(read(text, finish), probes.POST)
    check(read_product(text, finish), probes.PRODUCT)
    check(parse_rationale(text, finish), None)
    assert isinstance(parse_verdicts(text, 2, finish), Parsed | Fault)


PAIR = st.tuples(
    st.sampled_from(["Kobe Bryant", "Los Angeles", "Kobe", "lands", "!"]),
    st.sampled_from(["PER", "LOC", "MISC"]),
)


@given(st.lists(PAIR, unique_by=lambda pair: pair[0], max_size=5))
def test_entities_round_trip(read, pairs):
    answer = ner.Answer(entities=tuple(ner.Entity(text=t, type=k) for t, k in pairs))
    parsed = read(as_json(answer))
    assert sorted((e.text, e.type) for e in parsed.answer.entities) == sorted(pairs)
    assert parsed.repaired is None
    assert parsed.ungrounded == ()


@given(st.sampled_from([(), ("ACME",), ("Cotton",)]), st.sampled_from([(), ("V-Neck",), ("None",)]),
       st.text("abc xyz", min_size=1).filter(lambda t: t == t.strip()))  # fmt: skip
def test_values_round_trip(read_product, brand, neckline, use):
    answer = attributes.Answer(values={"Brand": brand, "Neckline": neckline, "Use": (use,)})
    parsed = read_product(as_json(answer))
    assert parsed == Parsed(answer)


def test_gold_of_the_probes_round_trips(read, probes):
    assert read(as_json(probes.POST.gold)).answer == probes.POST.gold


# --- free text ---


@pytest.mark.parametrize(
    ("text", "clean", "repaired"),
    [
        ("Kobe: a basketball player.", "Kobe: a basketball player.", None),
        ("Sure, here is the explanation:\n\nKobe is  a player.", "Kobe is a player.", "opening"),
        ("Certainly! Kobe is a player.", "Kobe is a player.", "opening"),
        ("Here's a possible caption: a man", "a man", "opening"),
        ("<s>A man [SEP] a ball</s>", "A man a ball", "tags"),
        ("<think>hm</think>A man", "A man", "thinking"),
        ('"A new post"', "A new post", "quotes"),
        ("Cafe\u0301", "Café", None),
        ("I can't believe Messi is here", "I can't believe Messi is here", None),
        ("I'm sorry for your loss , Kobe", "I'm sorry for your loss , Kobe", None),
        ("Great day in Paris", "Great day in Paris", None),
        ("Sure Thing is a song", "Sure Thing is a song", None),
        ("1 < 2 and <3", "1 < 2 and <3", None),
        ("unrelated", "unrelated", None),
        (
            "1: yes - so it says\n2: yes - so it says\n3: yes - so it says\n4: yes - so it says",
            "1: yes - so it says 2: yes - so it says 3: yes - so it says 4: yes - so it says",
            None,
        ),
    ],
)
def test_rationale_hygiene(text, clean, repaired):
    assert parse_rationale(text) == Parsed(clean, repaired)


@pytest.mark.parametrize(
    ("text", "finish", "name"),
    [
        ("I'm sorry, but I can't assist with that request.", "stop", "refused"),
        ("Sorry, I cannot identify people.", "stop", "refused"),
        ("I cannot provide a description", "stop", "refused"),
        ("I am unable to see the picture.", "stop", "refused"),
        ("Sure! I can't help with that.", "stop", "refused"),
        ("", "stop", "empty"),
        ("<s></s>", "stop", "empty"),
        ("Kobe is a player who", "length", "length"),
        ("Kobe is a player. " * 20, "length", "loop"),
        ("".join(f"{n}. The bus is a party bus.\n" for n in range(1, 7)), "stop", "loop"),
    ],
)
def test_rationale_faults(text, finish, name):
    found = parse_rationale(text, finish)
    assert isinstance(found, Fault), found
    assert found.name == name


def test_verdicts():
    text = "Verdicts:\n1: yes - a city\n2. **No** - the film, not the person\n3) correct"
    parsed = parse_verdicts(text, 3)
    assert parsed == Parsed((Verdict(True, "a city"), Verdict(False, "the film, not the person"), Verdict(True)))
    assert parse_verdicts(text, 4) == Fault("schema", "no verdict on claim 4 of 4")
    assert parse_verdicts(text, 2).repaired == "extra_lines"
    assert parse_verdicts("I'm sorry, I can't do that", 1).name == "refused"
    assert parse_verdicts("1: yes", 2, "length").name == "length"
