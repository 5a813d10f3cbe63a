"""The loop: accumulation, exact resume after kill -9 and Ctrl-C, early stop, two processes, and clear
failures.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from magister.distill import checkpoint, data, evaluate, finished, progress, train
from magister.distill.checkpoint import Claim, RunFault
from magister.distill.recipe import Recipe, check, dump

from .conftest import SCHEMA, examples, losses

RUN = """
import sys
from magister.distill import recipe, train
train.train(recipe.read(sys.argv[1], sys.argv[2:]))
"""


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Any:
    """Accelerate's settings are the process's: forgotten between tests."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def command(recipe: Recipe, folder: Path, *overrides: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe-of-the-test.yaml"
    path.write_text(dump(recipe))
    return [sys.executable, "-c", RUN, str(path), *overrides]


def started(argv: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until the run's checkpoint stands at the step or behind it."""
    for _ in range(1200):
        state = run / "last" / "state.json"
        try:
            if json.loads(state.read_text())["step"] >= step:
                return
        except (OSError, ValueError):
            pass
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("the run never got there")


def test_a_run_learns_and_leaves_what_a_newcomer_needs(recipe: Recipe) -> None:
    recipe = recipe.model_copy(update={"epochs": 6, "learning_rate": 5e-3, "head_learning_rate": 2e-2})
    folder = train.train(recipe)
    curve = losses(folder)
    assert len(curve) == 36
    assert curve[36] < 0.5 * curve[1]
    assert {p.name for p in folder.iterdir()} == {
        "recipe.yaml",
        "origin.json",
        "log.jsonl",
        "result.json",
        "best",
        "last",
        "run.lock",
    }
    origin = json.loads((folder / "origin.json").read_text())
    assert origin["counts"]["train"] == 48
    assert origin["sittings"][0]["packages"]["torch"] == torch.__version__
    result = json.loads((folder / "result.json").read_text())
    answers = evaluate.evaluate_run(folder, "valid")
    assert answers.scores.value == pytest.approx(result["best"])
    assert result["best"] > 0.5
    assert train.train(recipe) == folder, "a finished run is not trained again"


def gradients(settings: dict[str, Any], **changes: Any) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses of one step over the same 8 examples, and the trained weights after it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    recipe = check({**settings, "dropout": 0, "lora_dropout": 0, **changes})
    train.seed_all(0)
    student = train.build(recipe, SCHEMA)
    optimizer = torch.optim.SGD(student.parameter_groups(1.0, 1.0))
    before = {k: v.clone() for k, v in checkpoint.trained_state(student).items()}
    accelerator = Accelerator()
    objective, optimizer = accelerator.prepare(train.Objective(student, recipe, None), optimizer)
    found, _, _ = train._step(objective, optimizer, examples(8, 7), recipe, 0.0, accelerator, lambda: False)
    return found, {k: v - before[k] for k, v in checkpoint.trained_state(student).items()}


def test_two_times_four_is_eight(settings: dict[str, Any]) -> None:
    one, expected = gradients(settings, batch_size=8)
    two, found = gradients(settings, batch_size=4, accumulation=2)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=1e-4)
    assert max(d.abs().max() for d in expected.values()) > 1e-4
    for name, change in expected.items():
        assert torch.allclose(change, found[name], atol=1e-5), name


def test_killed_and_interrupted_runs_go_on_with_the_same_losses(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.model_copy(update={"epochs": 10, "save_steps": 4})
    whole = train.train(recipe.model_copy(update={"output": str(tmp_path / "whole")}))
    run = tmp_path / "run"
    argv = command(recipe, tmp_path / "r", f"output={run}")
    process = started(argv)
    wait_for_step(run, 8, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stands_at = json.loads((run / "last" / "state.json").read_text())["step"]
    assert not (run / "result.json").exists()

    process = started(argv)
    wait_for_step(run, stands_at + 4, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert f"going on from step {stands_at}" in said
    assert re.search(r"Interrupted: .*step \d+ of 60 is saved in .*; the same command goes on from there", said)

    train.train(recipe.model_copy(update={"output": str(run)}))
    assert losses(run) == losses(whole), "not one loss differs"
    ends = [checkpoint.tensors_of((f / "last" / "model.safetensors").read_bytes()) for f in (run, whole)]
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[1])


def test_an_output_folder_in_use_is_refused_by_name(recipe: Recipe, tmp_path: Path) -> None:
    run = Path(recipe.output)
    claim = Claim(run)
    with pytest.raises(RunFault, match=f"{run} is in use by process {os.getpid()}"):
        train.train(recipe)
    claim.release()
    train.train(recipe.model_copy(update={"epochs": 1}))
    with pytest.raises(RunFault, match=r"another recipe \(epochs: 1 there, 2 now\)"):
        train.train(recipe)
    other = tmp_path / "papers"
    other.mkdir()
    (other / "thesis.tex").write_text("dear")
    with pytest.raises(RunFault, match=r"no run of ours \(thesis.tex\)"):
        train.train(recipe.model_copy(update={"output": str(other)}))


def test_early_stopping_keeps_the_best(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    monkeypatch.setattr(evaluate, "primary", lambda *_: next(scores))
    folder = train.train(recipe.model_copy(update={"epochs": 9, "patience": 2}))
    result = json.loads((folder / "result.json").read_text())
    assert (result["best"], result["best_step"], result["step"]) == (0.5, 12, 24)


def test_a_loss_that_is_no_number_stops_the_run(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, calls = train.objectives.compute, []

    def spoiled(*arguments: Any) -> Any:
        calls.append(1)
        loss = compute(*arguments)
        loss.total = loss.total * (float("nan") if len(calls) == 9 else 1)
        return loss

    monkeypatch.setattr(train.objectives, "compute", spoiled)
    with pytest.raises(RunFault, match=r"not a number at step 9 .*examples e.*Lower learning_rate"):
        train.train(recipe)
    last = Path(recipe.output) / "last"
    assert json.loads((last / "state.json").read_text())["step"] == 6
    assert all(t.isfinite().all() for t in checkpoint.tensors_of((last / "model.safetensors").read_bytes()).values())


def test_a_full_disk_leaves_the_earlier_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    """A limit on file sizes makes the system refuse the write in the middle, as a full disk does."""
    folder = tmp_path / "last"
    checkpoint.replace_folder(folder, lambda into: (into / "a").write_bytes(b"first") and None, "the checkpoint")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(RunFault, match=r"could not be written .*last is intact.*Make room"):
            checkpoint.replace_folder(folder, lambda into: (into / "a").write_bytes(bytes(99_999)) and None, "it")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert (folder / "a").read_bytes() == b"first"
    assert not folder.with_name("last.tmp").exists()


@pytest.mark.parametrize("moment", ["half written", "between the renames", "before the clearing"])
def test_a_kill_in_the_middle_of_a_swap_is_mended(tmp_path: Path, moment: str) -> None:
    final, old, beside = (tmp_path / n for n in ("last", "last.old", "last.tmp"))
    there = {
        "half written": (final, beside),
        "between the renames": (old, beside),
        "before the clearing": (final, old),
    }
    for folder, text in zip(there[moment], ("whole", "other"), strict=True):
        folder.mkdir()
        (folder / "a").write_text(text)
    checkpoint.recover(final)
    assert (final / "a").read_text() == "whole"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]


def test_a_line_of_the_log_cut_short_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    progress.Log(path, 1).add(step=2, loss=1.25)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.25},
    ]


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_learning_rate_rises_and_falls(recipe: Recipe, schedule: str) -> None:
    recipe = recipe.model_copy(update={"warmup": 0.1, "schedule": schedule})
    rates = [train.pace(step, 100, recipe) for step in range(100)]
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert rates[10] == 1
    assert rates[0] > 0
    assert rates[55] == (0.5 if schedule == "linear" else 1.0)
    assert rates[99] > 0


def test_two_processes_are_one_with_a_double_batch(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe.settings.model_copy(update={"dropout": 0.0})
    recipe = recipe.model_copy(update={"epochs": 1, "settings": settings})
    one = train.train(recipe.model_copy(update={"batch_size": 16, "output": str(tmp_path / "one")}))
    script = tmp_path / "run.py"
    script.write_text(RUN)
    argv = command(recipe, tmp_path / "r", "batch_size=8", f"output={tmp_path / 'two'}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0"]
    process = started([*launch, str(script), *argv[3:]])
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    first, second = losses(one), losses(tmp_path / "two")
    assert len(first) == 3
    assert first.keys() == second.keys()
    for step in first:
        assert first[step] == pytest.approx(second[step], rel=1e-4), said
    ends = [checkpoint.tensors_of((f / "last" / "model.safetensors").read_bytes()) for f in (one, tmp_path / "two")]
    assert all(torch.allclose(ends[0][k], ends[1][k], atol=1e-4) for k in ends[0])


def test_data_is_joined_counted_and_cleared_of_duplicates(settings: dict[str, Any], corpus: Path) -> None:
    recipe = check(
        {
            **settings,
            "knowledge": str(corpus / "knowledge.jsonl.gz"),
            "objective": "prompt_distillation",
            "prompt_length": 2,
            "extra_data": [str(corpus / "other.jsonl")],
            "extra_knowledge": [str(corpus / "other_knowledge.jsonl.gz")],
            "train_fraction": 0.5,
        }
    )
    sets = data.load(recipe)
    assert sets.counts["train"] == 24
    assert sets.counts["test_without_knowledge"] == 0
    assert sets.counts["extra_without_knowledge_dropped"] == 1
    assert sets.counts["extra_near_duplicates_of_held_out_dropped"] == 2
    assert len(sets.extra) == 19
    assert all(e.gold is None and e.context["knowledge"] for e in sets.extra)
    assert not {e.id for e in sets.extra} & {e.id for e in sets.train}


def test_a_set_without_validation_split_needs_a_fraction(settings: dict[str, Any], corpus: Path) -> None:
    with pytest.raises(data.DataFault, match="set valid_fraction"):
        data.load(check({**settings, "data": str(corpus / "other.jsonl")}))
    sets = data.load(check({**settings, "data": str(corpus / "other.jsonl"), "valid_fraction": 0.25}))
    assert len(sets.train) + len(sets.valid) == 22
    assert len(sets.valid) == round(22 * 0.25)


def test_several_teachers_teach_their_mean() -> None:
    first, second = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    joined = finished.mean([{"a": first.log()}, {"a": second.log()}])
    assert torch.allclose(joined["a"].exp(), torch.tensor([[0.7, 0.3]]))
    never = torch.tensor([[1.0, 0.0]]).log()  # -inf stays -inf
    assert finished.mean([{"a": never}, {"a": never}])["a"].exp().tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("offline", [False, True])
def test_distillation_trains_the_text_branch(
    settings: dict[str, Any], corpus: Path, tmp_path: Path, offline: bool
) -> None:
    shared = {**settings, "knowledge": str(corpus / "knowledge.jsonl.gz")}
    changes: dict[str, Any] = {"prompt_length": 2}
    if offline:
        teacher = train.train(check({**shared, "context": ["knowledge"], "output": str(tmp_path / "teacher")}))
        changes = {"teacher_run": str(teacher), "prompt_length": 0}
        AcceleratorState._reset_state(reset_partial_state=True)
    extra = {
        "extra_data": [str(corpus / "other.jsonl")],
        "extra_knowledge": [str(corpus / "other_knowledge.jsonl.gz")],
    }
    folder = train.train(check({**shared, **changes, **extra, "objective": "prompt_distillation"}))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert any(line.get("divergence", 0) > 0 for line in lines)
    assert (folder / "teacher.safetensors").exists() == offline
    _, view = evaluate.load(folder)
    assert view.context == ()
    assert view.prompt == (not offline)


@pytest.mark.parametrize(
    "changes", [{"objective": "two_prefix", "alpha": 0.5}, {"objective": "queries", "heads": ["span"]}]
)
def test_the_other_objectives_train(settings: dict[str, Any], corpus: Path, changes: dict[str, Any]) -> None:
    knowledge = str(corpus / "knowledge.jsonl.gz")
    folder = train.train(check({**settings, **changes, "knowledge": knowledge, "epochs": 1}))
    first = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert first.keys() >= ({"label", "rationale"} if changes["objective"] == "two_prefix" else {"span"})
    assert (folder / "best" / "config.json").exists()


def test_a_split_without_examples_is_refused_with_its_faults(
    settings: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    header, *lines = (corpus / "data.jsonl").read_text().splitlines()
    rows = [line if '"valid"' not in line else line.replace('"text"', '"txt"') for line in lines]
    (tmp_path / "spoiled.jsonl").write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(data.DataFault, match=r"its valid split has no examples; 12 rows were refused, the first: "):
        data.load(check({**settings, "data": str(tmp_path / "spoiled.jsonl")}))
