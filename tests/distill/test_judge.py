"""What `magister evaluate` writes, of a student and of a teacher."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from magister.distill import judge, train
from magister.distill.recipe import Recipe, check
from magister.eval import record, records, score
from magister.tasks.task import DataFault
from magister.teachers import spec
from magister.teachers.teacher import Reply, Request


def test_a_student_is_judged_and_recorded(recipe: Recipe, tmp_path: Path) -> None:
    run = train.train(recipe)
    judged = judge.student(run, "ner", recipe.data)
    assert len(judged.answers) == len(judged.examples) == 12
    path = judge.write_record(judged, tmp_path / "results")
    written = record.read(path)
    assert written.metrics["f1"].value == judged.scores.value
    assert written.examples == {"train": 48, "test": 12}
    assert (written.variant, written.seed, written.system) == ("text", 0, "unified")
    assert "text" in records.render(tmp_path / "results")
    assert score.read(judge.write_json(judged, tmp_path / "a" / "scores.json")).value == judged.scores.value
    page = judge.write_html(judged, tmp_path / "page.html").read_text()
    assert "http" not in page.split("<body", 1)[1].split("xmlns", 1)[0]
    assert "12 examples" in judge.text(judged)


def test_another_task_is_refused(recipe: Recipe) -> None:
    with pytest.raises(DataFault, match="trained for ner"):
        judge.student(train.train(recipe), "attributes", recipe.data)


def test_variants_say_what_is_read_and_learned(settings: dict[str, Any]) -> None:
    knows = {**settings, "knowledge": "k.jsonl"}
    assert judge.variant(check(settings)) == "text"
    assert judge.variant(check({**knows, "context": ["caption", "knowledge"]})) == "text + caption + knowledge"
    distilled = check({**knows, "objective": "prompt_distillation", "teacher_run": "runs/c"})
    assert judge.variant(distilled) == "text, prompt_distillation, finished teacher"


class Halting:
    """Answers every other question; the others end on the token limit."""

    spec, sees_images = "halting", True

    def identity(self) -> dict[str, Any]:
        return {"model": "halting"}

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for n, request in enumerate(requests):
            said = json.dumps({"entities": []})
            yield Reply(key=request.key, text=said if n % 2 else said[:5], finish="stop" if n % 2 else "length")

    def close(self) -> None:
        pass


def test_a_teacher_is_judged_and_what_cannot_be_read_is_counted(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec, "teacher", lambda name: Halting())
    judged = judge.teacher("halting", "ner", recipe.data, prompt="zero_shot", limit=10)
    assert judged.counts == {"length": 5}
    assert judged.scores.counts["unparseable"] == 5
    assert record.read(judge.write_record(judged, tmp_path)).counts["length"] == 5


def test_a_floor_is_judged_like_any_system(tmp_path: Path) -> None:
    lines = [
        {"task": "attributes", "schema": {"attributes": [{"name": "color"}]}},
        *({"id": f"t{n}", "text": f"{v} mug", "asked": ["color"], "split": "train",
           "gold": {"values": {"color": [v]}}} for n, v in enumerate(["red", "red", "blue"])),
        {"id": "x", "text": "blue mug", "asked": ["color"], "split": "test", "gold": {"values": {"color": ["blue"]}}},
    ]  # fmt: skip
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    judged = judge.floor("dictionary, longest", "attributes", str(tmp_path / "data.jsonl"))
    assert judged.scores.value == 1.0
    assert judge.floor("majority", "attributes", str(tmp_path / "data.jsonl")).scores.value == 0.0
    assert record.read(judge.write_record(judged, tmp_path)).system == "floor"


def test_what_was_trained_on_other_data_says_so(recipe: Recipe, tmp_path: Path) -> None:
    run = train.train(recipe)
    other = tmp_path / "copy.jsonl"
    other.write_bytes(Path(recipe.data).read_bytes())
    assert judge.student(run, "ner", str(other)).variant == f"text, trained on {recipe.data}"


def test_ranked_values_stand_in_the_notes(backbone: Path, tmp_path: Path) -> None:
    lines = [
        {"task": "attributes", "schema": {"attributes": [{"name": "color"}]}},
        *({"id": f"{split}{n}", "text": f"{v} mug", "asked": ["color"], "split": split,
           "gold": {"values": {"color": [v]}}}
          for split in ("train", "valid", "test") for n, v in enumerate(["red", "red", "blue"])),
        {"id": "new", "text": "pink mug", "asked": ["color"], "split": "test", "gold": {"values": {"color": ["pink"]}}},
    ]  # fmt: skip
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    settings = {"task": "attributes", "student": "mae", "data": str(data), "text_encoder": str(backbone), "width": 8,
                "filters": 8, "epochs": 1, "precision": "fp32", "output": str(tmp_path / "run")}  # fmt: skip
    notes = judge.student(train.train(check(settings)), "attributes", str(data)).notes
    assert "values ranked: MRR" in notes
    assert "over 4 slots" in notes
    assert "1 slots whose gold is no candidate" in notes
