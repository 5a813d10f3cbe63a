"""What is kept, and why the rest is not: hand-made cases for each reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from magister.prompts.messages import Message, Part, Prompt
from magister.prompts.parse import Parsed, parse
from magister.tasks import alignment, attributes, completion, linking, ner, relations
from magister.tasks.graph import Entity, Ranking, Relation
from magister.tasks.task import DataFault, Task
from magister.teachers.knowledge.grounding import Found, evidence, grounded
from magister.teachers.knowledge.leaks import leak
from magister.teachers.knowledge.probe import columns
from magister.teachers.knowledge.verify import REASONS, Verdict, agreement, same, verdict, votes, weight

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
    assert (found.status, found.reason, found.agreement, found.grounded) == ("kept", None, 1.0, "text")
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
    assert (found.status, found.grounded, found.agreement) == ("kept", "inferred", 0.0)


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


# --- grounding ---


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"Brand": "Acme", "Color": "red", "Use": null}', "text"),
        ('{"Brand": "Umbrella", "Color": "red", "Use": null}', "inferred"),
        ('{"Brand": null, "Color": "red", "Use": "jogging"}', None),
        ('{"Brand": null, "Color": null, "Use": null}', None),
    ],
)
def test_grounding_of_attributes(text, where):
    """Only what is to be copied is looked for: a choice and a free value are conclusions."""
    parsed = parse(ATTRIBUTES, text, SHOE, PRODUCTS)
    assert isinstance(parsed, Parsed)
    assert grounded(evidence(ATTRIBUTES, SHOE, PRODUCTS, parsed.answer)) == where


def test_evidence_says_where_each_value_stands_and_the_worst_counts():
    ann = example(1).gold.entities[0]
    answer = ner.Answer(entities=(ann, ner.Entity(text="Bob", type="PER"), ner.Entity(text="Zoe", type="PER")))
    seen = example(1).model_copy(update={"context": {"ocr": "the band of bob"}})
    found = evidence(NER, seen, SCHEMA, answer)
    assert found == (
        Found("Ann1", "text", 0, 4),
        Found("Bob", "picture_text", 12, 15),
        Found("Zoe", "inferred"),
    )
    assert [grounded(found[:n]) for n in range(4)] == [None, "text", "picture_text", "inferred"]


def test_words_in_the_picture_are_a_source():
    """A teacher that cannot see is shown the picture's text; a value copied from there is grounded."""
    seen = SHOE.model_copy(update={"context": {"ocr": "UMBRELLA sports"}})
    said = '{"Brand": "UMBRELLA", "Color": null, "Use": null}'
    assert verdict(ATTRIBUTES, SHOE, PRODUCTS, prompt({}), said).reason == "ungrounded"
    found = verdict(ATTRIBUTES, seen, PRODUCTS, prompt({}), said)
    assert (found.status, found.grounded) == ("kept", "picture_text")


def test_the_pictures_are_read_only_for_what_is_not_in_the_text():
    """A teacher that sees the picture needs no words in the context: they are read when they are needed."""
    read = []

    def picture_text(asked):
        read.append(asked.id)
        return "UMBRELLA"

    for brand, times in (("Acme", 0), ("UMBRELLA", 1), ("Zorro", 2)):
        said = f'{{"Brand": "{brand}", "Color": null, "Use": null}}'
        found = verdict(ATTRIBUTES, SHOE, PRODUCTS, prompt({}), said, picture_text=picture_text)
        assert len(read) == times
    assert (found.status, found.reason, found.detail) == ("quarantined", "ungrounded", "not in the source: 'Zorro'")


def test_a_mention_of_the_picture_alone_is_kept_without_offsets():
    seen = example(1).model_copy(update={"context": {"ocr": "BOB"}})
    found = verdict(NER, seen, SCHEMA, prompt({}), entities(("Ann1", "PER"), ("BOB", "PER")))
    assert (found.status, found.grounded) == ("kept", "picture_text")
    assert found.answer.entities[1].start is None
    assert found.agreement == 0.5  # gold is Ann1 and Rome: one right of two said and two meant


def test_columns_are_what_was_decided():
    made = verdict(NER, example(1), SCHEMA, prompt({}), entities(("Ann1", "PER"))).columns(vote=0.5)
    assert (made["status"], made["grounded"], made["vote"], made["weight"]) == ("kept", "text", 0.5, 0.5)
    assert made["agreement"] == pytest.approx(2 / 3)
    assert made["evidence"] == '[{"value": "Ann1", "where": "text", "start": 0, "end": 4}]'


# --- the four tasks of graphs and relations ---


def mention(text: str, word: str) -> ner.Entity:
    at = text.find(word)
    return ner.Entity(text=word, type="", start=at if at >= 0 else None, end=at + len(word) if at >= 0 else None)


TWEET = "Ann meets Bob in Rome"


def triple(head: str, relation: str, tail: str) -> relations.Triple:
    return relations.Triple(head=mention(TWEET, head), relation=relation, tail=mention(TWEET, tail))


RELATIONS = relations.Schema(
    relations=tuple(relations.RelationType(name=n, title=n, guideline="") for n in ("/per/per/peer", "/per/loc/place"))
)
PEER, PLACE = triple("Ann", "/per/per/peer", "Bob"), triple("Ann", "/per/loc/place", "Rome")
PAIR = relations.Example(
    id="r", text=TWEET, pair=(PEER.head, PEER.tail), gold=relations.Answer(relation="/per/per/peer")
)
JOINT = relations.Example(id="j", text=TWEET, gold=relations.Answer(triples=(PEER, PLACE)))


@pytest.mark.parametrize(("label", "score"), [("/per/per/peer", 1.0), ("/per/loc/place", 0.0), ("None", 0.0)])
def test_agreement_of_a_pair(label, score):
    answer = relations.Answer(relation=label)
    assert agreement(relations.TASK, PAIR, answer) == score
    assert evidence(relations.TASK, PAIR, RELATIONS, answer) == ()


def test_a_pair_that_has_no_relation_can_be_right():
    nothing = PAIR.model_copy(update={"gold": relations.Answer(relation="None")})
    assert agreement(relations.TASK, nothing, relations.Answer(relation="None")) == 1.0
    assert agreement(relations.TASK, nothing, relations.Answer(relation="/per/per/peer")) == 0.0


def test_agreement_and_grounding_of_triples():
    turned = triple("Bob", "/per/per/peer", "Ann")
    lost = triple("Ann", "/per/per/peer", "Zoe")
    for said, score, where in (
        ((PEER, PLACE), 1.0, "text"),
        ((PEER,), 2 / 3, "text"),
        ((PEER, turned), 0.5, "text"),
        ((PEER, PLACE, lost), 0.8, "inferred"),
        ((), 0.0, None),
    ):
        answer = relations.Answer(triples=said)
        assert agreement(relations.TASK, JOINT, answer) == pytest.approx(score)
        assert grounded(evidence(relations.TASK, JOINT, RELATIONS, answer)) == where
    silent = JOINT.model_copy(update={"gold": relations.Answer()})
    assert agreement(relations.TASK, silent, relations.Answer()) == 1.0


BERLIN, PARIS = Entity(id="Q64", name="Berlin"), Entity(id="Q90", name="Paris")
ASKED = {
    "completion": completion.Example(
        id="c", given=BERLIN, relation=Relation(name="P1376"), gold=completion.Answer(ranking=("b",))
    ),
    "alignment": alignment.Example(id="a", entity=PARIS, gold=alignment.Answer(ranking=("b",))),
    "linking": linking.Example(id="l", text=TWEET, mention=mention(TWEET, "Rome"), gold=linking.Answer(ranking=("b",))),
}
TASKS_OF = {"completion": completion, "alignment": alignment, "linking": linking}


@pytest.mark.parametrize("key", ASKED)
@pytest.mark.parametrize(
    ("ranking", "score"), [(("b",), 1.0), (("a", "b"), 0.5), (("a", "c", "b", "d"), 1 / 3), (("a",), 0.0), ((), 0.0)]
)
def test_agreement_of_rankings_is_the_reciprocal_rank(key, ranking, score):
    module = TASKS_OF[key]
    answer = module.Answer(ranking=ranking)
    assert agreement(module.TASK, ASKED[key], answer) == pytest.approx(score)
    assert evidence(module.TASK, ASKED[key], None, answer) == ()


@pytest.mark.parametrize(
    ("ranking", "score"),
    [(("a", "b"), 1.0), (("x", "a", "b"), 0.5), (("a",), None), (("a", "x"), 0.0), ((), 0.0), (("b", "a"), 1.0)],
)
def test_other_right_answers_are_taken_out_before_ranking(ranking, score):
    """``a`` is as right as gold, ``b``; what names nothing but ``a`` cannot be judged by this gold."""
    asked = ASKED["completion"]
    asked = asked.model_copy(update={"candidates": tuple(Entity(id=i) for i in "abx")})
    answer, known = completion.Answer(ranking=ranking), {"c": frozenset("ab"), "other": frozenset("x")}
    assert agreement(completion.TASK, asked, answer, known) == score
    assert columns(completion.TASK, asked, Verdict(answer=answer), Verdict(), known)["image_delta"] is None
    if ranking == ("a",):
        said = prompt(completion.answer_schema(None, asked))
        for facts, status in ((known, "kept"), (None, "quarantined")):
            found = verdict(completion.TASK, asked, None, said, '{"ranking": [1]}', min_agreement=0.5, known=facts)
            assert found.status == status


def test_agreement_where_gold_says_that_there_is_none():
    nil = ASKED["linking"].model_copy(update={"gold": linking.Answer()})
    assert agreement(linking.TASK, nil, linking.Answer()) == 1.0
    assert agreement(linking.TASK, nil, linking.Answer(ranking=("a",))) == 0.0


def test_agreement_and_grounding_of_detected_links():
    def link(word, *ranking):
        return linking.Link(mention=mention(TWEET, word), entity=Ranking(ranking=ranking))

    asked = linking.Example(id="d", text=TWEET, gold=linking.Answer(links=(link("Rome", "Q220", "Q1"), link("Ann"))))
    for said, score, where in (
        ((link("Rome", "Q220"), link("Ann")), 1.0, "text"),
        ((link("Rome", "Q1", "Q220"), link("Ann")), 0.5, "text"),
        ((link("Zoe", "Q220"),), 0.0, "inferred"),
    ):
        answer = linking.Answer(links=said)
        assert agreement(linking.TASK, asked, answer) == pytest.approx(score)
        assert grounded(evidence(linking.TASK, asked, None, answer)) == where


def test_a_task_without_a_comparison_is_refused_by_name():
    other = Task(**{**vars(NER), "key": "poetry"})
    with pytest.raises(DataFault, match="poetry"):
        agreement(other, example(1), ner.Answer())
    with pytest.raises(DataFault, match="poetry"):
        evidence(other, example(1), SCHEMA, ner.Answer())


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
        ("so it is /per/org/member_of", ("/per/org/member_of",), True),
        ("she is a member of it", ("/per/org/member_of",), False),
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


def test_votes_on_rankings_go_to_the_entity_that_is_first():
    answers = [completion.Answer(ranking=r) for r in (("a", "b"), ("a", "c"), ("b", "a"))]
    assert votes(answers) == [2 / 3, 2 / 3, 1 / 3]
    assert same(answers[0], answers[1])
    assert not same(answers[0], answers[2])
    assert not same(answers[0], None)


@pytest.mark.parametrize(
    ("status", "vote", "counts"),
    [("kept", None, 1.0), ("kept", 0.25, 0.25), ("quarantined", 0.75, 0.0), ("failed", None, 0.0)],
)
def test_votes_are_weights_of_what_is_kept(status, vote, counts):
    assert weight(status, vote) == counts
