"""MNER-QG on a tiny random backbone: its equations and losses by plain loops, existence, overlaps, refusals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from magister import students
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.ner.mner_qg import MNERQG, MNERQGConfig, _entities
from magister.students.student import Output, View
from magister.students.system import UnsupportedView
from magister.tasks import ner

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawn import pictures_of, seen

LEVELS = [(4, 8), (1, 6)]
pictures = pictures_of(LEVELS)
SEES = View(images=True)
#: One short wording a type: a random backbone takes long to tell ours apart.
SHORT = {"PER": ("people",), "LOC": ("places",)}


def build(backbone: str, schema: ner.Schema, **settings: Any) -> MNERQG:
    torch.manual_seed(0)
    settings = {"lora_rank": 0, "dropout": 0.0, "attention_heads": 4, "width": 16, "image_encoder": "none"} | settings
    blind = MNERQG.create(MNERQGConfig(backbone=backbone, **{**settings, "image_encoder": None}), {"ner": schema})
    config = blind.config.model_copy(update={"image_encoder": settings["image_encoder"]})
    student = MNERQG(config, blind.schemas, blind.encoder, LEVELS)
    student.features = pictures
    return student.eval()


@torch.no_grad()
def scores(student: MNERQG, examples: Sequence[ner.Example], view: View) -> dict[str, torch.Tensor]:
    return student.eval()(student.collate(examples, view)).scores


def test_learns_saves_and_loads(
    tiny_bert: str, ner_schema: ner.Schema, posts: Any, learn: Callable[..., Output], tmp_path: Path
) -> None:
    some = seen(posts, "1", "22", "", "333")
    student = build(tiny_bert, ner_schema, word_shapes=True, queries=SHORT)
    learn(student, some, 120, 0.003, SEES)
    answers = student.predict(some, SEES, return_scores=True)
    assert [answer for answer, _ in answers] == [e.gold for e in some]
    assert all(0.25 < p <= 1 for _, sure in answers for p in sure)
    student.save_pretrained(tmp_path)
    again = students.load(tmp_path)
    again.features = pictures
    assert again.predict(some, SEES) == [e.gold for e in some]
    assert again.config.queries == student.config.queries


def test_the_picture_decides(tiny_bert: str, ner_schema: ner.Schema, posts: Any, learn: Callable[..., Output]) -> None:
    """One text, two pictures: the type of what is named follows the picture."""
    golds = [
        ner.Answer(entities=tuple(e.model_copy(update={"type": t}) for e in posts[0].gold.entities))
        for t in ("PER", "LOC")
    ]
    some = [e.model_copy(update={"gold": g}) for e, g in zip(seen([posts[0]] * 2, "1", "22"), golds, strict=True)]
    student = build(tiny_bert, ner_schema, queries=SHORT)
    learn(student, some, 220, 0.003, SEES)
    assert student.predict(some, SEES) == golds
    assert student.predict(seen(some, "22", "1"), SEES) == golds[::-1]


@pytest.mark.parametrize("settings", [{}, {"existence": False}, {"grounding": False}])
def test_without_a_picture_it_is_the_text_alone(
    settings: dict[str, Any], tiny_bert: str, ner_schema: ner.Schema, posts: Any
) -> None:
    """Also beside others that have one; and nothing depends on the batch's padding."""
    student = build(tiny_bert, ner_schema, **settings)
    beside, alone = scores(student, seen(posts, "1", "", "22", ""), SEES), scores(student, posts[1:2], View())
    width = alone["start"].shape[1]
    for name in ("start", "end", "span"):
        torch.testing.assert_close(beside[name][2:4, :width], alone[name], rtol=1e-4, atol=1e-5)
    one, text = scores(student, seen(posts[:1], "1"), SEES), scores(student, posts[:1], View())
    torch.testing.assert_close(beside["start"][:2, : one["start"].shape[1]], one["start"], rtol=1e-4, atol=1e-5)
    assert not torch.isclose(one["start"], text["start"]).any()


def test_its_equations(tiny_bert: str, ner_schema: ner.Schema, posts: Any) -> None:
    """Confidence, existence and the gated states of a row with a picture, in numpy."""
    student = build(tiny_bert, ner_schema)
    batch = student.collate(seen(posts[:1], "1"), SEES)
    tensors = batch.tensors
    width, sigmoid = student.encoder.hidden, lambda x: 1 / (1 + np.exp(-x))
    with torch.no_grad():
        states = torch.randn(*tensors["input_ids"].shape, width)
        fused, exists = student.fuse(states, tensors)
        regions = student.regions(tensors["image.level0"])
        confidence = np.empty((2, 4))
        for row in range(2):
            end = tensors["input_ids"][row].tolist().index(student.encoder.sub_tokens.separator)
            query = states[row, : end + 1].numpy().mean(0)
            for k, region in enumerate(regions[0].numpy()):
                bilinear = region @ (student.ground.label.weight.numpy() @ query) / width**0.5
                plain = float(student.ground.region.weight.numpy()[0] @ region + student.ground.region.bias.numpy()[0])
                confidence[row, k] = sigmoid(bilinear + plain)
        gated = torch.tensor(confidence, dtype=torch.float32)[..., None] * regions
        looked = student.look(states, gated, torch.ones(2, 4, dtype=torch.bool))
    for row in range(2):
        logit = student.exists.weight[0] @ states[row, 0] + student.exists.bias[0]
        logit = float((logit + student.exists_seen.weight[0] @ looked[row, 0]).detach())
        assert float(exists[row]) == pytest.approx(logit, abs=1e-4)
        torch.testing.assert_close(fused[row], states[row] + sigmoid(logit) * looked[row], rtol=1e-4, atol=1e-4)


def test_its_losses(tiny_bert: str, ner_schema: ner.Schema, posts: Any) -> None:
    """By loops over words and over the spans where starts and ends, gold or predicted, meet."""
    student = build(tiny_bert, ner_schema, longest=3)
    with torch.no_grad():
        output = student(student.collate(posts))
    labels = [(e, t) for e in posts for t in ("PER", "LOC")]
    nll = lambda logit, gold: float(np.log1p(np.exp(-logit if gold else logit)))
    wanted: dict[str, list[float]] = {"start": [], "end": [], "span": [], "existence": []}
    for number, (example, kind) in enumerate(labels):
        spans = ner.word_spans(example)
        first, last = {a: i for i, (a, _) in enumerate(spans)}, {b: i for i, (_, b) in enumerate(spans)}
        gold = {(first[e.start], last[e.end]) for e in example.gold.entities if e.type == kind}
        own = {name: value[number].tolist() for name, value in output.scores.items()}
        words = range(len(spans))
        starts, ends = {i for i, _ in gold}, {j for _, j in gold}
        wanted["start"].append(np.mean([nll(own["start"][i], i in starts) for i in words]))
        wanted["end"].append(np.mean([nll(own["end"][i], i in ends) for i in words]))
        met = [
            nll(own["span"][i][j - i], (i, j) in gold)
            for i in words
            for j in words
            if i <= j < i + 3 and (i in starts or own["start"][i] > 0) and (j in ends or own["end"][j] > 0)
        ]
        wanted["span"].append(np.mean(met) if met else 0.0)
        wanted["existence"].append((2.0 if gold else 1.0) * 0.5 * nll(own["existence"], bool(gold)))
    for name, values in wanted.items():
        assert float(output.losses[name]) == pytest.approx(np.mean(values), rel=1e-4)


def test_no_existence_no_spans(tiny_bert: str, ner_schema: ner.Schema, posts: Any) -> None:
    """Where p_e is 0 nothing is answered, and nothing is taken of the picture."""
    student = build(tiny_bert, ner_schema, threshold=0.0)
    some = seen(posts, "1", "22", "333", "4444")
    with torch.no_grad():
        student.exists.bias.fill_(100.0)
        assert all(answer.entities for answer in student.predict(some, SEES))
        student.exists.bias.fill_(-100.0)
    assert student.predict(some, SEES) == [ner.Answer()] * 4
    torch.testing.assert_close(scores(student, some, SEES)["start"], scores(student, posts, View())["start"])


def test_switches(tiny_bert: str, ner_schema: ner.Schema, posts: Any) -> None:
    some = seen(posts, "1", "22", "", "333")
    for settings in ({}, {"existence": False}, {"grounding": False}, {"existence": False, "grounding": False}):
        student = build(tiny_bert, ner_schema, word_shapes=True, **settings)
        names = {name for name, _ in student.named_parameters()}
        assert any(n.startswith("exists") for n in names) == student.config.existence
        assert any(n.startswith("ground") for n in names) == student.config.grounding
        student.train()
        output = student(student.collate(some, SEES))
        assert ("existence" in output.losses) == student.config.existence
        output.loss.backward()
        trained = {n: p for n, p in student.named_parameters() if p.requires_grad}
        assert [n for n, p in trained.items() if p.grad is None or not p.grad.any()] == []


def test_of_overlapping_spans_the_surest_stays() -> None:
    example = ner.Example(id="e", text="a b c d", words=("a", "b", "c", "d"))
    found = [(0.6, 0, 3, "PER"), (0.9, 2, 5, "LOC"), (0.5, 0, 1, "LOC"), (0.7, 6, 7, "PER"), (0.8, 2, 3, "PER")]
    answer, sure = _entities(example, found)
    said = [(e.text, e.type) for e in answer.entities]
    assert said == [("a", "LOC"), ("b c", "LOC"), ("d", "PER")]
    assert sure == [0.5, 0.9, 0.7]


def test_a_text_of_several_windows(tiny_bert: str, ner_schema: ner.Schema, posts: Any) -> None:
    text = " ".join(["Kawhi", *["of"] * 60, "Toronto"])
    student = build(tiny_bert, ner_schema, threshold=0.0)
    example = ner.Example(id="e", text=text, words=text.split(" "))
    assert student.collate([example]).counts["windows"] > 2
    found = scores(student, [example], View())
    assert found["start"].shape == (2, 62)
    assert found["existence"].shape == (2,)


def test_queries_of_ones_own(tiny_bert: str, ner_schema: ner.Schema, posts: Any) -> None:
    """Kept over ours, any wording in training, the first at test; a type without any, or unknown, is refused."""
    student = build(tiny_bert, ner_schema, queries={"PER": ("names ?", "who ?")})
    assert student.config.queries["PER"] == ("names ?", "who ?")
    assert "location" in student.config.queries["LOC"][0]
    ids = lambda: tuple(i for i in student.collate(posts[:1]).tensors["input_ids"][0].tolist() if i)
    assert len({ids() for _ in range(20)}) == 1
    student.train()
    assert len({ids() for _ in range(20)}) == 2
    with pytest.raises(UnsupportedView, match="the types are PER, LOC"):
        build(tiny_bert, ner_schema, queries={"ORG": ("what ?",)})


def test_refuses_what_it_is_not_for(
    tiny_bert: str, tiny_gemma: str, ner_schema: ner.Schema, relation_schema: Any, posts: Any, pairs: Any
) -> None:
    student = build(tiny_bert, ner_schema)
    with pytest.raises(UnsupportedView, match="built for the task ner"):
        student.collate(pairs)
    with pytest.raises(UnsupportedView, match="reads a text"):
        student.collate(posts, View(text=False, images=True))
    with pytest.raises(UnsupportedView, match="for the task ner"):
        MNERQG.create(MNERQGConfig(backbone=tiny_bert), {"relations": relation_schema})
    with pytest.raises(UnsupportedBackbone, match=r"no \[CLS\]"):
        build(tiny_gemma, ner_schema)
    long = student.config.model_copy(update={"longest": 1})
    student.config = long
    assert student.collate(posts).counts["entities_too_long"] == 1
