"""Relations: labels of pairs and triples of texts in every shape, the closed set of faults, prompts in both forms."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.prompts.faces import face
from magister.prompts.faults import FaultName
from magister.prompts.library import find, templates
from magister.prompts.parse import Fault, Parsed, parse
from magister.prompts.render import InputFault, render
from magister.prompts.view import as_json, claims
from magister.tasks.ner import Entity
from magister.tasks.relations import Answer, Example, RelationType, Schema, Triple

SCHEMA = Schema(
    relations=(
        RelationType(
            name="/per/org/member_of",
            title="works for",
            guideline="From person to organization.",
            head="person",
            tail="organization",
        ),
        RelationType(name="/per/per/alternate_names", title="same person", guideline="Two names of one person."),
        RelationType(name="/org/org/alternate_names", title="same organization", guideline="Two names of one."),
        RelationType(name="located-at", title="located at", guideline="Where it is."),
        RelationType(name="contain", title="contains", guideline="Lies inside.", head="place", tail="place"),
    )
)
TEXT = "Kobe Bryant joins the Lakers in Los Angeles , # Kobe"


def at(words, text=TEXT):
    return Entity(text=words, type="", start=text.index(words), end=text.index(words) + len(words))


PAIR = Example(id="r1", text=TEXT, pair=(at("Kobe Bryant"), at("Lakers")), gold=Answer(relation="/per/org/member_of"))
JOINT = Example(
    id="r2",
    text=TEXT,
    gold=Answer(
        triples=(
            Triple(head=at("Kobe Bryant"), relation="/per/org/member_of", tail=at("Lakers")),
            Triple(head=at("Lakers"), relation="located-at", tail=at("Los Angeles")),
        )
    ),
)


def read(text, example, finish="stop"):
    return parse("relations", text, example, SCHEMA, finish)


# --- a given pair ---


@pytest.mark.parametrize(
    ("text", "label", "repaired"),
    [
        ('{"relation": "/per/org/member_of"}', "/per/org/member_of", None),
        ('{"relation": "None"}', "None", None),
        ('```json\n{"relation": "None"}\n```', "None", "fences"),
        ("Sure! {'relation': 'located-at'}", "located-at", "first_object+quotes"),
        ('{"relation": "Works For"}', "/per/org/member_of", "labels"),
        ('{"relation": "MEMBER OF"}', "/per/org/member_of", "labels"),
        ('{"relation": "per/org/member-of"}', "/per/org/member_of", "labels"),
        ('{"relation": "Located_At"}', "located-at", "labels"),
        ('{"relation": "same person"}', "/per/per/alternate_names", "labels"),
        ('{"relation": "no relation"}', "None", "labels"),
        ('{"relation": null}', "None", "labels"),
        ('{"relation": "none", "reason": "x"}', "None", "extra_keys+labels"),
        ('{"label": "None"}', "None", "keys"),
        ('{"relation": ["None"]}', "None", "list"),
        ('{"head": "Kobe Bryant", "relation": "None", "tail": "lakers"}', "None", "restated"),
        ('{"head": "Lakers", "relation": "works for", "tail": "Kobe Bryant"}', "/per/org/member_of", "labels+reversed"),
        (
            '{"triples": [{"head": "Lakers", "relation": "located-at", "tail": "Los Angeles"},'
            ' {"head": "KobeBryant", "relation": "works for", "tail": "Lakers"}]}',
            "/per/org/member_of",
            "labels+restated",
        ),
        (
            '{"triples": [{"head": "Lakers", "relation": "located-at", "tail": "Kobe Bryant"},'
            ' {"head": "Kobe Bryant", "relation": "None", "tail": "Lakers"}]}',
            "None",
            "restated",
        ),
        ('{"triples": []}', "None", "restated"),
        ('[["Kobe Bryant", "located-at", "Lakers"]]', "located-at", "bare_list+list+restated"),
        ("works for", "/per/org/member_of", "lines+labels"),
        ("Relation: /per/org/member_of.", "/per/org/member_of", "lines"),
        ("The answer is: **located at**", "located-at", "lines+labels"),
        ("none", "None", "lines+labels"),
        ("None\n\nThe two merely stand side by side.", "None", "lines+extra_keys"),
        ("- Kobe Bryant | works for | Lakers", "/per/org/member_of", "lines+labels+restated"),
        ("Lakers | works for | Kobe Bryant", "/per/org/member_of", "lines+labels+reversed"),
        ("works for - he joins the Lakers", "/per/org/member_of", "lines+extra_keys+labels"),
        ("**located-at** – as said", "located-at", "lines+extra_keys"),
        ("none - they only stand side by side", "None", "lines+extra_keys+labels"),
    ],
)
def test_labels_of_a_pair(text, label, repaired):
    assert read(text, PAIR) == Parsed(Answer(relation=label), repaired)


@pytest.mark.parametrize("label", ["contain", "located-at", "/per/per/alternate_names", "None"])
def test_a_label_from_tail_to_head_needs_ends_of_two_types(label):
    """Lakers | contain | Kobe Bryant does not say that Kobe Bryant contains the Lakers."""
    for text in (
        f"Lakers | {label} | Kobe Bryant",
        f'{{"head": "Lakers", "relation": "{label}", "tail": "Kobe Bryant"}}',
    ):
        found = read(text, PAIR)
        assert isinstance(found, Fault), found
        assert found.name == "schema"


@pytest.mark.parametrize(
    "text", ["not works for - no", "he works - for the Lakers", "works for - yes\nNone - no\nNone"]
)
def test_prose_with_a_dash_is_no_label(text):
    assert isinstance(read(text, PAIR), Fault)


@pytest.mark.parametrize(
    ("text", "finish", "name"),
    [
        ('{"relation": "alternate names"}', "stop", "unknown_label"),
        ('{"relation": "alternate_names"}', "stop", "unknown_label"),
        ('{"relation": "married to"}', "stop", "unknown_label"),
        ('{"relation": ""}', "stop", "unknown_label"),
        ('{"relation": 3}', "stop", "unknown_label"),
        ('{"relation": {"a": 1}}', "stop", "unknown_label"),
        ('{"relation": ["None", "located-at"]}', "stop", "unknown_label"),
        ('{"answer": "None"}', "stop", "schema"),
        ("{}", "stop", "schema"),
        ('{"head": "Kobe Bryant", "relation": "None"}', "stop", "schema"),
        ('{"head": "Kobe Bryant", "relation": "located-at", "tail": "Los Angeles"}', "stop", "schema"),
        ('[["Kobe Bryant", "located-at", "Lakers"], ["Kobe Bryant", "None", "Lakers"]]', "stop", "schema"),
        ("works for\nlocated at", "stop", "schema"),
        ("They are friends.", "stop", "not_json"),
        ("They are friends.\nworks for", "stop", "not_json"),
        ('{"relation": "/per/org', "length", "length"),
        ("works fo", "length", "length"),
        ("", "stop", "empty"),
        ("I'm sorry, but I can't help with that.", "stop", "refused"),
        ('{"relation": "' + "member " * 60, "length", "loop"),
    ],
)
def test_faults_of_a_pair(text, finish, name):
    found = read(text, PAIR, finish)
    assert isinstance(found, Fault), found
    assert found.name == name


def test_a_label_that_may_be_two_says_which():
    found = read('{"relation": "alternate names"}', PAIR)
    assert found.detail == "'alternate names' may be /per/per/alternate_names or /org/org/alternate_names"


def test_another_word_for_none_is_the_schemas_own():
    schema = Schema(relations=SCHEMA.relations, none="NA")
    for said in ("NA", "na", "None", "no_relation"):
        found = parse("relations", json.dumps({"relation": said}), PAIR, schema)
        assert found.answer.relation == "NA"


# --- the triples of a text ---

MEMBER = ("Kobe Bryant", "/per/org/member_of", "Lakers")
WHOLE = '{"triples": [{"head": "Kobe Bryant", "relation": "/per/org/member_of", "tail": "Lakers"}]}'


def said(found):
    assert isinstance(found, Parsed), found
    return [(t.head.text, t.relation, t.tail.text) for t in found.answer.triples]


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (WHOLE, None),
        (WHOLE[12:-1], "bare_list"),
        (WHOLE.replace("triples", "relations"), "keys"),
        (WHOLE.replace("head", "subject").replace("tail", "object"), "keys"),
        (WHOLE.replace("/per/org/member_of", "works for"), "labels"),
        (WHOLE.replace("}]", ', "why": "so"}]'), "extra_keys"),
        (WHOLE.replace("]}", '], "note": 1}'), "extra_keys"),
        (WHOLE.replace("Kobe Bryant", "kobe  bryant"), None),
        (f"<think>hm</think>{WHOLE}", "thinking"),
        ('{"triples": [["Kobe Bryant", "/per/org/member_of", "Lakers"]]}', "list"),
        ('{"/per/org/member_of": [["Kobe Bryant", "Lakers"]], "located-at": []}', "by_relation"),
        ('{"works for": ["Kobe Bryant", "Lakers"], "located at": "none"}', "by_relation+labels"),
        ('{"/per/org/member_of": [{"head": "Kobe Bryant", "tail": "Lakers"}]}', "by_relation"),
        ("Kobe Bryant | works for | Lakers", "lines+labels"),
        (
            '{"triples": [{"head": "Kobe Bryant", "relation": "/per/org/member_of", "tail": "Lakers"},'
            ' {"head": "Kobe Bryant", "relation": "None", "tail": "Los Angeles"},'
            ' {"head": "Kobe Bryant", "relation": "/per/org/member_of", "tail": "lakers"}]}',
            "none+duplicates",
        ),
    ],
)
def test_triples(text, repaired):
    found = read(text, JOINT)
    assert said(found) == [MEMBER]
    assert found.repaired == repaired
    assert found.ungrounded == ()


def test_direction_is_kept_as_said():
    text = WHOLE.replace("Kobe Bryant", "x").replace("Lakers", "Kobe Bryant").replace('"x"', '"Lakers"')
    assert said(read(text, JOINT)) == [("Lakers", "/per/org/member_of", "Kobe Bryant")]


@pytest.mark.parametrize("text", ['{"triples": []}', "none", "No relations.", "[]", '{"located-at": null}'])
def test_no_triples(text):
    assert said(read(text, JOINT)) == []


@pytest.mark.parametrize(
    ("text", "finish", "name"),
    [
        ("{}", "stop", "schema"),
        ('{"triples": "none at all"}', "stop", "schema"),
        ('{"head": "Kobe Bryant", "relation": "located-at", "tail": "Lakers"}', "stop", "schema"),
        ('{"triples": [{"relation": "located-at"}]}', "stop", "schema"),
        ('{"triples": [{"head": "", "relation": "located-at", "tail": "Lakers"}]}', "stop", "schema"),
        ('{"triples": [{"head": 3, "relation": "located-at", "tail": "Lakers"}]}', "stop", "schema"),
        ('{"triples": ["located-at"]}', "stop", "schema"),
        ('{"located-at": [["Lakers"]]}', "stop", "schema"),
        ('{"located-at": 3}', "stop", "schema"),
        ('{"triples": [{"head": "Kobe", "relation": "likes", "tail": "Lakers"}]}', "stop", "unknown_label"),
        ('{"answer": []}', "stop", "unknown_label"),
        ("Kobe | works for", "stop", "not_json"),
        ("The post names Kobe.", "stop", "not_json"),
        (WHOLE[:-9], "length", "length"),
        (WHOLE[:-9], "stop", "not_json"),
    ],
)
def test_faults_of_a_text(text, finish, name):
    found = read(text, JOINT, finish)
    assert isinstance(found, Fault), found
    assert found.name == name


def test_mentions_are_aligned_and_what_is_not_there_is_listed():
    text = json.dumps(
        {
            "triples": [
                {"head": "Los Angeles", "relation": "located-at", "tail": "California"},
                {"head": "kobe bryant", "relation": "/per/per/alternate_names", "tail": "Kobe"},
            ]
        }
    )
    found = read(text, JOINT)
    spots = [(t.head.text, t.head.start, t.tail.text, t.tail.start) for t in found.answer.triples]
    # "Kobe" is the hashtag at the end, since the first "Kobe" is part of the triple's own head.
    assert spots == [("Kobe Bryant", 0, "Kobe", 48), ("Los Angeles", 32, "California", None)]
    assert found.ungrounded == ("California",)


# --- properties ---

MENTION = st.sampled_from(["Kobe Bryant", "Lakers", "Los Angeles", "#"])
TRIPLE = st.tuples(MENTION, st.sampled_from(SCHEMA.labels), MENTION).filter(lambda t: t[0] != t[2])


@given(st.lists(TRIPLE, unique=True, max_size=6))
def test_triples_round_trip(triples):
    answer = Answer(triples=tuple(Triple(head=at(h), relation=r, tail=at(t)) for h, r, t in triples))
    found = read(as_json(answer), JOINT)
    assert set(found.answer.triples) == set(answer.triples)
    assert (found.repaired, found.ungrounded) == (None, ())


@pytest.mark.parametrize("label", [*SCHEMA.labels, SCHEMA.none])
def test_labels_round_trip(label):
    answer = Answer(relation=label)
    assert read(as_json(answer), PAIR) == Parsed(answer)


LETTERS = st.sampled_from(
    [*list("{}[]\",:'|\\ \n\x00é0-"), "Kobe Bryant", "Lakers", *SCHEMA.labels, "works for", "None"]
)
KEYS = st.sampled_from(["triples", "relations", "head", "relation", "tail", "subject", "located-at", "works for", "x"])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.sampled_from(["Kobe Bryant", "Lakers", "located-at", "\ud800", ""])
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
WILD = st.text() | st.lists(LETTERS, max_size=40).map("".join)


@given(WILD | JSON.map(json.dumps) | JSON.map(repr), st.sampled_from(["stop", "length", "error"]))
def test_no_text_makes_it_raise(text, finish):
    for example in (PAIR, JOINT):
        found = read(text, example, finish)
        if isinstance(found, Fault):
            assert found.name in get_args(FaultName)
            found.detail.encode()
            continue
        found.answer.model_dump_json().encode()
        assert (found.answer.relation is None) == (example.pair is None)
        assert found.answer.relation in (None, *SCHEMA.labels, SCHEMA.none)
        for mention in (m for t in found.answer.triples for m in (t.head, t.tail)):
            assert mention.start is None or TEXT[mention.start : mention.end] == mention.text


# --- prompts ---


def asked(name, example, **extra):
    return render(f"relations/{name}", "relations", example, SCHEMA, **extra).messages


def test_a_pair_is_asked_by_its_names_a_text_without():
    for template in templates("relations"):
        if not template.takes and not template.sees_gold and "picture" not in template.front.needs:
            pair, joint = ("\n".join(m.text for m in asked(template.front.mode, e)) for e in (PAIR, JOINT))
            assert "First name (head): Kobe Bryant\nSecond name (tail): Lakers" in pair, template.name
            assert "name (head):" not in joint, template.name


def test_queries_ask_from_the_head_or_of_the_whole_text():
    pair = asked("queries", PAIR)[-1].text
    question = 'To whom or what does "Kobe Bryant" have the relation "works for" (person to organization)?'
    assert f"1. [/per/org/member_of] {question}" in pair
    system = asked("queries", JOINT, wording=2)[0].text
    assert "4. [located-at] Complete the triple with names from the text: (?, located at, ?)." in system


def test_a_pairs_prompts_share_their_opening():
    """What does not change from post to post stands first, so that an engine computes it once."""
    other = PAIR.model_copy(update={"id": "r3", "pair": (at("Lakers"), at("Los Angeles"))})
    for mode in ("zero_shot", "queries"):
        assert asked(mode, PAIR)[0] == asked(mode, other)[0]


def test_demonstrations_carry_their_own_pair():
    other = Example(id="r9", text="Ann of Oslo", pair=(at("Ann", "Ann of Oslo"), at("Oslo", "Ann of Oslo")))
    shown = asked("few_shot", PAIR, demonstrations=[(other, Answer(relation="None"))])[-1].text
    first = 'Post: Ann of Oslo\nFirst name (head): Ann\nSecond name (tail): Oslo\nAnswer: {"relation": "None"}\n\n'
    assert shown.startswith(f"{first}Post: Kobe")
    assert shown.endswith("Second name (tail): Lakers\nAnswer:")


def test_a_name_to_swap_is_one_of_the_pair_or_of_a_gold_triple():
    subjects = face("relations").subjects
    assert [m.text for m in subjects(("gold", "entity"), PAIR)] == ["Kobe Bryant", "Lakers"]
    assert [m.text for m in subjects(("gold", "entity"), JOINT)] == ["Kobe Bryant", "Lakers", "Los Angeles"]
    assert subjects(("gold",), JOINT) == (None,)
    shown = asked("rationale.entity", JOINT, entity=at("Lakers"))[-1].text
    assert 'To stay true: works for, from "Kobe Bryant" to "Lakers". From person to organization.' in shown
    assert 'To stay true: located at, from "Lakers" to "Los Angeles". Where it is.' in shown
    with pytest.raises(InputFault, match="'joins' is not among its gold"):
        asked("rationale.entity", PAIR, entity=at("joins"))


def test_claims():
    assert claims(SCHEMA, PAIR.gold, PAIR) == (
        'The relation /per/org/member_of (works for) holds from "Kobe Bryant" to "Lakers"',
    )
    assert claims(SCHEMA, Answer(relation="None"), PAIR) == ('"Kobe Bryant" has none of these relations to "Lakers"',)
    assert len(claims(SCHEMA, JOINT.gold, JOINT)) == 2
    assert claims(SCHEMA, Answer(), JOINT) == ("The text states none of these relations",)


def test_types_of_mentions_do_not_tell_the_relation():
    """MNRE's types come from the gold label: no template that may not see gold shows them."""
    typed = PAIR.model_copy(update={"pair": tuple(m.model_copy(update={"type": "TYPE!"}) for m in PAIR.pair)})
    for template in templates("relations"):
        if not template.takes and not template.sees_gold and "picture" not in template.front.needs:
            assert "TYPE!" not in "".join(m.text for m in asked(template.front.mode, typed)), template.name


def test_the_form_in_the_prompt_is_the_schemas():
    for example in (PAIR, JOINT):
        for mode in ("zero_shot", "queries"):
            prompt = render(find(f"relations/{mode}"), "relations", example, SCHEMA)
            form = prompt.messages[0].text.rpartition("Form: ")[2]
            assert list(json.loads(form)) == prompt.answer_schema["required"]
