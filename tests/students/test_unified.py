"""The unified student on tiny random backbones: both tasks, every head, every view, kept and loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from magister import students
from magister.students import saving
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.student import Output, View
from magister.students.unified import Unified, UnifiedConfig, UnsupportedView
from magister.tasks import attributes, ner
from magister.tasks.images import Image, ImageFault
from magister.tasks.task import DataFault
from torch import Tensor

LEVELS = [(4, 8), (1, 6)]


def build(backbone: str, schemas: dict[str, Any], levels: Any = None, **settings: Any) -> Unified:
    """A student whose pictures, if any, come from `Pictures` instead of an image encoder."""
    torch.manual_seed(0)
    settings = {"lora_rank": 4, "lora_alpha": 8.0, "dropout": 0.0} | settings
    student = Unified.create(UnifiedConfig(backbone=backbone, **settings), schemas)
    if levels:
        student = Unified(student.config, schemas, student.encoder, levels)
        student.features = pictures
    return student


def pictures(images: Sequence[Image]) -> list[Tensor]:
    """Features drawn from each picture's source; ``broken`` cannot be used."""
    for image in images:
        if image.source == "broken":
            raise ImageFault(image.example, image.source, "broken picture")
    drawn = []
    for cells, channels in LEVELS:
        rows = [torch.randn(cells, channels, generator=torch.Generator().manual_seed(len(i.source))) for i in images]
        drawn.append(torch.stack(rows))
    return drawn


def seen(examples: Sequence[Any], *sources: str) -> list[Any]:
    """The examples with a picture each; an empty source is none."""
    return [
        e.model_copy(update={"images": (Image(source=s),) if s else ()}) for e, s in zip(examples, sources, strict=True)
    ]


def learn(student: Unified, examples: Sequence[Any], view: View, steps: int, rate: float = 0.02) -> Output:
    optimizer = torch.optim.AdamW(student.parameter_groups(rate, rate), weight_decay=0.0)
    student.train()
    for _ in range(steps):
        output = student(student.collate(examples, view))
        assert output.loss is not None
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
    student.eval()
    return output


def gold(examples: Sequence[Any]) -> list[Any]:
    return [e.gold for e in examples]


@pytest.fixture
def both(ner_schema: ner.Schema, product_schema: attributes.Schema) -> dict[str, Any]:
    return {"ner": ner_schema, "attributes": product_schema}


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma", "tiny_qwen"])
@pytest.mark.parametrize("head", ["tagging", "span"])
def test_overfits_posts(name: str, head: str, posts: Any, both: Any, request: pytest.FixtureRequest) -> None:
    student = build(
        request.getfixturevalue(name),
        both,
        heads=(head,),
        lora_rank=0,
        queries={"PER": ("people",), "LOC": ("places",)},
    )
    learn(student, posts, View(), 60, rate=0.005)
    assert student.predict(posts) == gold(posts)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_qwen"])
def test_overfits_products(name: str, products: Any, both: Any, request: pytest.FixtureRequest) -> None:
    short = {"size": ("size",), "colour": ("colour",), "sleeve": ("sleeve",)}
    student = build(request.getfixturevalue(name), both, heads=("span", "ranking"), lora_rank=0, queries=short)
    learn(student, products, View(), 80, rate=0.005)
    assert student.predict(products) == gold(products)


def test_a_decoder_overfits_by_writing(tiny_gemma: str, posts: Any, products: Any, both: Any) -> None:
    student = build(tiny_gemma, both, heads=("generative",), lora_rank=0, max_new_tokens=60)
    examples = [*posts[:2], *products[:2]]
    learn(student, examples, View(), 150, rate=0.01)
    assert student.predict(examples) == gold(examples)
    assert student.given_up == {}


def test_overfits_pictures_alone(tiny_bert: str, products: Any, both: Any) -> None:
    """The same text for all: only the picture can tell."""
    alike = [
        p.model_copy(
            update={"asked": ("colour",), "gold": attributes.Answer(values={"colour": p.gold.values["colour"]})}
        )
        for p in seen(products, "1", "22", "333")
    ]
    student = build(tiny_bert, both, LEVELS, heads=("ranking",), image_encoder="efficientnet-lite0", prefix_length=2)
    view = View(images=True, text=False)
    learn(student, alike, view, 60)
    assert student.predict(alike, view) == gold(alike)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma"])
def test_overfits_the_rationale(name: str, posts: Any, both: Any, request: pytest.FixtureRequest) -> None:
    student = build(request.getfixturevalue(name), both, lora_rank=0, two_prefix=True)
    view = View(explain="knowledge")
    with torch.no_grad():
        before = student.eval()(student.collate(posts[:3], view))
    after = learn(student, posts[:3], view, 60, rate=0.005)
    assert set(after.losses) == {"rationale"}
    assert float(after.loss.detach()) < 0.3 * float(before.loss)
    assert student.collate(posts, view).counts == {"rationale_missing": 1}


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma"])
def test_saved_and_loaded_answers_the_same(
    name: str, lora_rank: int, posts: Any, products: Any, both: Any, tmp_path: Path, request: Any
) -> None:
    heads = ("tagging", "span", "ranking") + (("generative",) if name == "tiny_gemma" else ())
    student = build(
        request.getfixturevalue(name),
        both,
        LEVELS,
        heads=heads,
        lora_rank=lora_rank,
        image_encoder="efficientnet-lite0",
        prompt_length=3,
        word_shapes=True,
        two_prefix=True,
    )
    examples = seen([*posts, *products], "1", "", "333", "22", "", "1", "4444")
    view = View(images=True, prompt=True)
    learn(student, examples, view, 3)
    student.save_pretrained(tmp_path)
    again = students.load(tmp_path)
    again.features = pictures
    assert not again.training
    assert again.predict(examples, view, return_scores=True) == student.predict(examples, view, return_scores=True)
    assert again.config == student.config
    assert again.schemas == student.schemas
    assert (tmp_path / "adapter").exists() == bool(lora_rank)
    assert (tmp_path / "backbone").exists() == (not lora_rank)
    trained = {n for n, p in student.named_parameters() if p.requires_grad}
    assert {n for n, p in again.named_parameters() if p.requires_grad} == trained


def test_an_adapter_is_kept_in_pefts_own_format(tiny_bert: str, posts: Any, both: Any, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    student = build(tiny_bert, both)
    learn(student, posts, View(), 2)
    student.save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(
        AutoModel.from_pretrained(tiny_bert, add_pooling_layer=False), tmp_path / "adapter"
    )
    rows = student.collate(posts, View()).tensors
    rows = {k: rows[f"tagging.{k}"] for k in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**rows).last_hidden_state, student.encoder(**rows))


def test_a_folder_without_a_student_is_named(tiny_bert: str, both: Any, tmp_path: Path) -> None:
    with pytest.raises(saving.CheckpointError, match="no student there"):
        Unified.from_pretrained(tmp_path)
    build(tiny_bert, both).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["config"]["prompt_length"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(saving.CheckpointError, match=r"differing: prompt\."):
        Unified.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma"])
def test_a_batch_answers_as_each_alone(
    name: str, posts: Any, products: Any, both: Any, request: pytest.FixtureRequest
) -> None:
    heads = ("span", "ranking", "tagging") if name == "tiny_bert" else ("generative",)
    student = build(
        request.getfixturevalue(name),
        both,
        LEVELS,
        heads=heads,
        image_encoder="efficientnet-lite0",
        prompt_length=3,
        max_new_tokens=8,
    )
    examples = seen([*posts, *products], "1", "", "333", "22", "", "1", "4444")
    view = View(images=True, prompt=True, context=("knowledge",))
    learn(student, examples, view, 5)
    together = student.predict(examples, view, return_scores=True)
    alone = [student.predict([e], view, return_scores=True)[0] for e in examples]
    assert [a for a, _ in together] == [a for a, _ in alone]
    for (_, ours), (_, theirs) in zip(together, alone, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_words_align_across_views(tiny_bert: str, posts: Any, both: Any) -> None:
    student = build(tiny_bert, both, prompt_length=3, two_prefix=True)
    plain, rich = (
        student(student.collate(posts, view)).scores for view in (View(prompt=True), View(context=("knowledge",)))
    )
    assert torch.equal(plain["word_mask"], rich["word_mask"])
    assert plain["word_mask"].sum(1).tolist() == [len(p.words) for p in posts]
    assert plain["emissions"].shape == rich["emissions"].shape


def test_windows_lose_no_word(tiny_bert: str, both: Any) -> None:
    """A text of more than one window: each word gets the state it has in the window that owns it."""
    words = [f"{w}{i % 7}" for i, w in enumerate(["to", "Kawhi", "Oakland", "the", "Toronto"] * 20)]
    post = ner.Example(id="w", text=" ".join(words), words=tuple(words), gold=ner.Answer())
    student = build(tiny_bert, both).eval()
    batch = student.collate([post])
    assert batch.counts["windows"] == len(batch.tensors["tagging.input_ids"]) > 2
    rows, at = batch.tensors["tagging.word_row"][0], batch.tensors["tagging.word_at"][0]
    ids = batch.tensors["tagging.input_ids"][rows, at].tolist()
    assert ids == [student.encoder.sub_tokens.word(w, i > 0)[0].id for i, w in enumerate(words)]
    assert student(batch).scores["emissions"].shape[1] == len(words)
    assert len(student.predict([post])) == 1


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma"])
def test_no_image_equals_text_only(name: str, posts: Any, products: Any, both: Any, request: Any) -> None:
    heads = ("tagging", "ranking", "span")
    student = build(request.getfixturevalue(name), both, LEVELS, heads=heads, image_encoder="efficientnet-lite0")
    examples = seen([*posts, *products], "1", "", "333", "", "", "1", "")
    blind, sighted = (student.eval()(student.collate(examples, View(images=images))).scores for images in (False, True))
    for row, source in enumerate(["1", "", "333", ""]):
        words = blind["word_mask"][row]
        same = torch.allclose(blind["emissions"][row, words], sighted["emissions"][row, words], atol=1e-5)
        assert same == (not source)
    unseen = student.collate(seen(posts, "", "", "", ""), View(images=True))
    assert unseen.counts == {"image_missing": 4}
    without = student.collate(posts, View())
    assert unseen.tensors.keys() == without.tensors.keys(), "not a trace of a picture"
    assert torch.equal(student(unseen).scores["emissions"], student(without).scores["emissions"])


def test_broken_pictures_are_refused_or_counted(tiny_bert: str, posts: Any, both: Any) -> None:
    student = build(tiny_bert, both, LEVELS, image_encoder="efficientnet-lite0")
    examples = seen(posts, "1", "broken", "", "22")
    with pytest.raises(ImageFault, match="broken picture"):
        student.collate(examples, View(images=True))
    student.refuse_broken_images = False
    batch = student.collate(examples, View(images=True))
    assert batch.counts == {"image_missing": 1, "image_broken": 1}
    assert batch.tensors["image.present"].tolist() == [True, False, False, True]


def test_every_parameter_is_in_one_group_and_learns(tiny_bert: str, posts: Any, products: Any, both: Any) -> None:
    student = build(
        tiny_bert,
        both,
        LEVELS,
        heads=("tagging", "span", "ranking"),
        image_encoder="efficientnet-lite0",
        prompt_length=3,
        word_shapes=True,
        two_prefix=True,
    )
    groups = student.parameter_groups(0.01, 0.1)
    grouped = [id(p) for g in groups for p in g["params"]]
    trained = {n: p for n, p in student.named_parameters() if p.requires_grad}
    assert sorted(grouped) == sorted(id(p) for p in trained.values())
    assert [(g["name"], g["lr"]) for g in groups] == [("backbone", 0.01), ("heads", 0.1)]
    assert all("lora" in n for n, p in trained.items() if id(p) in {id(q) for q in groups[0]["params"]})

    before = {n: p.detach().clone() for n, p in student.named_parameters()}
    examples = seen([*posts, *products], "1", "", "333", "22", "", "1", "4444")
    optimizer = torch.optim.SGD(groups)
    student.train()
    # Two steps: LoRA's B is zero at first, so A and what lies behind it has no gradient in the first.
    for _ in range(2):
        optimizer.zero_grad()
        for view in (View(images=True, prompt=True), View(explain="knowledge")):
            student(student.collate(examples, view)).loss.backward()
        optimizer.step()
    still = [n for n, p in student.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
    assert still == []
    moved = [n for n, p in student.named_parameters() if not p.requires_grad and not torch.equal(p, before[n])]
    assert moved == []


def test_full_fine_tuning_trains_the_backbone(tiny_bert: str, posts: Any, both: Any) -> None:
    student = build(tiny_bert, both, lora_rank=0)
    assert all(p.requires_grad for p in student.encoder.parameters())
    before = student.encoder.embeddings.weight.detach().clone()
    learn(student, posts, View(), 1)
    assert not torch.equal(before, student.encoder.embeddings.weight)


def test_the_first_head_that_can_answers(tiny_gemma: str, posts: Any, products: Any, both: Any) -> None:
    student = build(tiny_gemma, both, heads=("span", "generative", "ranking", "tagging"))
    every = student._asked([posts[0], products[0]], every_head=True)
    assert {n: [i.labels for i in items] for n, items in every.items()} == {
        "span": [("PER",), ("LOC",), ("size",)],
        "generative": [("PER", "LOC"), ("size", "colour", "sleeve")],
        "tagging": [("PER", "LOC")],
        "ranking": [("colour",), ("sleeve",)],
    }
    first = student._asked([posts[0], products[0]], every_head=False)
    assert {n: [i.labels for i in items] for n, items in first.items()} == {
        "span": [("PER",), ("LOC",), ("size",)],
        "generative": [("colour", "sleeve")],
    }


def test_unlabelled_examples_have_scores_and_no_loss(tiny_bert: str, posts: Any, products: Any, both: Any) -> None:
    student = build(tiny_bert, both, heads=("tagging", "span", "ranking"))
    bare = [e.model_copy(update={"gold": None}) for e in [*posts, *products]]
    output = student(student.collate(bare))
    assert output.loss is None
    assert set(output.scores) == {"emissions", "word_mask", "states", "span", "ranking"}
    mixed = student(student.collate([bare[0], posts[1]]))
    alone = student(student.collate([posts[1]]))
    torch.testing.assert_close(mixed.losses["tagging"], alone.losses["tagging"])


def test_what_it_was_not_built_for_is_named(tiny_bert: str, posts: Any, products: Any, both: Any) -> None:
    with pytest.raises(UnsupportedBackbone, match="is an encoder and cannot write"):
        build(tiny_bert, both, heads=("generative",))
    with pytest.raises(UnsupportedView, match="tagging is for the task ner"):
        build(tiny_bert, {"attributes": both["attributes"]}, heads=("tagging",))
    student = build(tiny_bert, both)
    for view, message in [
        (View(prompt=True), "prompt_length=0"),
        (View(images=True), "image_encoder=None"),
        (View(explain="knowledge"), "two_prefix=False"),
        (View(text=False), "nothing to mark for: tagging"),
    ]:
        with pytest.raises(UnsupportedView, match=message):
            student.collate(posts, view)
    with pytest.raises(UnsupportedView, match=r"verbatim \(size\) needs the head span or generative"):
        student.predict(products)
    with pytest.raises(UnsupportedView, match="built for: ner; not for attributes"):
        build(tiny_bert, {"ner": both["ner"]}).collate(products)
    asked = products[0].model_copy(update={"asked": ("weight",)})
    with pytest.raises(DataFault, match=r"example p: unknown attribute 'weight'.*there are: size, colour, sleeve"):
        student.collate([asked])
    blank = ner.Example(id="z", text="  ")
    with pytest.raises(DataFault, match="example z: its text has no words"):
        student.predict([blank])


def test_predict_keeps_mode_and_counts(tiny_bert: str, posts: Any, both: Any) -> None:
    student = build(tiny_bert, both, context_tokens=2)
    student.train()
    assert student.predict([]) == []
    student.predict(posts, View(context=("knowledge",)))
    assert student.training
    assert student.given_up["context_tokens_cut"] > 0
    student.predict(posts)
    assert student.given_up == {}


def test_the_list_of_students() -> None:
    assert students.find("unified") is Unified
    for name in students.STUDENTS:
        assert name == students.find(name).NAME
        assert students.describe(name)
    assert students.describe("unified").startswith("The flagship student")
    with pytest.raises(KeyError, match="no student 'bert'; there are: unified"):
        students.find("bert")
