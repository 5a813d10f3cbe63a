"""MUMRC on a tiny random backbone: both stages, its queries, what pictures do, what gold it learns, refusals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from magister import students
from magister.eval.relations import agreement
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.fusion.directional import kinds
from magister.students.relations.mumrc import MUMRC, OF_TEXT, MUMRCConfig
from magister.students.student import Output, View
from magister.students.system import UnsupportedView
from magister.tasks import ner, relations
from magister.tasks.task import DataFault

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawn import pictures_of, seen

LEVELS = [(4, 8), (1, 6)]
pictures = pictures_of(LEVELS)
SEES = View(images=True)


def mention(text: str, part: str) -> ner.Entity:
    return ner.Entity(text=part, type="", start=text.index(part), end=text.index(part) + len(part))


def joint(id: str, text: str, *triples: tuple[str, str, str], **more: Any) -> relations.Example:
    gold = [relations.Triple(head=mention(text, h), relation=r, tail=mention(text, t)) for h, r, t in triples]
    answer = relations.Answer(triples=tuple(gold))
    return relations.Example(id=id, text=text, words=tuple(text.split()), gold=answer, **more)


TEXTS = [
    joint("a", "Kawhi Leonard is off to Oakland", ("Kawhi Leonard", "lives_in", "Oakland")),
    joint(
        "b",
        "KevinLove , Kawhi and the Raptors of Toronto",
        ("Kawhi", "plays_for", "Raptors"),
        ("KevinLove", "lives_in", "Toronto"),
        ("Kawhi", "lives_in", "Toronto"),
    ),
    joint("c", "nothing to see in the text"),
]


@pytest.fixture(scope="module")
def backbone(tiny_bert: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny encoder with rows long enough for queries that it must spell."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("long")
    BertModel(BertConfig.from_pretrained(tiny_bert, max_position_embeddings=256)).save_pretrained(path)
    AutoTokenizer.from_pretrained(tiny_bert, model_max_length=256).save_pretrained(path)
    return str(path)


def build(backbone: str, schema: relations.Schema, **settings: Any) -> MUMRC:
    torch.manual_seed(0)
    settings = {"lora_rank": 0, "dropout": 0.0, "width": 16, "image_encoder": "none"} | settings
    blind = MUMRC.create(MUMRCConfig(backbone=backbone, **{**settings, "image_encoder": None}), {"relations": schema})
    student = MUMRC(MUMRCConfig(backbone=backbone, **settings), blind.schemas, blind.encoder, LEVELS)
    student.features = pictures
    return student.eval()


@torch.no_grad()
def scores(student: MUMRC, examples: Sequence[relations.Example], view: View) -> dict[str, torch.Tensor]:
    return student.eval()(student.collate(examples, view)).scores


@pytest.mark.parametrize("queries", [0, 3])
def test_learns_triples_saves_and_loads(
    queries: int, backbone: str, relation_schema: Any, learn: Callable[..., Output], tmp_path: Path
) -> None:
    some = seen(TEXTS, "1", "", "333")
    student = build(backbone, relation_schema, queries=queries)
    learn(student, some, 100, 0.003, SEES)
    answered = student.predict(some, SEES, return_scores=True)
    assert [agreement(e, answer) for e, (answer, _) in zip(some, answered, strict=True)] == [1.0] * 3
    for answer, sure in answered:
        assert len(answer.triples) == len(sure)
        assert all(0.1 < p <= 1 for p in sure)
    student.save_pretrained(tmp_path)
    again = students.load(tmp_path)
    again.features = pictures
    assert again.predict(some, SEES) == [answer for answer, _ in answered]


def test_given_pairs_and_texts_in_one_batch(
    backbone: str, relation_schema: Any, pairs: Any, learn: Callable[..., Output]
) -> None:
    """A given pair is judged by the second stage; what is answered does not depend on the order."""
    some = [TEXTS[0], pairs[0], pairs[1], TEXTS[1], pairs[2], pairs[3]]
    student = build(backbone, relation_schema, queries=1)
    learn(student, some, 100, 0.003)
    answers = student.predict(some)
    assert [agreement(e, answer) for e, answer in zip(some, answers, strict=True)] == [1.0] * 6
    assert [answer.relation for answer in answers] == [None, "lives_in", "plays_for", None, "None", "lives_in"]
    assert student.predict(some[::-1]) == answers[::-1]


def test_the_picture_decides(backbone: str, relation_schema: Any, learn: Callable[..., Output]) -> None:
    text = "Kawhi Leonard is off to Oakland"
    some = seen([joint("a", text, ("Kawhi Leonard", r, "Oakland")) for r in ("lives_in", "plays_for")], "1", "22")
    student = build(backbone, relation_schema, queries=1)
    learn(student, some, 100, 0.003, SEES)
    assert student.predict(some, SEES) == [e.gold for e in some]
    assert student.predict(seen(some, "22", "1"), SEES) == [e.gold for e in some[::-1]]


@pytest.mark.parametrize("queries", [0, 3])
def test_without_a_picture_it_is_the_text_alone(queries: int, backbone: str, relation_schema: Any) -> None:
    student = build(backbone, relation_schema, queries=queries)
    beside, alone = scores(student, seen(TEXTS, "1", "", "333"), SEES), scores(student, TEXTS[1:2], View())
    width = alone["span"].shape[1]
    torch.testing.assert_close(beside["span"][1:2, :width], alone["span"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(beside["pair"][2:], alone["pair"], rtol=1e-4, atol=1e-5)
    assert not torch.isclose(beside["pair"][:2], scores(student, TEXTS[:1], View())["pair"]).any()


def test_the_rows_of_both_stages(backbone: str, relation_schema: Any) -> None:
    """One of the text with its queries, one of every ordered pair of mentions with its own."""
    student = build(backbone, relation_schema, queries=2)
    tensors = student.collate(TEXTS).tensors
    say = student.encoder.sub_tokens.tokenizer.decode
    row = tensors["spans.input_ids"][0]
    kind = kinds(tensors["spans.token_type_ids"][0])
    assert say(row[kind == 0], skip_special_tokens=True) == TEXTS[0].text.lower()
    assert set(kind.tolist()) == {0, 1, 2}
    asked = student.encoder.sub_tokens.text
    for number in (1, 2):
        assert tuple(row[kind == number][:-1].tolist()) == asked(OF_TEXT[number - 1])
    assert tensors["pairs.relation"].tolist()[:2] == [1, 0]
    assert len(tensors["pairs.relation"]) == 2 + 4 * 3
    assert sorted(tensors["pairs.relation"].tolist()) == [0] * 10 + [1, 1, 1, 2]
    row, kind = tensors["pairs.input_ids"][1], kinds(tensors["pairs.token_type_ids"][1])
    assert tuple(row[kind == 1][:-1].tolist()) == asked("Which relation does Oakland have to Kawhi Leonard?")
    assert tensors["pairs.marks"][:2].tolist() == [[0, 7], [7, 0]]  # before Kawhi, before Oakland


def test_its_losses(backbone: str, relation_schema: Any) -> None:
    """Sums over spans and over pairs, a text; the span of more words than are looked at teaches nothing."""
    student = build(backbone, relation_schema, longest=1, relation_weight=0.5)
    batch = student.collate(TEXTS)
    assert batch.counts["mentions_too_long"] == 1
    with torch.no_grad():
        output = student(batch)
    wrong = 0.0
    for text, example in enumerate(TEXTS):
        logs = output.scores["span"][text, :, 0].log_softmax(-1)
        held = {m.text for t in example.gold.triples for m in (t.head, t.tail)}
        wrong -= sum(float(logs[n, int(word in held)]) for n, word in enumerate(example.words))
    assert float(output.losses["spans"]) == pytest.approx(wrong / 3, rel=1e-4)
    logs = output.scores["pair"].log_softmax(-1)
    wrong = -sum(float(logs[n, label]) for n, label in enumerate(batch.tensors["pairs.relation"].tolist()))
    assert float(output.losses["pairs"]) == pytest.approx(0.5 * wrong / 3, rel=1e-4)


def test_every_trainable_weight_learns(backbone: str, relation_schema: Any) -> None:
    student = build(backbone, relation_schema, word_shapes=True, lora_rank=2)
    for value in student.parameters():
        if value.requires_grad and not value.any():
            torch.nn.init.normal_(value, std=0.02)
    student.train()
    student(student.collate(seen(TEXTS, "1", "", "333"), SEES)).loss.backward()
    trained = {n: p for n, p in student.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.any()] == []


def test_the_surest_spans_are_paired(backbone: str, relation_schema: Any) -> None:
    """Everything is an entity here: more than ``most`` spans are counted, and no more pairs are judged."""
    student = build(backbone, relation_schema, most=3, longest=2, queries=0)
    with torch.no_grad():
        student.spans.rest[-1].bias[1] = 50.0
        student.pairs.linear.bias[1] = 50.0
    (answer,) = student.predict(TEXTS[:1])
    assert len(answer.triples) == 6
    assert len({t.head.start for t in answer.triples} | {t.tail.start for t in answer.triples}) <= 3
    assert student.given_up == {"spans_beyond_3": 6 + 5 - 3}


def test_what_gold_cannot_teach(backbone: str, relation_schema: Any) -> None:
    student = build(backbone, relation_schema, queries=0)
    twice = joint("t", "Kawhi in Oakland", ("Kawhi", "plays_for", "Oakland"), ("Kawhi", "lives_in", "Oakland"))
    batch = student.collate([twice])
    assert batch.counts == {"triples_of_one_pair": 1}
    assert batch.tensors["pairs.relation"].tolist() == [2, 0]
    with pytest.raises(DataFault, match="unknown relation 'owns'"):
        student.collate([joint("o", "Kawhi in Oakland", ("Kawhi", "owns", "Oakland"))])
    inside = joint("i", "Kawhi in Oakland", ("Kaw", "lives_in", "Oakland"))
    assert student.collate([inside]).tensors["spans.gold"].tolist() == [[0, 0, 0], [0, 2, 0]]


def test_refuses_what_it_is_not_for(
    backbone: str, tiny_gemma: str, relation_schema: Any, ner_schema: ner.Schema, posts: Any
) -> None:
    student = build(backbone, relation_schema)
    with pytest.raises(UnsupportedView, match="built for the task relations"):
        student.collate(posts)
    with pytest.raises(UnsupportedView, match="reads a text"):
        student.collate(TEXTS, View(text=False, images=True))
    with pytest.raises(UnsupportedView, match="for the task relations"):
        MUMRC.create(MUMRCConfig(backbone=backbone), {"ner": ner_schema})
    with pytest.raises(UnsupportedBackbone, match="take BERT"):
        build(tiny_gemma, relation_schema)
