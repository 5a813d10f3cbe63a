"""MXT on tiny backbones: what it may write, what it learns, how it sees, what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from magister import students
from magister.students.attributes.mxt import MXT, MXTConfig
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.student import View
from magister.students.system import UnsupportedView
from magister.tasks.attributes import Answer, Attribute, Example, Schema
from magister.tasks.images import Image
from torch import Tensor

LEVELS = [(4, 6)]

#: Short products and options of several sub-tokens.
COLOURS = Schema(
    attributes=(
        Attribute(name="size"),
        Attribute(name="colour", type="one_of", options=("red", "green", "red cotton", "blue")),
        Attribute(name="story", type="free"),
        Attribute(name="washable", type="boolean"),
        Attribute(name="uses", type="several_of", options=("red", "blue")),
        Attribute(name="parts", many=True),
    )
)


def build(backbone: str, schema: Schema, levels: Any = None, **settings: Any) -> MXT:
    torch.manual_seed(0)
    settings = {"lora_rank": 0, "dropout": 0.0, "longest": 8} | settings
    config = MXTConfig(backbone=backbone, **settings)
    student = MXT.create(config.model_copy(update={"image_encoder": None}), {"attributes": schema})
    for module in student.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if levels:
        student = MXT(config, {"attributes": schema}, student.encoder, levels)
        student.features = pictures
    return student.eval()


def pictures(images: Sequence[Image]) -> list[Tensor]:
    """Features drawn from each picture's source."""
    drawn = [torch.randn(LEVELS[0], generator=torch.Generator().manual_seed(len(i.source))) for i in images]
    return [torch.stack(drawn)]


def product(text: str = "Red shirt 42cm", source: str = "", **gold: tuple[str, ...]) -> Example:
    images = (Image(source=source),) if source else ()
    return Example(id=text, text=text, asked=tuple(gold), gold=Answer(values=dict(gold)), images=images)


def gold(examples: Sequence[Any]) -> list[Any]:
    return [e.gold for e in examples]


# --- learning ---


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_t5"])
@pytest.mark.parametrize("constrained", [True, False])
def test_overfits_titles(
    name: str, constrained: bool, titles: Any, title_schema: Any, learn: Any, request: pytest.FixtureRequest
) -> None:
    """Values come back in the title's own casing, although the vocabulary has none."""
    student = build(request.getfixturevalue(name), title_schema, constrained=constrained)
    learn(student, titles, 70, 0.01)
    assert student.predict(titles) == gold(titles)
    assert student.given_up == {}


def test_overfits_without_copying_by_an_adapter(titles: Any, title_schema: Any, learn: Any, tiny_bert: str) -> None:
    student = build(tiny_bert, title_schema, copying=False, lora_rank=8, decoder_layers=1)
    learn(student, titles, 80, 0.005)
    assert student.predict(titles) == gold(titles)


def test_overfits_options_free_texts_and_truth(tiny_bert: str, learn: Any) -> None:
    examples = [
        product("Blue shirt", colour=("Red cotton",), story=("machine wash",), washable=("true",)),
        product("green shirt", colour=("green",), story=("memory card",), washable=("false",)),
        product("cotton shirt", colour=(), story=(), washable=()),
    ]
    student = build(tiny_bert, COLOURS)
    learn(student, examples, 120, 0.005)
    found = student.predict(examples, return_scores=True)
    assert [a.values["colour"] for a, _ in found] == [("red cotton",), ("green",), ()]  # as the schema writes it
    assert [a.values["story"] for a, _ in found] == [("machine wash",), ("memory card",), ()]
    assert [a.values["washable"] for a, _ in found] == [("true",), ("false",), ()]
    assert all(score > 0.5 for _, scores in found for score in scores.values())


def test_a_picture_decides_where_the_text_does_not(tiny_bert: str, learn: Any) -> None:
    seen = [product(source="1", colour=("red",)), product(source="22", colour=("blue",)), product(colour=("green",))]
    student = build(tiny_bert, COLOURS, LEVELS, image_encoder="efficientnet-lite0")
    for view in (View(images=True), View(images=True, text=False)):
        learn(student, seen, 60, 0.01, view=view)
        assert student.predict(seen, view) == gold(seen)
        assert student.given_up == {"image_missing": 1}
    blind = student.predict(seen, View(), return_scores=True)
    assert blind[0] == blind[1] == blind[2]  # without pictures they are all the third
    assert blind[0][0] == seen[2].gold


def test_the_loss_is_the_mean_of_minus_log_probability_of_the_answers(tiny_bert: str) -> None:
    """With beams enough for every span, the confidence in the gold value is exactly what was learned of it."""
    student = build(tiny_bert, COLOURS, beams=100)
    example = product(size=("42cm",), colour=("blue",))
    batch = student.collate([example])
    with torch.no_grad():
        output = student(batch)
    assert output.loss is not None
    assert output.loss.item() == pytest.approx(-output.scores["answer"].mean().item())
    assert batch.tensors["units"].item() == 2
    ((answer, scores),) = student.predict([example.model_copy(update={"asked": ("colour",)})], return_scores=True)
    again = product(colour=answer.values["colour"])
    with torch.no_grad():
        said = student(student.collate([again])).scores["answer"]
    assert scores["colour"] == pytest.approx(said.exp().item(), abs=1e-5)


# --- answering ---


def test_what_is_constrained_stands_in_the_text(tiny_bert: str, titles: Any, title_schema: Any) -> None:
    """A student that knows nothing still gives spans of the text, or none."""
    student = build(tiny_bert, title_schema)
    for example, answer in zip(titles, student.predict(titles), strict=True):
        assert all(value in example.text for values in answer.values.values() for value in values)
    free = build(tiny_bert, title_schema, constrained=False, copying=False)
    answers = free.predict(titles)
    strange = [v for e, a in zip(titles, answers, strict=True) for vs in a.values.values() for v in vs]
    strange = [v for v in strange if not any(v in e.text for e in titles)]
    assert free.given_up.get("values_not_in_text", 0) + free.given_up.get("answers_unfinished", 0) >= len(strange)
    assert free.given_up


def test_the_company_in_a_batch_changes_nothing(tiny_t5: str, titles: Any, title_schema: Any) -> None:
    student = build(tiny_t5, title_schema)
    together = student.predict(titles, return_scores=True)
    for example, (answer, scores) in zip(titles, together, strict=True):
        ((alone, own),) = student.predict([example], return_scores=True)
        assert alone == answer
        assert own == pytest.approx(scores, abs=1e-5)


def test_a_text_of_several_windows_is_answered_once(tiny_bert: str, title_schema: Any, learn: Any) -> None:
    """The value stands in the last window only."""
    filler = "machine wash memory card "
    long = [
        Example(id=size, text=f"{filler * 3}shirt {size}", asked=("size",), gold=Answer(values={"size": (size,)}))
        for size in ("42cm", "M")
    ]
    student = build(tiny_bert, title_schema, max_tokens=16)
    batch = student.collate(long)
    assert batch.counts["windows"] >= 4
    assert batch.tensors["item_row"].shape[1] >= 2
    learn(student, long, 60, 0.01)
    assert student.predict(long) == gold(long)
    unlike = [long[0], long[1].model_copy(update={"text": "shirt M"})]  # a second item of one window
    both = student.predict(unlike, return_scores=True)
    ((answer, scores),) = student.predict(unlike[1:], return_scores=True)
    assert both[1][0] == answer
    assert both[1][1] == pytest.approx(scores, abs=1e-5)


def test_confidence_is_a_product_or_a_mean(tiny_bert: str, titles: Any, title_schema: Any) -> None:
    student = build(tiny_bert, title_schema)
    mean = MXT(student.config.model_copy(update={"confidence": "mean"}), student.schemas, student.encoder)
    mean.writer = student.writer
    count = student.encoder.sub_tokens.text
    for (answer, one), (same, other) in zip(
        student.predict(titles, return_scores=True), mean.eval().predict(titles, return_scores=True), strict=True
    ):
        assert answer == same
        for name, values in answer.values.items():
            length = len(count(values[0] if values else "none")) + 1
            assert other[name] == pytest.approx(one[name] ** (1 / length), abs=1e-5)


def test_knowledge_is_read_where_asked(tiny_bert: str, titles: Any, title_schema: Any) -> None:
    student = build(tiny_bert, title_schema)
    plain = student.collate(titles, View()).tensors["input_ids"].shape[1]
    rich = student.collate(titles, View(context=("knowledge",))).tensors["input_ids"].shape[1]
    assert rich > plain
    without = student.predict(titles, View(), return_scores=True)
    assert student.predict(titles, View(context=("knowledge",)), return_scores=True) != without
    bare = [t.model_copy(update={"context": {}}) for t in titles]
    assert student.predict(bare, View(context=("knowledge",)), return_scores=True) == without


def test_an_attribute_that_no_schema_has_is_copied_from_the_text(tiny_bert: str, title_schema: Any) -> None:
    student = build(tiny_bert, title_schema)
    example = Example(id="x", text="Red shirt", asked=("fabric",))
    (answer,) = student.predict([example])
    assert all(value in example.text for value in answer.values["fabric"])
    assert student.predict([example.model_copy(update={"asked": ()})]) == [Answer()]


# --- what is learned from ---


def test_negatives_are_asked_in_training_alone(tiny_bert: str, titles: Any, title_schema: Any) -> None:
    student = build(tiny_bert, title_schema, negatives=2).train()
    assert student.collate(titles[2:]).tensors["units"].item() == 3
    student.eval()
    assert student.collate(titles[2:]).tensors["units"].item() == 2


def test_what_cannot_be_learned_is_counted(tiny_bert: str) -> None:
    student = build(tiny_bert, COLOURS, longest=3)
    lost = [
        product(size=("43cm",), colour=("violet",)),
        product("wash wash wash wash shirt", size=("wash wash wash wash",), story=("free text",)),
        product().model_copy(update={"asked": ("size",)}),
    ]
    batch = student.collate(lost)
    assert batch.counts == {
        "values_not_in_text": 1, "values_not_among_options": 1, "values_too_long": 1, "attributes_without_gold": 1,
    }  # fmt: skip
    assert batch.tensors["units"].item() == 1  # the free text
    unlabelled = student.collate([lost[0].model_copy(update={"gold": None})])
    assert student(unlabelled).loss is None


def test_the_options_and_the_category_stand_in_the_question(tiny_bert: str, title_schema: Any, titles: Any) -> None:
    student = build(tiny_bert, COLOURS)
    read = student.encoder.sub_tokens.tokenizer.decode
    rows = student.collate([product(colour=("red",))]).tensors["input_ids"]
    assert read(rows[0]).startswith("[CLS] colour : red, green, red cotton, blue [SEP] red shirt")
    rows = build(tiny_bert, title_schema).collate(titles[:1]).tensors["input_ids"]
    assert read(rows[0]).startswith("[CLS] shirt size [SEP] blue")


def test_fresh_attention_learns_at_the_rate_of_heads(tiny_bert: str, tiny_t5: str, title_schema: Any) -> None:
    student = build(tiny_bert, title_schema)
    groups = {group["name"]: group for group in student.parameter_groups(1e-5, 1e-3)}
    heads = {id(p) for p in groups["heads"]["params"]}
    assert groups["heads"]["lr"] == 1e-3
    assert {n for n, p in student.named_parameters() if id(p) in heads} == {
        n for n, _ in student.named_parameters() if "crossattention" in n or "transform" in n or "writer" in n
    }
    for made in (student, build(tiny_t5, title_schema)):
        counted = [id(p) for group in made.parameter_groups(1e-5, 1e-3) for p in group["params"]]
        assert sorted(counted) == sorted(id(p) for p in made.parameters() if p.requires_grad)
    bare = build(tiny_t5, title_schema, copying=False)
    assert [group["name"] for group in bare.parameter_groups(1e-5, 1e-3)] == ["backbone"]


# --- keeping and refusing ---


@pytest.mark.parametrize(("name", "rank"), [("tiny_bert", 0), ("tiny_bert", 4), ("tiny_t5", 4)])
def test_is_kept(
    name: str, rank: int, titles: Any, title_schema: Any, learn: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    student = build(
        request.getfixturevalue(name), title_schema, LEVELS, lora_rank=rank, image_encoder="efficientnet-lite0"
    )
    learn(student, titles, 3)
    student.save_pretrained(tmp_path)
    torch.manual_seed(1)
    back = students.load(tmp_path)
    assert isinstance(back, MXT)
    expected, found = (s.predict(titles, return_scores=True) for s in (student, back))
    for (answer, scores), (same, others) in zip(expected, found, strict=True):
        assert answer == same
        assert others == pytest.approx(scores, abs=1e-4)


def test_refuses_what_it_cannot_do(tiny_bert: str, tiny_qwen: str) -> None:
    student = build(tiny_bert, COLOURS)
    cases: list[tuple[Example, View, str]] = [
        (product(uses=("red",)), View(), "several_of"),
        (product(size=("42cm",)), View(text=False), "nothing to copy"),
        (product(colour=("red",)), View(images=True), "cannot see"),
        (product(colour=("red",)), View(prompt=True), "no conditional prompt"),
        (product(colour=("red",)), View(explain="knowledge"), "no explanations"),
    ]
    for example, view, message in cases:
        for use in (student.collate, student.predict):
            with pytest.raises(UnsupportedView, match=message):
                use([example], view)  # type: ignore[operator]
    with pytest.raises(UnsupportedBackbone, match="is a decoder"):
        build(tiny_qwen, COLOURS)


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"beta": 0.0}, {"confidence": "sum"}, {"longest": 0}, {"copy": True}])
def test_refuses_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MXTConfig(**wrong)


def test_a_seeded_learning_repeats(tiny_bert: str, titles: Any, title_schema: Any, learn: Callable[..., Any]) -> None:
    losses = [learn(build(tiny_bert, title_schema), titles, 3).loss.item() for _ in range(2)]
    assert losses[0] == losses[1]
