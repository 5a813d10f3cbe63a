"""The five-way bookkeeping against published counts, and its properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.eval.attributes import CASES, case, count, similarity, values
from magister.eval.score import score
from magister.tasks.attributes import Answer, Example
from magister.tasks.task import DataFault
from sklearn.metrics import f1_score


def example(i, gold, category="Shoes", text="a product"):
    asked = tuple(gold)
    return Example(id=str(i), text=text, category=category, asked=asked, gold=Answer(values=gold))


def published(nn, nv, vn, vc, vw, open_slots=0):
    """One example a slot with these numbers of cases, and values for attributes that gold does not name."""
    slots = [((), ())] * nn + [((), ("x",))] * nv + [(("x",), ())] * vn
    slots += [(("x",), ("x",))] * vc + [(("x",), ("y",))] * vw
    examples = [example(i, {"A": gold}) for i, (gold, _) in enumerate(slots)]
    answers = [{"A": said} for _, said in slots]
    for answer in answers[:open_slots]:
        answer["B"] = ("z",)
    return examples, [Answer(values=answer) for answer in answers]


def test_the_published_counts_give_the_published_figures():
    """GPT-4 with 10 demonstrations on the AE-110k subset."""
    examples, answers = published(204, 32, 125, 1050, 71, open_slots=434)
    skip = score("attributes", examples, answers, resamples=50)
    assert [skip.counts[name] for name in CASES] == [204, 32, 125, 1050, 71]
    figures = [100 * skip.metrics[m].value for m in ("precision", "recall", "f1")]
    assert figures == pytest.approx([91.07, 84.27, 87.54], abs=0.005)
    penalise = score("attributes", examples, answers, open_slots="penalise", resamples=50)
    figures = [100 * penalise.metrics[m].value for m in ("precision", "recall", "f1")]
    assert figures == pytest.approx([66.16, 84.27, 74.13], abs=0.005)
    assert penalise.counts["nv"] == 32 + 434
    assert skip.counts["open_slot_values"] == penalise.counts["open_slot_values"] == 434


@pytest.mark.parametrize(
    ("gold", "predicted", "what"),
    [
        ((), (), "nn"),
        ((), ("red",), "nv"),
        (("red",), (), "vn"),
        (("red", "dark red"), ("dark red",), "vc"),
        (("red", "dark red"), ("red", "dark red"), "vc"),
        (("red",), ("red", "blue"), "vw"),
        (("Red",), ("red",), "vw"),
    ],
)
def test_the_five_cases(gold, predicted, what):
    assert case(gold, predicted) == what


def test_attribute_f1_asks_only_whether_there_is_a_value():
    """Wrong values count as found: TP = VC + VW, FP = NV, FN = VN."""
    examples, answers = published(nn=5, nv=2, vn=3, vc=4, vw=6)
    scores = score("attributes", examples, answers, resamples=20)
    assert scores.metrics["attribute_f1"].value == pytest.approx(2 * 10 / (2 * 10 + 2 + 3))
    there = lambda record: [int(bool(values(record, "A")))]
    labels = [(there(e.gold), there(a)) for e, a in zip(examples, answers, strict=True)]
    gold, said = zip(*labels, strict=True)
    assert scores.metrics["attribute_f1"].value == pytest.approx(f1_score(gold, said))


def test_null_words_and_blanks_are_absent_and_values_are_stripped():
    answer = Answer(values={"A": (" n/a ", "N/A", "", "  "), "B": (" red ", "red")})
    assert values(answer, "A") == ()
    assert values(answer, "B") == ("red",)
    assert values(answer, "C") == ()
    assert values(None, "B") == ()


def test_macro_is_the_mean_over_pairs():
    """Pairs: (Shoes, A) right, (Hats, A) wrong, (Hats, B) absent on both sides and so left out."""
    examples = [example(0, {"A": ("x",)}), example(1, {"A": ("x",), "B": ()}, "Hats")]
    answers = [Answer(values={"A": ("x",)}), Answer(values={"A": ("y",)})]
    more = [example(2, {"A": ("x",)}), example(3, {"A": ("x",)})]
    scores = score("attributes", examples + more, [*answers, answers[0], answers[0]])
    assert scores.metrics["f1"].value == 3 / 4
    assert scores.metrics["macro_f1"].value == 1 / 2
    assert [row.name for row in scores.by_type] == ["Shoes / A", "Hats / A", "Hats / B"]


def test_strict_and_lenient_differ_on_an_answer_that_names_several_options():
    examples = [example(0, {"Neckline": ("V-Neck",)})]
    for several in (("Crew Neck", "V-Neck"), ("crew neck or v-neck",)):
        metrics = score("attributes", examples, [Answer(values={"Neckline": several})]).metrics
        assert (metrics["strict"].value, metrics["lenient"].value) == (0, 1)


def test_the_lenient_metric_reads_raw_outputs():
    examples = [example(0, {"Neckline": ("V-Neck",)})]
    metrics = score("attributes", examples, [None], outputs=["I think a V-NECK."]).metrics
    assert (metrics["strict"].value, metrics["lenient"].value) == (0, 1)
    with pytest.raises(ValueError, match="one slot each, here 2"):
        score("attributes", [example(0, {"A": (), "B": ()})], [None], outputs=["x"])


def test_recall_of_seen_and_unseen_values_by_category_and_attribute():
    train = [example("t", {"Color": ("red",)}), example("u", {"Color": ("blue",)}, "Hats")]
    examples = [example(0, {"Color": ("red",)}), example(1, {"Color": ("blue",)}), example(2, {"Color": ()})]
    answers = [Answer(values={"Color": ("red",)}), Answer(values={"Color": ("navy",)}), Answer()]
    scores = score("attributes", examples, answers, train=train)
    assert (scores.counts["seen"], scores.counts["unseen"]) == (1, 1)
    assert (scores.metrics["recall_seen"].value, scores.metrics["recall_unseen"].value) == (1, 0)
    assert "recall_seen" not in score("attributes", examples, answers).metrics


def test_similarity():
    """Indel similarity of lengths a, b with longest common subsequence c: 2c / (a + b)."""
    assert similarity(("abcd",), ("abxd",)) == pytest.approx(6 / 8)
    assert similarity(("zzz", "abcd"), ("abcd", "abxd")) == pytest.approx((1 + 6 / 8) / 2)
    assert (similarity((), ()), similarity(("a",), ()), similarity((), ("a",))) == (1, 0, 0)


def test_an_example_without_gold_is_named():
    with pytest.raises(DataFault, match="example 9: it has no gold"):
        count([Example(id="9", text="x")], [Answer()])


def test_open_slots_are_checked():
    with pytest.raises(ValueError, match="skip or penalise, not 'ignore'"):
        score("attributes", [example(0, {})], [Answer()], open_slots="ignore")


some = st.lists(st.sampled_from(["red", "blue", "Red", "n/a"]), max_size=2).map(tuple)
records = st.dictionaries(st.sampled_from(["A", "B", "C"]), some, max_size=3)


@given(st.lists(st.tuples(records, records), min_size=1, max_size=6), st.sampled_from(["skip", "penalise"]))
def test_properties(pairs, open_slots):
    examples = [example(i, gold) for i, (gold, _) in enumerate(pairs)]
    answers = [Answer(values=said) for _, said in pairs]
    judge = lambda e, a: score("attributes", e, a, open_slots=open_slots, train=examples, resamples=20)
    scores = judge(examples, answers)
    assert all(0 <= m.low <= m.high <= 1 and 0 <= m.value <= 1 for m in scores.metrics.values())
    assert scores.metrics["lenient"].value >= scores.metrics["strict"].value
    assert scores.metrics["attribute_f1"].value >= scores.metrics["f1"].value
    back = judge(examples[::-1], answers[::-1])
    for name, metric in scores.metrics.items():
        assert back.metrics[name].value == pytest.approx(metric.value)

    valued = any(values(e.gold, name) for e in examples for name in e.gold.values)
    perfect = judge(examples, [e.gold for e in examples])
    assert perfect.value == (1 if valued else 0)
    assert perfect.metrics["macro_f1"].value == (1 if valued else 0)

    harsh = score("attributes", examples, answers, open_slots="penalise", resamples=20)
    lax = score("attributes", examples, answers, open_slots="skip", resamples=20)
    assert harsh.metrics["precision"].value <= lax.metrics["precision"].value
    assert harsh.metrics["recall"].value == lax.metrics["recall"].value

    worse = judge([*examples, example("more", {"A": ()})], [*answers, Answer(values={"A": ("red",)})])
    assert worse.metrics["precision"].value <= scores.metrics["precision"].value
