"""Entity F1 against seqeval strict on random tags, and against hand-worked cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.eval.score import score
from magister.eval.spans import count, f1, spans_of_tags
from magister.tasks.ner import Answer, Entity, Example
from magister.tasks.task import DataFault
from seqeval.metrics import f1_score
from seqeval.metrics.v1 import precision_recall_fscore_support as reference
from seqeval.scheme import IOB2

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]


def entities(tags):
    """An answer of words w0 w1 ... for tags, placed by character offsets."""
    words = [f"w{i}" for i in range(len(tags))]
    starts = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
    found = []
    for first, end, kind in spans_of_tags(tags):
        a, b = starts[first], starts[end - 1] + len(words[end - 1])
        found.append(Entity(text=" ".join(words)[a:b], type=kind, start=a, end=b))
    return Answer(entities=tuple(found))


def example(i, tags):
    words = tuple(f"w{j}" for j in range(len(tags)))
    return Example(id=str(i), text=" ".join(words), words=words, gold=entities(tags))


@st.composite
def corpora(draw):
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    tags = lambda n: st.lists(st.sampled_from(TAGS), min_size=n, max_size=n)
    return [draw(tags(n)) for n in lengths], [draw(tags(n)) for n in lengths]


@given(corpora())
def test_equals_seqeval_strict(corpus):
    gold, predicted = corpus
    scores = score("ner", [example(*e) for e in enumerate(gold)], list(map(entities, predicted)), resamples=20)
    p, r, f, _ = reference(gold, predicted, average="micro", scheme=IOB2, zero_division=0)
    ours = [scores.metrics[name].value for name in ("precision", "recall", "f1")]
    assert ours == pytest.approx([p, r, f])
    assert scores.value == pytest.approx(f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0))
    by_type = sorted(scores.by_type, key=lambda row: row.name)
    figures = zip(*reference(gold, predicted, average=None, scheme=IOB2, zero_division=0), strict=True)
    ours = [(row.precision, row.recall, row.f1.value, row.gold) for row in by_type]
    assert ours == [pytest.approx(tuple(map(float, row))) for row in figures]


@given(corpora(), st.randoms())
def test_properties(corpus, random):
    gold, predicted = corpus
    examples, answers = [example(*e) for e in enumerate(gold)], list(map(entities, predicted))
    scores = score("ner", examples, answers, resamples=20)
    assert all(0 <= m.low <= m.high <= 1 and 0 <= m.value <= 1 for m in scores.metrics.values())
    assert scores.metrics["boundary_f1"].value >= scores.value - 1e-12

    order = list(range(len(examples)))
    random.shuffle(order)
    shuffled = score("ner", [examples[i] for i in order], [answers[i] for i in order], resamples=20)
    assert {k: m.value for k, m in shuffled.metrics.items()} == {k: m.value for k, m in scores.metrics.items()}

    perfect = score("ner", examples, [e.gold for e in examples], resamples=20)
    assert perfect.value == (1.0 if any(e.gold.entities for e in examples) else 0.0)

    wrong = Entity(text="elsewhere", type="PER")
    worse = [Answer(entities=(*answers[0].entities, wrong)), *answers[1:]]
    added = score("ner", examples, worse, resamples=20)
    assert added.metrics["precision"].value <= scores.metrics["precision"].value
    assert added.metrics["recall"].value == scores.metrics["recall"].value
    assert added.counts["ungrounded"] == 1

    right = Answer(entities=(*answers[0].entities, *examples[0].gold.entities))
    better = score("ner", examples, [right, *answers[1:]], resamples=20)
    assert better.metrics["recall"].value >= scores.metrics["recall"].value


def test_a_hand_worked_case():
    """Gold: w0 PER, w2-w3 LOC. Said: w0 PER (twice), w2 LOC, w3 PER, one not in the text: 1 of 4, 1 of 2."""
    this = example(0, ["B-PER", "O", "B-LOC", "I-LOC"])
    said = [e for tags in (["B-PER", "O", "B-LOC", "B-PER"], ["B-PER"]) for e in entities(tags).entities]
    answer = Answer(entities=(*said, Entity(text="nowhere", type="LOC")))
    counted = count([this], [answer])
    assert counted.types == ("LOC", "PER")
    assert counted.table.tolist() == [[[0, 2, 1], [1, 2, 1]]]
    assert counted.boundaries.tolist() == [[1, 4, 2]]
    assert counted.counts == {"unparseable": 0, "ungrounded": 1, "repeated": 1}
    metrics = score("ner", [this], [answer]).metrics
    assert metrics["precision"].value == 1 / 4
    assert metrics["recall"].value == 1 / 2
    assert metrics["f1"].value == pytest.approx(1 / 3)


def test_a_right_place_with_the_wrong_type_counts_for_boundaries_only():
    metrics = score("ner", [example(0, ["B-PER", "I-PER"])], [entities(["B-LOC", "I-LOC"])]).metrics
    assert metrics["f1"].value == 0
    assert metrics["boundary_f1"].value == 1


def test_an_unparseable_answer_misses_all_gold_and_is_counted():
    examples = [example(0, ["B-PER", "O"]), example(1, ["B-LOC"])]
    scores = score("ner", examples, [None, entities(["B-LOC"])])
    assert scores.metrics["recall"].value == 0.5
    assert scores.metrics["precision"].value == 1
    assert scores.counts["unparseable"] == 1


def test_an_example_without_gold_is_named():
    with pytest.raises(DataFault, match="example 7: it has no gold"):
        count([Example(id="7", text="x")], [Answer()])


def test_zero_over_zero_is_zero():
    assert f1(0, 0, 0) == 0


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["I-PER", "I-PER"], []),
        (["B-PER", "B-PER", "I-PER"], [(0, 1, "PER"), (1, 3, "PER")]),
        (["B-PER", "I-LOC", "I-PER"], [(0, 1, "PER")]),
        ([], []),
    ],
)
def test_tags_are_read_strictly(tags, spans):
    assert spans_of_tags(tags) == spans
