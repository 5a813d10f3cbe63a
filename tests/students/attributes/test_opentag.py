"""OpenTag: its attention by hand, masks, what may be decoded, side texts, and what active learning asks of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from magister import students
from magister.students.attributes.opentag import AdditiveAttention, OpenTag, OpenTagConfig
from magister.students.student import View
from magister.students.system import UnsupportedView
from magister.tasks.attributes import Attribute, Example, Schema
from magister.tasks.task import DataFault


def build(schema: Schema, examples: Sequence[Example], **settings: Any) -> OpenTag:
    torch.manual_seed(0)
    settings = {"hidden": 12, "attention": 9, "dropout": 0.0, "word_dropout": 0.0} | settings
    return OpenTag.create(OpenTagConfig(**settings), {"attributes": schema}, examples).eval()


def bare(example: Example, **changes: Any) -> Example:
    return example.model_copy(update={"gold": None, **changes})


def test_attention_by_hand() -> None:
    torch.manual_seed(0)
    attention = AdditiveAttention(4, 3)
    states = torch.randn(1, 5, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    w, v = attention.query, attention.key
    expected = []
    for t in range(2):
        total = torch.zeros(4)
        for other in range(3):
            g = torch.tanh(w.weight @ states[0, t] + v.weight @ states[0, other] + w.bias)
            a = 1 / (1 + torch.exp(-(attention.score.weight[0] @ g + attention.score.bias[0])))
            total = total + a * states[0, other]
        expected.append(total)
    torch.testing.assert_close(attention(states[:, :2], states, mask)[0], torch.stack(expected))
    weights = attention.weights(states, states, mask)
    assert not weights[..., 3:].any()
    assert not torch.allclose(weights.sum(-1), torch.ones(1, 5)), "a sigmoid, not a softmax"


def test_the_loss_is_the_crf_over_bioe_tags_of_all_attributes(title_schema: Schema, titles: list[Example]) -> None:
    student = build(title_schema, titles)
    assert student.tags.names == ["O", *(f"{m}-{a}" for a in ("size", "colour", "wash") for m in "BIE")]
    example = bare(titles[2])
    tagged = titles[2]
    batch = student.collate([tagged])
    output = student(batch)
    emissions = output.scores["emissions"][0].detach().double()
    names = student.tags.names
    gold = [names.index("B-colour"), 0]
    assert batch.tensors["tags"][0].tolist() == gold
    crf = student.crf.requires_grad_(False)

    def score(path: Sequence[int]) -> float:
        total = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
        total = total + sum(emissions[t, tag] for t, tag in enumerate(path))
        return float(total + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path)))

    everything = [score(path) for path in itertools.product(range(len(names)), repeat=2)]
    assert output.loss is not None
    assert output.loss.item() == pytest.approx((math.log(sum(map(math.exp, everything))) - score(gold)) / 2, rel=1e-4)
    assert batch.tensors["units"].tolist() == [2]

    # The best path and its probability among those of the attributes asked: colour and size, no wash.
    allowed = [i for i, name in enumerate(names) if "wash" not in name]
    [(path, sure)] = student.paths([example])
    possible = {p: score(p) for p in itertools.product(allowed, repeat=2)}
    legal = student.tags.legal()
    followed = {p: s for p, s in possible.items() if legal[-1, p[0]] and legal[p[0], p[1]]}
    assert tuple(path) == max(followed, key=lambda p: followed[p])
    partition = math.log(sum(map(math.exp, possible.values())))
    assert sure == pytest.approx(followed[tuple(path)] - partition, abs=1e-4)


def test_only_attributes_asked_are_answered(title_schema: Schema, titles: list[Example], learn: Any) -> None:
    student = build(title_schema, titles)
    learn(student, titles, 60, 0.02)
    answer = student.predict([bare(titles[1], asked=("size",))])[0]
    assert answer.values == {"size": ("42cm",)}
    path = student.paths([bare(titles[1], asked=("size",))])[0][0]
    assert {student.tags.names[tag] for tag in path} == {"O", "B-size"}


def test_padding_changes_nothing(title_schema: Schema, titles: list[Example]) -> None:
    student = build(title_schema, titles, characters="cnn", word_shapes=True)
    view = View(context=("knowledge",))
    together, texts = student._collate(titles, view)
    found = student(together).scores["emissions"]
    for number, (example, text) in enumerate(zip(titles, texts, strict=True)):
        alone = student(student.collate([example], view)).scores["emissions"][0]
        torch.testing.assert_close(found[number, : len(text.pieces)], alone)
    joint = [(path, pytest.approx(sure, abs=1e-4)) for path, sure in student.paths(titles, view)]
    assert [student.paths([example], view)[0] for example in titles] == joint


@pytest.mark.parametrize(
    "settings",
    [{}, {"characters": "lstm", "word_shapes": True}, {"vectors": True}, {"word_vectors": True}, {"own_state": False}],
    ids=lambda s: ",".join(s) or "plain",
)
def test_overfits_and_is_the_same_again(
    settings: dict[str, Any], title_schema: Schema, titles: list[Example], learn: Any, tmp_path: Path, tiny_bert: str
) -> None:
    if "vectors" in settings:
        (tmp_path / "v.txt").write_text("red 1 2\ngreen 2 1\nshirt 0 -1\n")
        settings = {"vectors": str(tmp_path / "v.txt")}
    if "word_vectors" in settings:
        settings = {"word_vectors": tiny_bert}
    student = build(title_schema, titles, **settings)
    learn(student, titles, 80, 0.02)
    assert student.predict(titles) == [e.gold for e in titles]
    student.save_pretrained(tmp_path / "kept")
    assert {p.name for p in (tmp_path / "kept").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    (tmp_path / "v.txt").unlink(missing_ok=True)
    again = students.load(tmp_path / "kept")
    assert isinstance(again, OpenTag)
    strange = [*titles, bare(titles[0], text="Unseen 5xl, yacht green")]
    assert again.predict(strange, return_scores=True) == student.predict(strange, return_scores=True)


def test_knowledge_is_read_where_asked(title_schema: Schema, titles: list[Example], learn: Any) -> None:
    """Which of two words is the colour only the side text tells."""

    def product(id: str, colour: str) -> Example:
        example = bare(titles[0], id=id, text="green Blue", asked=("colour",), context={"knowledge": f"it is {colour}"})
        return example.model_copy(update={"gold": type(titles[0].gold)(values={"colour": (colour,)})})

    examples = [product("a", "green"), product("b", "Blue")]
    view = View(context=("knowledge",))
    student = build(title_schema, examples, view=view, context_words=3)
    assert {"it", "is"} <= set(student.vocabulary["words"])
    learn(student, examples, 80, 0.02)
    assert [a.values["colour"] for a in student.predict(examples)] == [("green",), ("Blue",)]
    blind = [a.values["colour"] for a in student.predict(examples, View())]
    assert blind[0] == blind[1]
    student.config = student.config.model_copy(update={"context_words": 1})
    assert student.collate(examples).counts["context_words_cut"] == 4


def test_what_it_cannot_do_is_named(title_schema: Schema, titles: list[Example]) -> None:
    student = build(title_schema, titles)
    for view in (View(images=True), View(text=False), View(prompt=True), View(explain="knowledge")):
        with pytest.raises(UnsupportedView, match="reads text and side texts"):
            student.collate(titles, view)
    with pytest.raises(DataFault, match=r"example p: .*'weight'.*there are: size, colour, wash"):
        student.predict([bare(titles[0], asked=("weight",))])
    with pytest.raises(DataFault, match="example p: its text has no words"):
        student.predict([bare(titles[0], text="  ")])
    closed = Schema(attributes=(Attribute(name="kind", type="one_of", options=("a", "b")),))
    with pytest.raises(UnsupportedView, match="example p: opentag marks words of the text; kind is one_of"):
        build(closed, titles).predict([bare(titles[0], asked=("kind",))])
    with pytest.raises(UnsupportedView, match="no schema"):
        OpenTag.create(OpenTagConfig(), {}, titles)


def test_what_no_tag_can_hold_is_counted(title_schema: Schema, titles: list[Example]) -> None:
    student = build(title_schema, titles)
    gold = type(titles[0].gold)(values={"size": ("5x",), "colour": ("Blue cotton",), "wash": ("cotton",)})
    example = titles[0].model_copy(update={"text": "Blue cotton 5xl", "asked": tuple(gold.values), "gold": gold})
    batch = student.collate([example])
    assert batch.counts == {"values_not_in_text": 1, "values_overlapping": 1}
    assert [student.tags.names[t] for t in batch.tensors["tags"][0]] == ["B-colour", "E-colour", "O"]


def test_unlabelled_examples_teach_nothing(title_schema: Schema, titles: list[Example]) -> None:
    student = build(title_schema, titles)
    assert student(student.collate([bare(e) for e in titles])).loss is None
    mixed = student(student.collate([bare(titles[0]), titles[1]])).loss
    torch.testing.assert_close(mixed, student(student.collate([titles[1]])).loss)
