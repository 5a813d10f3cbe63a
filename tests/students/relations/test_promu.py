"""PROMU: its losses of pre-training on a batch, its prompter, going on from another run, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from magister.distill.recipe import RecipeFault, check
from magister.models.packaged import ModelNotFound
from magister.students.encoders.prompter import prompter
from magister.students.encoders.sight import sight
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.fusion.prompted import soft_labels
from magister.students.relations.promu import PROMU, RELATIONS, PROMUConfig, common_words
from magister.students.saving import CheckpointError
from magister.students.student import Output, View
from magister.students.system import UnsupportedView

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawn import pictures_of, seen

SEES = View(images=True)
#: Two cells and a vector, each of the whole picture and three parts.
LEVELS = [(8, 6), (4, 5)]
features = pictures_of(LEVELS)
ALL = ("contrast", "matching", "entities", "relations")


def build(backbone: str, schemas: dict[str, Any], examples: Sequence[Any] = (), **settings: Any) -> PROMU:
    torch.manual_seed(0)
    settings = {"lora_rank": 4, "layers": 1, "nouns": 6, "pretraining": 1.0, "label_temperature": 0.2} | settings
    config = PROMUConfig(backbone=backbone, dropout=0.0, image_encoder="open_clip:a@b", **settings)
    blind = PROMU.create(config.model_copy(update={"image_encoder": None}), schemas, examples)
    student = PROMU(config, schemas, blind.encoder, LEVELS, blind.vocabulary)
    student.features = features
    vectors = lambda texts: torch.randn(len(texts), 5, generator=torch.Generator().manual_seed(len(texts[0])))
    student.__dict__["prompter"] = vectors
    return student


@pytest.fixture
def schemas(relation_schema: Any) -> dict[str, Any]:
    return {"relations": relation_schema}


def training(student: PROMU) -> PROMU:
    """The student in training mode, without the backbone's own dropout."""
    student.train().encoder.eval()
    return student


def losses(student: PROMU, examples: Sequence[Any], view: View = SEES) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(loss) for name, loss in student(student.collate(examples, view)).losses.items()}


def test_losses_stand_beside_the_tasks_own_in_training_with_pictures(
    tiny_bert: str, schemas: dict[str, Any], pairs: Any
) -> None:
    student = training(build(tiny_bert, schemas, pairs, pretrain_by=ALL))
    some = seen(pairs, "1", "22", "", "333")
    named = {"relations", *(f"pretraining_{name}" for name in ALL)}
    full = losses(student, some)
    assert full.keys() == named
    output = student(student.collate(some, SEES))
    assert output.loss.item() == pytest.approx(sum(full.values()), rel=1e-5)
    half = training(build(tiny_bert, schemas, pairs, pretrain_by=ALL, pretraining=0.5))
    for name, value in losses(half, some).items():
        assert value == pytest.approx(full[name] * (1.0 if name == "relations" else 0.5), rel=1e-4)
    # A row without a picture has no part in them.
    fewer = losses(student, [some[0], some[1], some[3]])
    for name in named - {"relations"}:
        assert fewer[name] == pytest.approx(full[name], rel=1e-4)
    assert losses(student, seen(pairs, "", "", "", "")).keys() == {"relations"}
    assert losses(student, some, View()).keys() == {"relations"}
    assert losses(student.eval(), some).keys() == {"relations"}
    assert losses(training(build(tiny_bert, schemas, pairs, pretraining=0.0)), some).keys() == {"relations"}


def test_every_weight_learns_by_all_losses(tiny_bert: str, schemas: dict[str, Any], pairs: Any) -> None:
    student = build(tiny_bert, schemas, pairs, pretrain_by=ALL, least=0.0).train()
    for value in student.parameters():
        if value.requires_grad and not value.any():
            torch.nn.init.normal_(value, std=0.02)
    output = student(student.collate(seen(pairs, "1", "22", "", "333"), SEES))
    assert output.loss is not None
    output.loss.backward()
    assert [n for n, p in student.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())] == []


def test_a_neighbours_picture_does_not_match_unless_it_is_the_same(
    tiny_bert: str, schemas: dict[str, Any], pairs: Any
) -> None:
    student = training(build(tiny_bert, schemas, pretrain_by=("matching",)))
    some = seen(pairs[:3], "1", "22", "22")
    tensors = student.collate(some, SEES).tensors
    picture = student.seen(tensors, tensors["example"])
    assert picture is not None
    with torch.no_grad():
        states, cells = student.encode(tensors), student.look(picture.levels[0])
        said = []
        for own, other, fits in ((0, 0, 1), (1, 1, 1), (2, 2, 1), (0, 2, 0), (1, 0, 0), (2, 1, 1)):
            length = int(tensors["attention_mask"][own].sum())
            state, cell = states[own : own + 1, :length], cells[other : other + 1]
            fused = student.meet(state, cell, torch.ones(1, dtype=torch.bool))
            said.append(F.cross_entropy(student.matched(fused.mean(1)), torch.tensor([fits])))
    assert losses(student, some)["pretraining_matching"] == pytest.approx(float(torch.stack(said).mean()), rel=1e-3)


def test_parts_and_wholes_learn_what_the_prompter_says(
    tiny_bert: str, schemas: dict[str, Any], pairs: Any, learn: Callable[..., Output]
) -> None:
    student = build(tiny_bert, schemas, pairs, pretrain_by=("entities", "relations"), least=0.0)
    some = seen(pairs, "1", "22", "333", "4444")
    nouns = student.prompts("nouns")
    assert nouns.shape == (6, 5)
    assert student.prompts("nouns") is nouns
    assert student.prompts("relations").shape == (len(RELATIONS), 5)
    frozen = torch.cat([features(e.images)[-1] for e in some])
    output = learn(student, some, 150, 0.01, SEES)
    for name, vectors in (("nouns", frozen[:, 1:]), ("relations", frozen[:, 0])):
        labels = soft_labels(vectors, student.prompts(name), 0.2)
        entropy = float(-(labels * labels.log()).sum(-1).mean())
        learnt = output.losses["pretraining_entities" if name == "nouns" else "pretraining_relations"].item()
        assert entropy - 1e-4 <= learnt < entropy + 0.1


def test_nouns_are_the_content_words_of_most_examples(tiny_bert: str, schemas: dict[str, Any], pairs: Any) -> None:
    some = [e.model_copy(update={"context": {"caption": "A man and a ball , ball ball"}}) for e in pairs]
    assert common_words(some, 3) == ["ball", "man", "kawhi"]
    assert build(tiny_bert, schemas, some, pretrain_by=("entities",)).vocabulary == {"nouns": common_words(some, 6)}
    with pytest.raises(UnsupportedView, match="there are none"):
        build(tiny_bert, schemas, pretrain_by=("entities",))


def test_captions_and_prompts_have_one_space(tiny_bert: str) -> None:
    name = f"caption:{tiny_bert}"
    eyes = sight(name, 2, 1, 3)
    ask = prompter(name, eyes)
    vectors = ask(["a red shirt", "Oakland"])
    torch.testing.assert_close(vectors[0], eyes.encode(["a red shirt"])[-1][0, 0])
    assert soft_labels(eyes.encode(["Oakland"])[-1][:, 0], vectors, 0.05).argmax() == 1
    with pytest.raises(ModelNotFound, match="no text side"):
        prompter("efficientnet-lite0", eyes)


def test_goes_on_from_a_run_of_the_other_task(
    tiny_bert: str, schemas: dict[str, Any], ner_schema: Any, posts: Any, pairs: Any, learn: Callable[..., Output],
    tmp_path: Path
) -> None:  # fmt: skip
    earlier = build(tiny_bert, {"ner": ner_schema})
    learn(earlier, seen(posts, "1", "22", "", "333"), 3, 0.01, SEES)
    earlier.save_pretrained(tmp_path / "best")
    student = build(tiny_bert, schemas)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    student.go_on_from(PROMU.from_pretrained(tmp_path / "best"))
    after, theirs = student.state_dict(), earlier.state_dict()
    for name, value in after.items():
        if name.startswith(("head.", "shapes.")):
            torch.testing.assert_close(value, before[name])
        else:
            torch.testing.assert_close(value, theirs[name])
    assert any(not torch.equal(before[n], v) for n, v in after.items() if n.startswith("encoder."))
    with pytest.raises(CheckpointError, match=r"start: .*layers\.1"):
        build(tiny_bert, schemas, layers=2).go_on_from(earlier)
    blind = PROMUConfig(backbone=tiny_bert, lora_rank=4, layers=1, start=str(tmp_path))
    with pytest.raises(CheckpointError, match="start: "):  # one that sees nothing has no fusion
        PROMU.create(blind, schemas)


def test_bad_settings_are_refused(tiny_bert: str, schemas: dict[str, Any]) -> None:
    wanted = {"task": "relations", "student": "promu", "data": "mnre", "images": True, "pretrain_by": list(ALL)}
    with pytest.raises(RecipeFault, match="pretrain_by entities needs an image_encoder with a text side"):
        check({**wanted, "image_encoder": "efficientnet-lite0"})
    check({**wanted, "image_encoder": "caption:minilm"})
    with pytest.raises(RecipeFault, match="pretrain_by"):
        check({**wanted, "image_encoder": "caption:minilm", "pretrain_by": ["words"]})
    with pytest.raises(UnsupportedBackbone, match="do not divide"):
        build(tiny_bert, schemas, attention_heads=5)
