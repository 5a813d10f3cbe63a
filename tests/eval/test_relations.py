"""Relation F1 against scikit-learn without None, triples against hand-worked cases and a slow plain version."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.eval import report
from magister.eval.relations import agreement, count
from magister.eval.score import compare, score
from magister.tasks.ner import Entity
from magister.tasks.relations import Answer, Example, Triple
from magister.tasks.task import DataFault
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

TEXT = "Ann meets Bob in Rome"
LABELS = ["/per/per/peer", "/per/loc/place", "/per/org/member_of"]


def at(word):
    start = TEXT.find(word)
    return Entity(
        text=word, type="", start=start if start >= 0 else None, end=start + len(word) if start >= 0 else None
    )


def pair(number, label):
    return Example(id=f"p{number}", text=TEXT, pair=(at("Ann"), at("Bob")), gold=Answer(relation=label))


def triple(head, relation, tail):
    return Triple(head=at(head), relation=relation, tail=at(tail))


labels = st.sampled_from([*LABELS, "None"])


@settings(deadline=None)
@given(st.lists(st.tuples(labels, labels | st.none()), min_size=1, max_size=30))
def test_pairs_are_what_sklearn_says(cases):
    examples = [pair(i, gold) for i, (gold, _) in enumerate(cases)]
    answers = [None if said is None else Answer(relation=said) for _, said in cases]
    metrics = score("relations", examples, answers, resamples=10).metrics
    gold, said = [g for g, _ in cases], [s or "unparseable" for _, s in cases]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = precision_recall_fscore_support(gold, said, labels=LABELS, average="micro", zero_division=0)
    assert [metrics[m].value for m in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert metrics["accuracy"].value == pytest.approx(accuracy_score(gold, said))


def test_pairs_by_hand():
    """Five pairs: one right, one of another relation, one missed, one invented, one rightly None."""
    golds = [LABELS[0], LABELS[0], LABELS[1], "None", "None"]
    saids = [LABELS[0], LABELS[1], "None", LABELS[0], "None"]
    examples = [pair(i, gold) for i, gold in enumerate(golds)]
    scores = score("relations", examples, [Answer(relation=said) for said in saids])
    found = {name: scores.metrics[name].value for name in ("precision", "recall", "f1", "accuracy")}
    assert found == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3, "accuracy": 2 / 5})
    assert [(row.name, row.gold, row.predicted) for row in scores.by_type] == [(LABELS[0], 2, 2), (LABELS[1], 1, 1)]
    assert "without None" in scores.protocol
    assert "no ties" in scores.protocol
    assert "| /per/per/peer | 50.00 | 50.00 | 50.00 |" in report.markdown_report("t", report.score_sections(scores))
    assert compare(scores, scores, "accuracy").value == 0


def test_another_word_for_none():
    examples = [pair(0, "no_relation"), pair(1, LABELS[0])]
    answers = [Answer(relation="no_relation"), Answer(relation=LABELS[0])]
    plain = score("relations", examples, answers)
    told = score("relations", examples, answers, none="no_relation")
    assert plain.counts["gold"] == 2
    assert told.counts["gold"] == 1
    assert "no_relation" in told.protocol


def test_all_pairs_without_relation():
    metrics = score("relations", [pair(0, "None")], [Answer(relation="None")]).metrics
    assert (metrics["f1"].value, metrics["accuracy"].value) == (0.0, 1.0)
    silent = Answer()  # to say nothing is not to say that there is no relation
    assert score("relations", [pair(0, "None")], [silent]).metrics["accuracy"].value == 0.0
    assert agreement(pair(0, "None"), silent) == 0.0


def test_triples_by_hand():
    peer, place = triple("Ann", LABELS[0], "Bob"), triple("Ann", LABELS[1], "Rome")
    turned, lost = triple("Bob", LABELS[0], "Ann"), triple("Zoe", LABELS[0], "Bob")
    texts = [Example(id=f"t{i}", text=TEXT, gold=Answer(triples=(peer, place))) for i in range(4)]
    answers = [
        Answer(triples=(peer, place, peer)),  # right, one repeated
        Answer(triples=(turned, place)),  # one in the wrong direction
        Answer(triples=(peer, lost, lost)),  # one not in the text, repeated
        None,
    ]
    scores = score("relations", texts, answers)
    assert {name: scores.counts[name] for name in ("correct", "predicted", "gold")} == {
        "correct": 4,
        "predicted": 6,
        "gold": 8,
    }
    assert scores.counts["unparseable"] == 1
    assert (scores.counts["ungrounded"], scores.counts["repeated"]) == (1, 2)
    assert scores.metrics["f1"].value == pytest.approx(2 * 4 / 14)
    assert scores.metrics["accuracy"].value == 1 / 4
    assert "Strict triple F1" in scores.protocol
    assert [agreement(e, a) for e, a in zip(texts[:3], answers[:3], strict=True)] == pytest.approx([1, 0.5, 0.5])


words = st.sampled_from(["Ann", "Bob", "Rome", "Zoe"])
triples = st.lists(st.builds(triple, words, labels, words), max_size=6)
grounded = st.sampled_from(["Ann", "Bob", "Rome"])
golds = st.lists(st.builds(triple, grounded, labels, grounded), max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(golds, triples), min_size=1, max_size=6))
def test_triples_against_a_slow_plain_version(cases):
    examples = [Example(id=f"t{i}", text=TEXT, gold=Answer(triples=tuple(g))) for i, (g, _) in enumerate(cases)]
    table = count(examples, [Answer(triples=tuple(s)) for _, s in cases]).table.sum(axis=(0, 1))
    right = said = gold = 0
    for g, s in cases:
        meant = {(t.head.text, t.relation, t.tail.text) for t in g if t.relation != "None"}
        given_ = {(t.head.text, t.relation, t.tail.text) for t in s if t.relation != "None"}
        right, said, gold = right + len(meant & given_), said + len(given_), gold + len(meant)
    assert table.tolist() == [right, said, gold]


def test_what_cannot_be_scored_is_named():
    joint = Example(id="j", text=TEXT, gold=Answer())
    with pytest.raises(DataFault, match=r"example j.*pairs and whole texts"):
        count([pair(0, "None"), joint], [None, None])
    with pytest.raises(DataFault, match=r"example j.*no gold"):
        count([joint.model_copy(update={"gold": None})], [None])
