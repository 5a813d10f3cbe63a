"""AVEQA on a tiny random backbone: its three losses by hand, spans by brute force, thresholds, masks, refusals."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from magister import students
from magister.eval.score import score
from magister.students.attributes.aveqa import AVEQA, AVEQAConfig, best_spans
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.student import View
from magister.students.system import UnsupportedView
from magister.students.units import pairs
from magister.tasks.attributes import Answer, Attribute, Schema
from magister.tasks.task import DataFault
from torch import Tensor


def build(backbone: str, schema: Schema, **settings: Any) -> AVEQA:
    torch.manual_seed(0)
    settings = {"lora_rank": 0, "dropout": 0.0, "masked_weight": 0.0} | settings
    return AVEQA.create(AVEQAConfig(backbone=backbone, **settings), {"attributes": schema}).eval()


def by_hand(student: AVEQA, item: Any) -> tuple[Tensor, Tensor, float]:
    """Begin and end probabilities of a title's sub-tokens and that of no answer, of one row without padding."""
    sub = student.encoder.sub_tokens
    asked = list(sub.text(item.labels[0]))
    ids = [piece for unit in student.layout.words(item.example.text).pieces for piece in unit]
    row = torch.tensor([[sub.first, *asked, sub.separator, *ids, sub.separator]])
    segments = torch.tensor([[0] * (len(asked) + 2) + [1] * (len(ids) + 1)])
    states = student.encoder(row, torch.ones_like(row), segments)[0]
    scores = states[len(asked) + 2 : -1] @ student.ends.weight.T
    begin, end = (scores[:, n].exp() / scores[:, n].exp().sum() for n in (0, 1))
    none = 1 / (1 + math.exp(-float(student.no_answer(states[0]))))
    return begin, end, none


@torch.no_grad()
def test_losses_by_hand(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    """Each pair on its own row, so a batch's padding changes nothing; the places of a value are summed."""
    student = build(tiny_bert, title_schema, no_answer_weight=0.5)
    batch = student.collate(titles)
    output = student(batch)
    span = none_loss = 0.0
    for number, item in enumerate(pairs(titles)):
        begin, end, none = by_hand(student, item)
        found = output.scores["begin"][number].exp()
        assert torch.allclose(found[: len(begin)], begin, atol=1e-4)
        assert found[len(begin) :].sum() == 0, "padding has no share"
        values = item.example.gold.values[item.labels[0]]
        none_loss -= math.log(1 - none) if values else math.log(none)
        if values:
            text, spans = item.example.text.lower(), student.layout.words(item.example.text).spans
            right = [
                float(begin[i] * end[j])
                for i, j in itertools.combinations_with_replacement(range(len(spans)), 2)
                if text[spans[i][0] : spans[j][1]] == values[0].lower()
            ]
            assert len(right) == (2 if values == ("Red",) else 1)
            span -= math.log(sum(right))
    assert float(output.losses["span"]) == pytest.approx(span / 8, rel=1e-4)
    assert float(output.losses["no_answer"]) == pytest.approx(none_loss / 8, rel=1e-4)
    assert float(output.loss) == pytest.approx((span + 0.5 * none_loss) / 8, rel=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 10_000))
def test_best_spans_by_brute_force(width: int, longest: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    begin, end = torch.randn(2, 3, width, generator=generator).log_softmax(-1)
    best, first, last = best_spans(begin, end, longest)
    for n in range(3):
        possible = {
            (i, j): float(begin[n, i] + end[n, j]) for i in range(width) for j in range(i, min(width, i + longest))
        }
        assert float(best[n]) == pytest.approx(max(possible.values()))
        assert possible[int(first[n]), int(last[n])] == pytest.approx(max(possible.values()))


def test_recall_rises_with_the_threshold(tiny_bert: str, title_schema: Schema, titles: Any, learn: Any) -> None:
    """A higher bar for "no answer" never loses a value; at the ends nothing and everything is answered."""
    student = build(tiny_bert, title_schema)
    learn(student, titles, 12)
    recalls, answered = [], []
    for step in range(11):
        student.config = student.config.model_copy(update={"no_answer_threshold": step / 10})
        answers = student.predict(titles)
        recalls.append(score("attributes", titles, answers, resamples=1).metrics["recall"].value)
        answered.append(sum(bool(v) for a in answers for v in a.values.values()))
    assert recalls == sorted(recalls)
    assert answered == sorted(answered)
    assert (answered[0], answered[-1]) == (0, 8)
    assert recalls[-1] > recalls[0] == 0


@torch.no_grad()
def test_the_null_rules(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    """``threshold`` looks at no answer alone; ``compare`` sets it against the best span."""
    student = build(tiny_bert, title_schema)
    student.no_answer.weight.zero_()
    student.no_answer.bias.fill_(-0.5)  # a probability of 0.378: below the threshold, above any span of this one
    assert all(v for a in student.predict(titles) for v in a.values.values())
    student.config = student.config.model_copy(update={"null_rule": "compare"})
    found = student.predict(titles, return_scores=True)
    assert not any(v for a, _ in found for v in a.values.values())
    assert found[0][1]["size"] == pytest.approx(1 / (1 + math.exp(0.5)))
    student.no_answer.bias.fill_(-9.0)
    answers = student.predict(titles, return_scores=True)
    assert all(v for a, _ in answers for v in a.values.values())
    begin, end, none = by_hand(student, pairs(titles)[0])
    best = max(float(begin[i] * end[j]) for i in range(len(begin)) for j in range(i, len(end)))
    assert answers[0][1]["size"] == pytest.approx((1 - none) * best, rel=1e-3)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_masked_part_is_for_training(lora_rank: int, tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema, masked_weight=0.7, lora_rank=lora_rank)
    assert set(student(student.collate(titles)).losses) == {"span", "no_answer"}
    with torch.no_grad():
        for parameter in student.encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    batch = student.train().collate(titles)
    assert len(batch.tensors["masked.input_ids"]) == 3, "one row a title"
    output = student(batch)
    parts = {name: float(loss.detach()) for name, loss in output.losses.items()}
    assert parts["masked"] > 0
    assert float(output.loss.detach()) == pytest.approx(parts["span"] + parts["no_answer"] + 0.7 * parts["masked"])
    output.loss.backward()
    names = {name for name, p in student.named_parameters() if p.grad is not None}
    assert any(name.startswith("encoder") for name in names)
    assert {"ends.weight", "no_answer.weight"} <= names
    kept = {name for name in student.state_dict() if not name.startswith("encoder.")}
    assert kept == {"ends.weight", "no_answer.weight", "no_answer.bias"}, "the frozen copy is not kept"


def test_overfits_and_is_kept(tiny_bert: str, title_schema: Schema, titles: Any, learn: Any, kept: Any) -> None:
    student = build(tiny_bert, title_schema, masked_weight=0.1)
    learn(student, titles, 60)
    assert student.predict(titles) == [e.gold for e in titles]
    assert isinstance(kept(student, titles), AVEQA)


def test_an_adapter_is_kept(tiny_bert: str, title_schema: Schema, titles: Any, learn: Any, tmp_path: Path) -> None:
    student = build(tiny_bert, title_schema, lora_rank=4, masked_weight=1.0, example_values=2, negatives=1)
    learn(student, titles, 10, rate=0.02)
    student.save_pretrained(tmp_path)
    assert students.load(tmp_path).predict(titles) == student.predict(titles)


@torch.no_grad()
def test_alone_or_among_longer_ones_the_answer_is_the_same(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    for example, (answer, sure) in zip(titles, student.predict(titles, return_scores=True), strict=True):
        ((alone, own),) = student.predict([example], return_scores=True)
        assert alone == answer
        assert own == pytest.approx(sure, abs=1e-5)


@torch.no_grad()
def test_knowledge_is_read_beside_the_title(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema, context_tokens=6)
    plain, rich = (student(student.collate(titles, View(context=c))).scores for c in ((), ("knowledge",)))
    assert plain["begin"].shape == rich["begin"].shape, "knowledge is read, and no answer stands in it"
    assert (plain["begin"] - rich["begin"]).nan_to_num(0).abs().max() > 1e-3
    student.predict(titles, View(context=("knowledge",)))
    assert student.given_up["context_tokens_cut"] > 0


def test_what_cannot_be_learned_teaches_nothing(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema, longest=2)
    gold = {"size": ("XXL",), "colour": ("green",), "wash": ("green shirt",)}
    strange = titles[2].model_copy(update={"asked": tuple(gold), "gold": Answer(values=gold)})
    known = titles[2].model_copy(update={"asked": ("colour",), "gold": Answer(values={"colour": ("green",)})})
    with torch.no_grad():
        units = len(student.layout.words("green shirt").pieces)
        student.config = student.config.model_copy(update={"longest": units - 1})
        batch = student.collate([strange])
        assert batch.counts == {"values_not_in_text": 1, "values_too_long": 1}
        assert batch.tensors["units"].item() == 1
        assert float(student(batch).loss) == pytest.approx(float(student(student.collate([known])).loss), rel=1e-5)
        assert student(student.collate([titles[2].model_copy(update={"gold": None})])).loss is None
    loss = student(student.collate([strange.model_copy(update={"asked": ("size",)})])).loss
    loss.backward()
    assert float(loss.detach()) == 0.0


@torch.no_grad()
def test_windows_share_one_softmax_and_one_no_answer(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    long = titles[0].model_copy(update={"text": " ".join(["cotton shirt size M"] * 40)})
    batch = student.collate([titles[1], long])
    assert batch.counts["windows"] > 6
    scores = student(batch).scores
    assert torch.allclose(scores["begin"].exp().sum(1), torch.ones(6), atol=1e-4)
    tensors = batch.tensors
    states = student.encoder(tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"])
    by_row = student.no_answer(states[:, 0])[:, 0]
    for n in range(6):
        assert float(scores["no_answer"][n]) == pytest.approx(float(by_row[tensors["item"] == n].min()), abs=1e-5)
    assert len(student.predict([titles[1], long])) == 2


def test_nothing_asked_is_nothing_answered(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    silent = titles[0].model_copy(update={"asked": ()})
    assert student.predict([silent]) == [Answer()]
    assert student.predict([silent, titles[1]])[0] == Answer()
    with pytest.raises(DataFault, match="no attribute is asked"):
        student.collate([silent])


def test_bad_input_is_refused(tiny_bert: str, tiny_gemma: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    for view in (View(images=True), View(text=False), View(prompt=True)):
        with pytest.raises(UnsupportedView):
            student.predict(titles, view)
    with pytest.raises(DataFault, match=r"example p.*no words"):
        student.predict([titles[0].model_copy(update={"text": "  "})])
    closed = build(tiny_bert, Schema(attributes=(Attribute(name="size", type="several_of", options=("M", "L")),)))
    with pytest.raises(UnsupportedView, match="size is a several_of"):
        closed.predict(titles)
    with pytest.raises(UnsupportedBackbone, match="no mask token"):
        build(tiny_gemma, title_schema, masked_weight=1.0)
    assert len(build(tiny_gemma, title_schema).predict(titles)) == 3, "without it a decoder will do"
