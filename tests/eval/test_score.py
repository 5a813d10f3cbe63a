"""The one entry: refusals, what is kept for paired tests, and a round trip through JSON."""

import json

import numpy as np
import pytest
from magister.eval.score import FORMULAS, PRIMARY, compare, read, score
from magister.tasks.ner import Answer, Entity, Example


def tweets(n=40):
    gold = Answer(entities=(Entity(text="Ann", type="PER", start=0, end=3),))
    return [Example(id=f"t{i}", text="Ann sings", gold=gold) for i in range(n)]


def right(examples, every=1):
    return [e.gold if i % every == 0 else Answer() for i, e in enumerate(examples)]


def test_every_task_has_a_primary_metric_with_a_formula():
    assert all(PRIMARY[task] in FORMULAS[task] for task in PRIMARY)


@pytest.mark.parametrize(
    ("task", "examples", "answers", "words"),
    [
        ("ner", tweets(3), [None], "3 examples but 1 answers"),
        ("ner", [], [], "no examples"),
        ("ner", tweets(1) * 2, [None, None], "two examples have the id 't0'"),
        ("poetry", [], [], "no metric for task 'poetry'; there are: ner, attributes"),
    ],
)
def test_refusals_say_why(task, examples, answers, words):
    with pytest.raises(ValueError, match=words):
        score(task, examples, answers)


def test_an_option_of_another_task_is_refused():
    with pytest.raises(TypeError, match="open_slots"):
        score("ner", tweets(1), [None], open_slots="skip")


def test_the_primary_metric_and_its_interval():
    examples = tweets()
    scores = score("ner", examples, right(examples, 2))
    assert scores.value == scores.metrics["f1"].value == pytest.approx(2 / 3)
    assert scores.metrics["f1"].low < 2 / 3 < scores.metrics["f1"].high
    assert scores.by_type[0].f1 == pytest.approx(scores.metrics["f1"])
    assert scores.counts["examples"] == 40
    assert scores.counts["gold"] == 40
    assert "seqeval" in scores.protocol
    assert "ties" in scores.protocol


def test_compare_is_paired_and_refuses_other_examples_and_protocols():
    examples = tweets()
    half, full = score("ner", examples, right(examples, 2)), score("ner", examples, right(examples))
    difference = compare(half, full)
    assert difference.value == pytest.approx(1 / 3)
    assert difference.p < 0.01
    assert compare(half, full, "recall").value == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="same examples"):
        compare(half, score("ner", examples[1:], right(examples[1:])))
    with pytest.raises(ValueError, match="no paired test for 'bleu'"):
        compare(half, full, "bleu")


def test_scores_go_through_json_and_can_still_be_compared(tmp_path):
    examples = tweets()
    scores = score("ner", examples, right(examples, 3))
    (tmp_path / "scores.json").write_text(json.dumps(scores.as_dict()))
    back = read(tmp_path / "scores.json")
    assert (back.metrics, back.by_type, back.counts) == (scores.metrics, scores.by_type, scores.counts)
    assert np.array_equal(back.per_example, scores.per_example)
    assert compare(scores, back).p == 1
