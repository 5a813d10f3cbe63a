"""Active learning: rounds that go on where they stopped, nothing of the gold in the pool, and what is picked."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from magister.cli import app
from magister.distill import active, data, rounds, train
from magister.distill.checkpoint import RunFault
from magister.distill.recipe import Recipe, RecipeFault, check
from magister.distill.rounds import ALL, Plan
from magister.eval import record
from magister.tasks.attributes import Answer, Attribute, Example, Schema
from magister.tasks.dataset import Dataset
from magister.tasks.readers import jsonl
from magister.tasks.task import DataFault
from typer.testing import CliRunner

SCHEMA = Schema(attributes=(Attribute(name="colour"), Attribute(name="size"), Attribute(name="brand")))
COLOURS, SIZES, OTHER = ["red", "green", "blue", "black"], ["4", "5", "6"], ["shirt", "of", "wool", "with", "a", "hood"]


def products(count: int, seed: int) -> tuple[Example, ...]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        colour, size = rng.choice(COLOURS), rng.choice(SIZES)
        words = [*rng.choices(OTHER, k=rng.randint(1, 5)), colour, size]
        rng.shuffle(words)
        gold = Answer(values={"colour": (colour,), "size": (size,)})
        made.append(
            Example(id=f"{seed}-{number}", text=" ".join(words), asked=("colour", "size"), category="shirt", gold=gold)
        )
    return tuple(made)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(active, "LEAST_STEPS", 6)
    monkeypatch.setattr(active, "LOOKS", 3)
    splits = {"train": products(24, 1), "valid": products(6, 2), "test": products(8, 3)}
    jsonl.write(Dataset("shirts", "attributes", SCHEMA, splits), tmp_path / "shirts.jsonl")
    yield check(
        {
            "task": "attributes",
            "student": "opentag",
            "data": str(tmp_path / "shirts.jsonl"),
            "hidden": 8,
            "attention": 6,
            "epochs": 2,
            "batch_size": 4,
            "head_learning_rate": 0.02,
            "precision": "fp32",
            "output": str(tmp_path / "run"),
        }
    )
    AcceleratorState._reset_state(reset_partial_state=True)


PLAN = Plan(start=4, batch=6)


def kept(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_simulation_goes_on_where_it_stopped(recipe: Recipe, tmp_path: Path) -> None:
    silent = lambda text: None
    whole = active.simulate(recipe, tmp_path / "whole", PLAN, additions=2, seeds=2, say=silent)
    every = kept(tmp_path / "whole")
    assert len(every) == 2 * (1 + 3 * 3)

    def stopping(text: str) -> None:
        if "tag_flip, 10" in text:
            raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        active.simulate(recipe, folder, PLAN, additions=1, seeds=2, say=stopping)
    assert len(kept(folder)) == 7, "all, 2 random, 2 least_confidence, 2 tag_flip of the first seed"
    with (folder / "rounds.jsonl").open("a") as file:
        file.write('{"strategy": "ran')  # cut short by a kill
    again = active.simulate(recipe, folder, PLAN, additions=2, seeds=2, say=silent)
    by_key = lambda line: (line["strategy"], line["seed"], line["number"])
    assert sorted(kept(folder), key=by_key) == sorted(every, key=by_key)
    varying = {"seconds", "command", "revision"}
    assert {k: v for k, v in again.items() if k not in varying} == {k: v for k, v in whole.items() if k not in varying}
    with pytest.raises(RunFault, match=r"holds a simulation with .*batch=6"):
        active.simulate(recipe, folder, Plan(start=4, batch=7), say=silent)
    with pytest.raises(RunFault, match="another recipe"):
        active.simulate(recipe.model_copy(update={"epochs": 3}), folder, PLAN, say=silent)


def test_rounds_label_what_was_chosen_and_nothing_twice(recipe: Recipe, tmp_path: Path) -> None:
    result = active.simulate(recipe, tmp_path / "s", PLAN, additions=9, seeds=1, say=lambda text: None)
    found = rounds.read(tmp_path / "s" / "rounds.jsonl")
    for strategy in active.STRATEGIES:
        own = [one for key, one in sorted(found.items()) if one.strategy == strategy]
        assert [one.labels for one in own] == [4, 10, 16, 22, 24], "the last batch is what is left"
        chosen = [name for one in own for name in one.chosen]
        assert len(chosen) == len(set(chosen)) == 20
        assert own[0].metrics["f1"] == found["random", 0, 0].metrics["f1"], "every strategy starts from the same labels"
    assert found[ALL, 0, 0].labels == 24
    assert found[ALL, 0, 0].chosen == ()
    full = found[ALL, 0, 0].metrics["f1"].value
    for strategy, curve in result["curves"].items():
        reached = [p["labels"] for p in curve if p["f1"] >= 0.9 * full]
        assert result["needed"][strategy] == (reached[0] if reached else None)
    written = rounds.write_records(recipe, result, tmp_path / "s", tmp_path / "records")
    assert len(written) == 4
    assert {record.read(path).examples["train"] for path in written} >= {24}
    said = rounds.text(result)
    assert "all 24 labels" in said
    assert "tag_flip:" in said


def test_the_pool_knows_no_gold_and_is_asked_everything(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = data.load(recipe)
    pool = [active.unlabelled(e, sets.schema) for e in sets.train[4:]]
    assert all(e.gold is None and e.asked == ("colour", "size", "brand") for e in pool)
    asked: list[Sequence[Any]] = []
    ours = active.paths
    monkeypatch.setattr(active, "paths", lambda s, examples, r: asked.append(examples) or ours(s, examples, r))
    student, scores = active.choose(recipe, sets.schema, sets.train[:4], pool, "tag_flip")
    assert len(asked) == 3, "three looks"
    assert all(len(look) == len(pool) for look in asked)
    assert len(scores) == len(pool)
    # Surprise is that of the trained student, in the pool's order.
    student, scores = active.choose(recipe, sets.schema, sets.train[:4], pool, "least_confidence")
    assert not student.training
    for example, score in zip(pool, scores, strict=True):
        assert -student.paths([example])[0][1] == pytest.approx(score, abs=1e-4)


def test_fitting_is_seeded_learns_and_looks_evenly(recipe: Recipe) -> None:
    sets = data.load(recipe)
    seen: list[bool] = []
    longer = recipe.model_copy(update={"epochs": 12})
    first = active.fit(longer, sets.schema, sets.train, lambda student: seen.append(student.training))
    second = active.fit(longer, sets.schema, sets.train)
    assert len(seen) == 3
    assert all((a == b).all() for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    right = sum(a == e.gold for a, e in zip(first.predict(sets.test), sets.test, strict=True))
    assert right >= 6


def test_what_to_label_next(recipe: Recipe, tmp_path: Path) -> None:
    run = train.train(recipe)
    unlabelled = [e.model_copy(update={"gold": None, "asked": ()}) for e in products(9, 5)]
    mixed = {"new": tuple(unlabelled), "old": products(3, 6)}
    jsonl.write(Dataset("new", "attributes", SCHEMA, mixed), tmp_path / "new.jsonl")
    for strategy in active.STRATEGIES:
        out = tmp_path / f"{strategy}.jsonl"
        picked = active.pick(run, str(tmp_path / "new.jsonl"), 4, strategy, out)
        assert len(picked) == 4
        assert [score for _, score in picked] == sorted((score for _, score in picked), reverse=True)
        written = jsonl.read(out).split("picked")
        assert [e.id for e in written] == [name for name, _ in picked]
        assert {e.id for e in written} <= {e.id for e in unlabelled}
        assert all(e.gold is None and e.asked == ("colour", "size", "brand") for e in written)
    jsonl.write(Dataset("old", "attributes", SCHEMA, {"old": products(3, 6)}), tmp_path / "old.jsonl")
    with pytest.raises(DataFault, match="has no unlabelled example"):
        active.pick(run, str(tmp_path / "old.jsonl"), 4, "random", tmp_path / "x.jsonl")
    ran = CliRunner().invoke(
        app,
        ["active", str(run), "--pick", "2", str(tmp_path / "new.jsonl"), "--strategy", "least_confidence", "--out",
         str(tmp_path / "cli.jsonl")],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert len(jsonl.read(tmp_path / "cli.jsonl").split("picked")) == 2


def test_what_cannot_be_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeFault, match=r"strategy 'margin': there is none; there are: random, least_confidence"):
        active.simulate(recipe, tmp_path / "x", PLAN, ["margin"])
    spans = recipe.model_copy(update={"student": "unified", "objective": "prompt_distillation", "images": True})
    with pytest.raises(RecipeFault, match="3 mistakes") as fault:
        active.simulate(spans, tmp_path / "x", PLAN, ["random", "tag_flip"])
    assert "the student unified gives no tag sequences, which tag_flip asks for" in str(fault.value)
    assert not (tmp_path / "x").exists()
    ran = CliRunner().invoke(app, ["active", "r", "--pick", "2", "d", "--out", "o"])
    assert ran.exit_code == 2
    assert "--pick takes one --strategy" in ran.output
