"""Ranks against hand-worked cases and a slow plain version: ties, filtering, NaN, absent gold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.eval import report
from magister.eval.ranking import HITS, hits, mrr, rank, ranks
from magister.eval.score import compare, score
from magister.tasks import alignment, completion, linking, ner
from magister.tasks.graph import Entity, Ranking, Relation
from magister.tasks.task import DataFault

NAN, INF = math.nan, math.inf


def slow(scores, gold, known, ties):
    """One rank, by counting."""
    rivals = [s for i, s in enumerate(scores) if i != gold and i not in known]
    if math.isnan(scores[gold]):
        return 1 + len(rivals)
    better = sum(not math.isnan(s) and s > scores[gold] for s in rivals)
    equal = sum(s == scores[gold] for s in rivals)
    optimistic, pessimistic = 1 + better, 1 + better + equal
    return {"optimistic": optimistic, "pessimistic": pessimistic, "realistic": (optimistic + pessimistic) / 2}[ties]


number = st.sampled_from([-INF, -1.0, 0.0, 0.5, 1.0, INF, NAN])
rows = st.integers(1, 6).flatmap(
    lambda m: st.lists(
        st.tuples(st.lists(number, min_size=m, max_size=m), st.integers(0, m - 1), st.sets(st.integers(0, m - 1))),
        min_size=1,
        max_size=5,
    )
)


@settings(deadline=None)
@given(rows, st.sampled_from(["realistic", "optimistic", "pessimistic"]))
def test_ranks_against_counting(cases, ties):
    scores, gold, known = (list(part) for part in zip(*cases, strict=True))
    expected = [slow(*case, ties) for case in cases]
    assert ranks(scores, gold, known, ties).tolist() == expected
    assert ranks(scores, gold, ties=ties).tolist() == [slow(s, g, (), ties) for s, g, _ in cases]


@pytest.mark.parametrize(
    ("scores", "gold", "expected"),
    [
        ([3, 2, 1], 0, (1, 1, 1)),
        ([3, 2, 1], 2, (3, 3, 3)),
        ([1, 1, 1], 1, (2, 1, 3)),  # a model that says the same of all is not the best
        ([2, 1, 1, 0], 2, (2.5, 2, 3)),
        ([NAN, 1, NAN], 1, (1, 1, 1)),  # NaN never wins
        ([NAN, 1, 0], 0, (3, 3, 3)),
        ([NAN, NAN, NAN], 1, (3, 3, 3)),
        ([-INF, NAN], 0, (1, 1, 1)),
        ([INF, INF], 0, (1.5, 1, 2)),
    ],
)
def test_ranks_by_hand(scores, gold, expected):
    for ties, value in zip(("realistic", "optimistic", "pessimistic"), expected, strict=True):
        assert ranks([scores], [gold], ties=ties) == [value]


def test_known_answers_are_taken_out_but_never_gold():
    assert ranks([[5, 4, 3, 2]], [2], [{0, 1}]) == [1]
    assert ranks([[5, 4, 3, 2]], [2], [{0, 2}]) == [2]


@pytest.mark.parametrize(
    ("scores", "gold", "words"),
    [([1, 2], [0], "scores"), ([[1, 2]], [0, 1], "scores"), ([[1, 2]], [2], "0 to 1"), ([[1, 2]], [-1], "0 to 1")],
)
def test_what_cannot_be_ranked_is_refused(scores, gold, words):
    with pytest.raises(ValueError, match=words):
        ranks(scores, gold)


def test_another_word_for_ties_is_refused():
    with pytest.raises(ValueError, match=r"realistic, optimistic, pessimistic, not 'average'"):
        ranks([[1, 2]], [0], ties="average")


def test_means():
    assert mrr([1, 2, 4, INF]) == pytest.approx((1 + 1 / 2 + 1 / 4) / 4)
    assert [hits([1, 2, 4, INF], k) for k in HITS] == [0.25, 0.5, 0.75]
    assert (mrr([]), hits([], 1)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("ranking", "scores", "known", "expected"),
    [
        (("a", "b", "c"), (), (), 2),
        (("a", "b", "c"), (), {"a"}, 1),
        (("a", "c"), (), (), INF),
        ((), (), (), INF),
        (("a", "b", "c"), (0.9, 0.5, 0.5), (), 2.5),
        (("a", "b", "c"), (0.9, 0.5, 0.5), {"c"}, 2),
        (("a", "b"), (0.9, NAN), (), 2),
    ],
)
def test_rank_in_an_answer(ranking, scores, known, expected):
    assert rank(Ranking(ranking=ranking, scores=scores), Ranking(ranking=("b",)), known) == expected


def test_nil_is_right_only_if_nothing_is_said():
    nil = Ranking()
    assert rank(Ranking(), nil) == 1
    assert rank(Ranking(ranking=("a",)), nil) == INF
    assert rank(None, nil) == INF


def mention(text):
    return ner.Entity(text=text, type="", start=0, end=len(text))


def example(task, number, gold):
    ids = {"id": f"e{number}", "gold": gold}
    if task == "completion":
        return completion.Example(given=Entity(id="x"), relation=Relation(name="r"), **ids)
    if task == "alignment":
        return alignment.Example(entity=Entity(id="x"), **ids)
    return linking.Example(text="Rome", mention=mention("Rome"), **ids)


@pytest.mark.parametrize("module", [completion, alignment, linking], ids=lambda m: m.TASK.key)
def test_scores_by_hand(module):
    """Ranks 1, 2, left out, unparseable, 4: MRR (1 + 1/2 + 0 + 0 + 1/4) / 5."""
    key, said = module.TASK.key, [("b",), ("a", "b"), ("a",), None, ("a", "c", "d", "b")]
    examples = [example(key, i, module.Answer(ranking=("b",))) for i in range(5)]
    scores = score(key, examples, [None if s is None else module.Answer(ranking=s) for s in said])
    found = {name: metric.value for name, metric in scores.metrics.items()}
    assert found == pytest.approx({"mrr": 0.35, "hits@1": 0.2, "hits@3": 0.4, "hits@10": 0.6})
    assert scores.primary == {"completion": "mrr"}.get(key, "hits@1")
    assert scores.counts == {"examples": 5, "unparseable": 1, "gold_left_out": 2, "gold_is_nil": 0}
    assert "worst rank" in scores.protocol
    assert "realistic" in scores.protocol
    known = {"e4": {"a", "c"}}
    filtered = score(key, examples, [None if s is None else module.Answer(ranking=s) for s in said], known=known)
    assert filtered.metrics["mrr"].value == pytest.approx((1 + 0.5 + 0.5) / 5)
    with pytest.raises(ValueError, match="two protocols"):
        compare(scores, filtered)
    text = report.markdown_report("t", report.score_sections(scores))
    assert "| MRR | 35.00 |" in text
    assert "| Hits@1 | 20.00 |" in text
    assert "by type" not in text


def test_mentions_to_be_detected_are_no_ranking():
    asked = linking.Example(id="d", text="Rome", gold=linking.Answer())
    with pytest.raises(DataFault, match=r"example d.*no mention"):
        score("linking", [asked], [linking.Answer()])
    bare = example("alignment", 0, None)
    with pytest.raises(DataFault, match=r"example e0.*no gold"):
        score("alignment", [bare], [alignment.Answer()])


def test_large_tables_are_ranked_at_once():
    rng = np.random.default_rng(0)
    table, gold = rng.normal(size=(200, 5_000)), rng.integers(5_000, size=200)
    expected = [1 + int((row > row[g]).sum()) for row, g in zip(table, gold, strict=True)]
    assert ranks(table, gold).tolist() == expected
