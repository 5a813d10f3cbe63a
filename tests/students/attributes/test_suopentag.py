"""SUOpenTag on a tiny random backbone: the cosine by hand, masks, what it learns and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from magister import students
from magister.students.attributes.suopentag import SUOpenTag, SUOpenTagConfig
from magister.students.queries import wording
from magister.students.student import View
from magister.students.system import UnsupportedView
from magister.students.units import pairs
from magister.tasks.attributes import Answer, Attribute, Schema
from magister.tasks.task import DataFault
from torch import Tensor


def build(backbone: str, schema: Schema, **settings: Any) -> SUOpenTag:
    torch.manual_seed(0)
    settings = {"lora_rank": 0, "dropout": 0.0, "hidden": 8} | settings
    return SUOpenTag.create(SUOpenTagConfig(backbone=backbone, **settings), {"attributes": schema}).eval()


def run_lstm(cell: Any, states: Sequence[Tensor], suffix: str) -> list[Tensor]:
    """One direction of an LSTM, gate by gate."""
    weight = lambda name: getattr(cell, f"{name}_l0{suffix}")
    h = c = torch.zeros(cell.hidden_size)
    out = []
    for x in states:
        gates = weight("weight_ih") @ x + weight("bias_ih") + weight("weight_hh") @ h + weight("bias_hh")
        i, f, g, o = gates.split(cell.hidden_size)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return out


def both_directions(cell: Any, states: Tensor) -> tuple[list[Tensor], Tensor]:
    ahead = run_lstm(cell, list(states), "")
    back = run_lstm(cell, list(states.flip(0)), "_reverse")
    return [torch.cat(pair) for pair in zip(ahead, reversed(back), strict=True)], torch.cat([ahead[-1], back[-1]])


def states_of(student: SUOpenTag, words: str) -> Tensor:
    """The backbone's states of a text's sub-tokens, the text alone in its row, no padding anywhere."""
    sub = student.encoder.sub_tokens
    ids = [piece for unit in student.layout.words(words).pieces for piece in unit]
    row = torch.tensor([[sub.first, *ids, sub.separator]])
    return student.encoder(row, torch.ones_like(row), torch.zeros_like(row))[0, 1:-1]


def by_hand(student: SUOpenTag, title: str, attribute: str) -> Tensor:
    """Emissions of one pair, ``[W, 3]``."""
    words, _ = both_directions(student.title.lstm, states_of(student, title))
    _, last = both_directions(student.attribute.lstm, states_of(student, attribute))
    rows = []
    for h in words:
        alpha = float(h @ last) / float((h @ h).sqrt() * (last @ last).sqrt())
        rows.append(student.linear(torch.cat([h, alpha * h])))
    return torch.stack(rows)


@torch.no_grad()
def test_emissions_and_loss_by_hand(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    """Each pair on its own, so a batch's padding, its shared titles and its shared queries change nothing."""
    student = build(tiny_bert, title_schema)
    batch = student.collate(titles)
    output = student(batch)
    assert len(batch.tensors["query.input_ids"]) == 3, "a query is encoded once, whoever asks it"
    assert len(batch.tensors["title.input_ids"]) == 3
    total = 0.0
    for number, item in enumerate(pairs(titles)):
        expected = by_hand(student, item.example.text, item.labels[0])
        length = len(expected)
        found = output.scores["emissions"][number]
        assert torch.allclose(found[:length], expected, atol=1e-4)
        assert output.scores["word_mask"][number].sum() == length
        gold = torch.tensor([tags_by_hand(student, item)])
        total += float(student.crf.nll(expected[None], gold, torch.ones(1, length, dtype=torch.bool)))
    assert batch.tensors["units"].item() == 8
    assert float(output.loss) == pytest.approx(total / 8, rel=1e-4)


def tags_by_hand(student: SUOpenTag, item: Any) -> list[int]:
    """0 for O, 1 for B, 2 for I; by the characters of the text, whatever their case."""
    tags, inside = [], 0
    values = [v.lower() for v in item.example.gold.values[item.labels[0]]]
    text = item.example.text.lower()
    for start, end in student.layout.words(item.example.text).spans:
        begins = [v for v in values if text.startswith(v, start)]
        if begins:
            tags.append(1)
            inside = start + len(begins[0])
        else:
            tags.append(2 if end <= inside else 0)
    return tags


@torch.no_grad()
def test_alpha_of_one_is_a_plain_tagger_on_h_and_h(
    tiny_bert: str, title_schema: Schema, titles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = build(tiny_bert, title_schema)
    monkeypatch.setattr(student, "likeness", lambda words, attribute: torch.ones(words.shape[:2]))
    batch = student.collate(titles)
    found = student(batch).scores["emissions"]
    for number, item in enumerate(pairs(titles)):
        words, _ = both_directions(student.title.lstm, states_of(student, item.example.text))
        plain = torch.stack([student.linear(torch.cat([h, h])) for h in words])
        assert torch.allclose(found[number, : len(plain)], plain, atol=1e-4)
    first, second = found[0], found[1]
    assert torch.equal(first, second), "then the query says nothing"


def test_overfits_and_is_kept(tiny_bert: str, title_schema: Schema, titles: Any, learn: Any, kept: Any) -> None:
    student = build(tiny_bert, title_schema, hidden=32)
    learn(student, titles, 110)
    assert student.predict(titles) == [e.gold for e in titles]
    assert isinstance(kept(student, titles), SUOpenTag)
    for _, sure in student.predict(titles, return_scores=True):
        assert all(0 <= p <= 1 for p in sure.values())


def test_an_adapter_is_kept(tiny_bert: str, title_schema: Schema, titles: Any, learn: Any, tmp_path: Path) -> None:
    student = build(tiny_bert, title_schema, lora_rank=4, example_values=2, values_dropped=0.5)
    learn(student, titles, 10, rate=0.02)
    student.save_pretrained(tmp_path)
    assert students.load(tmp_path).predict(titles) == student.predict(titles)


@torch.no_grad()
def test_alone_or_among_longer_ones_the_answer_is_the_same(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    together = student.predict(titles, return_scores=True)
    for example, (answer, sure) in zip(titles, together, strict=True):
        ((alone, own),) = student.predict([example], return_scores=True)
        assert alone == answer
        assert own == pytest.approx(sure, abs=1e-5)


@torch.no_grad()
def test_knowledge_is_read_beside_the_title(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema, context_tokens=6)
    view = View(context=("knowledge",))
    plain, rich = (student(student.collate(titles, v)).scores["emissions"] for v in (View(), view))
    assert plain.shape == rich.shape, "knowledge is read, not tagged"
    assert (plain - rich).abs().max() > 1e-3
    student.predict(titles, view)
    assert student.given_up["context_tokens_cut"] > 0


def test_what_cannot_be_learned_teaches_nothing(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    strange = titles[2].model_copy(
        update={"asked": ("size", "colour"), "gold": Answer(values={"size": ("XXL",), "colour": ("green",)})}
    )
    known = titles[2].model_copy(update={"asked": ("colour",), "gold": Answer(values={"colour": ("green",)})})
    with torch.no_grad():
        batch = student.collate([strange])
        assert batch.counts == {"values_not_in_text": 1}
        assert float(student(batch).loss) == pytest.approx(float(student(student.collate([known])).loss), rel=1e-5)
        unlabelled = titles[2].model_copy(update={"gold": None})
        assert student(student.collate([unlabelled])).loss is None
    only = strange.model_copy(update={"asked": ("size",)})
    loss = student(student.collate([only])).loss
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_of_places_that_overlap_the_longer_one_is_tagged(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    gold = Answer(values={"colour": ("shirt", "green shirt")})
    batch = student.collate([titles[2].model_copy(update={"asked": ("colour",), "gold": gold})])
    length = len(student.layout.words("green shirt").pieces)
    assert batch.tensors["tags"].tolist() == [[1] + [2] * (length - 1)]


def test_long_texts_are_read_in_windows(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    long = titles[0].model_copy(update={"text": " ".join(["cotton shirt size M"] * 40)})
    batch = student.collate([long, titles[1]])
    assert batch.counts["windows"] > 2
    assert batch.tensors["title.word_mask"].sum(1)[0] >= 160
    assert len(student.predict([long, titles[1]])) == 2


def test_queries_show_example_values(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema, example_values=2, category=True)
    item = pairs(titles)[0]
    assert wording(item, title_schema, student.config, training=False) == "shirt size: M, 42cm"
    rows = student.collate(titles).tensors["query.word_mask"].sum(1)
    assert rows[0] > rows[2], "wash has none"


def test_negatives_are_absent_ones(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema, negatives=5)
    assert len(student.collate(titles).tensors["tags"]) == 8
    batch = student.train().collate(titles)
    assert len(batch.tensors["tags"]) == 9
    assert batch.tensors["tags"][8].sum() == 0
    assert batch.tensors["units"].item() == 9


def test_nothing_asked_is_nothing_answered(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    silent = titles[0].model_copy(update={"asked": ()})
    assert student.predict([silent]) == [Answer()]
    assert student.predict([silent, titles[1]])[0] == Answer()
    with pytest.raises(DataFault, match="no attribute is asked"):
        student.collate([silent])


def test_an_attribute_never_seen_can_be_asked(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    asking = titles[0].model_copy(update={"asked": ("fabric",), "gold": None})
    (answer,) = student.predict([asking])
    assert set(answer.values) == {"fabric"}


def test_bad_input_is_refused(tiny_bert: str, title_schema: Schema, titles: Any) -> None:
    student = build(tiny_bert, title_schema)
    for view in (View(images=True), View(text=False), View(explain="knowledge")):
        with pytest.raises(UnsupportedView):
            student.predict(titles, view)
    with pytest.raises(DataFault, match=r"example p.*no words"):
        student.predict([titles[0].model_copy(update={"text": "  "})])
    closed = build(tiny_bert, Schema(attributes=(Attribute(name="size", type="one_of", options=("M", "L")),)))
    with pytest.raises(UnsupportedView, match="size is a one_of"):
        closed.predict(titles)
