"""Recipes: all mistakes at once, overrides, contradictions, and every recipe that is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from magister import students
from magister.distill import recipe
from magister.distill.recipe import Recipe, RecipeFault, check, dump, read

SHIPPED = sorted(recipe.SHIPPED.rglob("*.yaml"))
COT = {"student": "cot_prompt", "objective": "prompt_distillation", "knowledge": "k"}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def test_five_mistakes_are_all_reported_with_their_places(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "task: ner\n"
        "data: twitter2017\n"
        "learning_rte: 0.001\n"  # unknown, with a near miss
        "epochs: many\n"  # wrong kind
        "batch_size: 0\n"  # out of range
        "task: attributes\n"  # given again
        "objective: two_prefix\n",  # contradicts: no knowledge
    )
    with pytest.raises(RecipeFault) as caught:
        read(path)
    message = str(caught.value)
    assert len(caught.value.mistakes) == 5
    assert "5 mistakes" in message
    assert str(path) in message
    assert "line 3: unknown key 'learning_rte', did you mean 'learning_rate'?" in message
    assert "line 4: epochs" in message
    assert "'many'" in message
    assert "line 5: batch_size" in message
    assert "line 6: 'task' is given again (first on line 1)" in message
    assert "two_prefix needs knowledge" in message


def test_overrides_are_yaml_and_their_mistakes_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "task: ner\ndata: twitter2017\nknowledge: k.jsonl\n")
    made = read(path, ["context=[caption, knowledge]", "learning_rate=1e-4", "word_shapes=true", "patience=2"])
    assert made.context == ("caption", "knowledge")
    assert made.learning_rate == 1e-4
    assert made.settings.word_shapes is True
    assert made.patience == 2
    assert made.output == "runs/r"
    assert read(path, ["knowledge=null"]).knowledge is None
    with pytest.raises(RecipeFault) as caught:
        read(path, ["epochs", "epocs=3", "seed=[1", "clip=-1"])
    assert len(caught.value.mistakes) == 4
    assert "override 'epocs=3': unknown key 'epocs', did you mean 'epochs'?" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "prompt_distillation", "prompt_length": 4}, "needs knowledge"),
        ({"objective": "prompt_distillation", "knowledge": "k"}, "prompt_length above 0"),
        ({"context": ["knowledge"]}, "knowledge (where it lies) is not set"),
        ({"objective": "two_prefix", "knowledge": "k", "context": ["knowledge"]}, "take it out of context"),
        ({"objective": "two_prefix", "knowledge": "k", "alpha": 2}, "alpha is 0 to 1"),
        ({"objective": "queries"}, "heads: [span]"),
        ({"heads": ["generative"]}, "needs a decoder"),
        ({"heads": ["ranking"]}, "for the task attributes"),
        ({"heads": []}, "heads: Tuple should have at least 1 item"),
        ({"student": "opentag"}, "opentag is for attributes, not ner"),
        ({"images": True}, "image_encoder"),
        ({"extra_data": ["twitter2015"]}, "only read by the objective prompt_distillation"),
        ({"teacher_run": "runs/c"}, "only read by the objective prompt_distillation"),
        ({"text": False}, "needs images"),
        ({"objective": "prompt_distillation", "knowledge": "k", "teacher_context": []}, "must name a side text"),
        ({"kd_target": "hidden", "trust": True}, "kd_target, trust: only read by"),
        ({"modality_dropout": 0.5}, "modality_dropout is only read by the objective prompt_distillation"),
        ({"student": "ita", "objective": "cross_view", "beta": 0.5}, "context names none"),
        ({"student": "ita", "objective": "cross_view", "context": ["caption"]}, "beta is below 1"),
        ({"student": "ita", "images": True, "image_encoder": "efficientnet-lite0"}, "reads pictures as side texts"),
        ({**COT, "teacher_run": "runs/c", "trust": True}, "only its posteriors are there"),
        ({**COT, "task": "relations", "kd_level": "emission"}, "is a tagger's"),
        ({"seed": -1}, "seed"),
    ],
)
def test_contradictions_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(RecipeFault) as caught:
        check({"task": "ner", "data": "twitter2017", **changes})
    assert words in str(caught.value)


@pytest.mark.parametrize("student", students.STUDENTS)
def test_no_student_has_a_setting_that_a_recipe_has_already(student: str) -> None:
    own = students.find(student).Config
    assert not Recipe.model_fields.keys() & (own.model_fields.keys() - own.derived)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "task: [ner\n", "just words\n"])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeFault):
        read(written(tmp_path, text))
    with pytest.raises(RecipeFault, match="there is no such file"):
        read(tmp_path / "missing.yaml")


def test_the_resolved_copy_reads_back(tmp_path: Path) -> None:
    made = check({"task": "ner", "data": "twitter2017", "learning_rate": 1e-5, "context": ["caption"]})
    assert read(written(tmp_path, dump(made))) == made
    own = type(made.settings).model_fields.keys() - made.settings.derived
    assert set(yaml.safe_load(dump(made))) == (set(Recipe.model_fields) | own) - {"settings"}


def test_recipes_are_shipped() -> None:
    assert {p.parent.name for p in SHIPPED} >= {"ner", "attributes"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_shipped_recipe_is_valid_and_says_how_it_is_run(path: Path) -> None:
    made = read(path)
    assert made.task == path.parent.name
    head = path.read_text().split("\n\n")[0]
    assert f"#   magister distill {path.parent.name}/{path.name}" in head, "no launch line in its head comment"
    for line in path.read_text().splitlines():
        if line.startswith("#   magister distill"):
            read(path, line.split("#")[1].split()[3:])
