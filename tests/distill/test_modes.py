"""The modes: what each shows, where D reads on, how its threshold is chosen; other data's types; duplicates out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from magister.distill import data, evaluate, judge, modes, objectives, train
from magister.distill.recipe import Recipe, check
from magister.eval import record
from magister.students.student import View
from magister.tasks import ner, relations
from magister.tasks.dataset import Dataset
from magister.tasks.readers import jsonl
from magister.tasks.task import DataFault

from .conftest import PEOPLE, PLACES, SCHEMA, examples


def distilled(settings: dict[str, Any], corpus: Path, **more: Any) -> Recipe:
    knowledge = {"knowledge": str(corpus / "knowledge.jsonl.gz"), "teacher_context": ["caption", "knowledge"]}
    return check(
        settings
        | {"student": "cot_prompt", "objective": "prompt_distillation", "prompt_length": 2, "prompt_heads": 4}
        | knowledge
        | more
    )


def test_what_each_mode_shows(settings: dict[str, Any], corpus: Path) -> None:
    recipe = distilled(settings, corpus)
    assert modes.view(recipe, "A") == View(prompt=True)
    assert modes.view(recipe, "B") == View(context=("caption",))
    assert modes.view(recipe, "C") == View(context=("caption", "knowledge"))
    aligned = check(settings | {"student": "ita", "objective": "cross_view", "context": ["caption"], "beta": 0.5})
    assert modes.view(aligned, "A") == View()
    assert modes.view(aligned, "B") == modes.view(aligned, "C") == View(context=("caption",))


def test_modes_that_a_run_has_not_are_refused(settings: dict[str, Any], corpus: Path) -> None:
    with pytest.raises(DataFault, match="one view"):
        modes.view(check(settings), "A")
    with pytest.raises(DataFault, match="no mode B"):
        modes.view(distilled(settings, corpus, teacher_context=["knowledge"]), "B")
    offline = distilled(settings, corpus, teacher_run="runs/c")
    assert modes.view(offline, "A") == View(prompt=True)
    with pytest.raises(DataFault, match="the text alone"):
        modes.view(offline, "C")


def test_entropy_is_the_mean_over_the_words_there_are() -> None:
    half = torch.tensor([0.5, 0.5, 0.0]).log()
    sure = torch.tensor([1.0, 0.0, 0.0]).log()
    found = modes.entropy(torch.stack([torch.stack([half, sure]), torch.stack([half, half])]), torch.eye(2).bool())
    assert found[0].item() == pytest.approx(torch.tensor(2.0).log().item())
    assert found[1].item() == pytest.approx(torch.tensor(2.0).log().item())
    both = modes.entropy(torch.stack([half, sure])[None], torch.ones(1, 2).bool())
    assert both.item() == pytest.approx(torch.tensor(2.0).log().item() / 2)


def said(golds: list[Any], right: list[bool]) -> evaluate.Answered:
    return evaluate.Answered([(g if ok else ner.Answer(), None) for g, ok in zip(golds, right, strict=True)], 0.0, {})


def test_the_threshold_is_the_highest_of_the_best() -> None:
    chosen = [e for e in examples(40) if e.gold.entities][:4]
    golds, doubts = [e.gold for e in chosen], [0.1, 0.2, 0.3, 0.4]
    choose = lambda first, full: modes.choose("ner", chosen, said(golds, first), said(golds, full), doubts)
    # The text is enough up to the third; the rest is only known in full.
    found = choose([True, True, False, False], [False, True, True, True])
    assert 0.2 <= found < 0.3
    assert choose([True] * 4, [False] * 4) == 0.4  # nothing is read in full
    assert choose([False] * 4, [True] * 4) < 0.1  # everything is


def test_the_doubtful_alone_are_read_again_and_answers_keep_their_order(
    settings: dict[str, Any], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = distilled(settings, corpus, teacher_context=["knowledge"])
    some = [e.model_copy(update={"context": {"knowledge": "k"}}) for e in examples(40) if e.gold.entities][:5]
    right = {e.id: i in (1, 4) for i, e in enumerate(some)}  # what the text alone knows
    seen: list[str] = []

    def full(student: Any, asked: Any, *_: Any, **__: Any) -> evaluate.Answered:
        seen.extend(e.id for e in asked)
        return said([e.gold for e in asked], [not right[e.id] for e in asked])

    first = said([e.gold for e in some], list(right.values()))
    monkeypatch.setattr(modes, "doubted", lambda *_, **__: (first, [0.9, 0.1, 0.8, 0.7, 0.2]))
    monkeypatch.setattr(evaluate, "answer", full)
    asked = modes.ask("D", None, recipe, some, some, resamples=1)
    assert asked.found.answers == [e.gold for e in some]
    assert asked.found.scores.value == 1
    assert asked.in_full == 0.6
    assert asked.found.counts["read_in_full"] == 3
    assert seen[5:] == [some[0].id, some[2].id, some[3].id]  # behind those of the choice of the threshold


def test_a_run_is_judged_in_every_mode_and_recorded(
    settings: dict[str, Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = distilled(settings, corpus, teacher_context=["knowledge"], kd_target="both", trust=True)
    run = train.train(recipe)
    by_mode = {m: judge.student(run, "ner", recipe.data, mode=m) for m in ("A", "C")}
    assert by_mode["A"].variant.endswith("mode A")
    assert "0.0% of the examples read in full" in by_mode["A"].notes
    assert "100.0%" in by_mode["C"].notes
    assert judge.student(run, "ner", recipe.data).answers == by_mode["A"].answers  # what it was trained for
    for threshold, mode in ((float("inf"), "A"), (float("-inf"), "C")):
        monkeypatch.setattr(modes, "choose", lambda *_, at=threshold: at)
        judged = judge.student(run, "ner", recipe.data, mode="D")
        assert judged.answers == by_mode[mode].answers
        assert judged.counts["read_in_full"] == (12 if mode == "C" else 0)
    monkeypatch.undo()
    judged = judge.student(run, "ner", recipe.data, mode="D")
    written = record.read(judge.write_record(judged, tmp_path / "results"))
    assert written.variant.endswith("mode D")
    assert "nats (chosen on valid)" in written.notes
    assert "s per 1,000 answers" in written.notes
    made, _ = evaluate.load(run)
    with pytest.raises(DataFault, match="no example has any of: knowledge"):
        modes.ask("C", made, recipe, examples(3))


def test_other_datas_types_go_by_title(settings: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    types = [t.model_copy(update={"name": "SITE"}) if t.name == "LOC" else t for t in SCHEMA.types]
    named = {"PER": "PER", "LOC": "SITE"}
    golds = [[x.model_copy(update={"type": named[x.type]}) for x in e.gold.entities] for e in examples(12, 3)]
    other = [
        e.model_copy(update={"gold": ner.Answer(entities=tuple(gold))})
        for e, gold in zip(examples(12, 3), golds, strict=True)
    ]
    spec = str(tmp_path / "other.jsonl")
    jsonl.write(Dataset("other", "ner", ner.Schema(types=tuple(types)), {"test": tuple(other)}), spec)
    recipe = check(settings)
    assert data.renamed(recipe, spec) == {"SITE": "LOC"}
    assert data.renamed(recipe, recipe.data) == {}
    assert [e.gold for e in data.examples_of(recipe, "test", spec)] == [e.gold for e in examples(12, 3)]
    judged = judge.student(train.train(recipe), "ner", spec)
    assert "SITE read as LOC" in judged.notes


@pytest.mark.parametrize("student", ["unified", "cot_prompt"])
def test_doubt_is_told_in_the_pass_that_answers(student: str, settings: dict[str, Any], corpus: Path) -> None:
    knowledge = {"objective": "prompt_distillation", "knowledge": str(corpus / "knowledge.jsonl.gz")}
    recipe = check(settings | knowledge | {"student": student, "prompt_length": 2})
    train.seed_all(0)
    made = train.build(recipe, SCHEMA).eval()
    some = [e.model_copy(update={"id": f"{i}"}) for i, e in enumerate(examples(5))]
    passes: list[int] = []
    made.encoder.register_forward_hook(lambda *_: passes.append(1))
    found, doubts = modes.doubted(made, some, View(prompt=True), batch_size=2)
    assert len(passes) == 3
    assert [a for a, _ in found.pairs] == made.predict(some, View(prompt=True))
    for example, doubt in zip(some, doubts, strict=True):
        batch = made.collate([example], View(prompt=True))
        with torch.no_grad():
            q, mask = objectives.posteriors(made, batch, made(batch), 1.0)
        assert doubt == pytest.approx(-(q.exp() * q).sum(-1)[mask].mean().item(), rel=1e-3)
    assert made.watch is None


def test_an_aligned_student_is_judged_in_either_view(settings: dict[str, Any], corpus: Path) -> None:
    aligned = {"student": "ita", "objective": "cross_view", "beta": 0.5, "beta_warmup_epochs": 0}
    reads = {"context": ["knowledge"], "knowledge": str(corpus / "knowledge.jsonl.gz")}
    recipe = check(settings | aligned | reads | {"kd_level": "crf_pairwise"})
    run = train.train(recipe)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all({"divergence", "context_label", "label"} <= line.keys() for line in lines if "loss" in line)
    assert any("text_label" in line for line in lines)  # one sentence has no knowledge
    told = judge.student(run, "ner", recipe.data, mode="C")
    assert told.answers == judge.student(run, "ner", recipe.data).answers
    assert "without_knowledge" in told.counts
    assert "without_knowledge" not in judge.student(run, "ner", recipe.data, mode="A").counts


def test_a_finished_teacher_tells_its_moves(settings: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    shared = {**settings, "student": "cot_prompt", "prompt_length": 0, "epochs": 1}
    shared["knowledge"] = str(corpus / "knowledge.jsonl.gz")
    teacher = train.train(check({**shared, "context": ["knowledge"], "output": str(tmp_path / "teacher")}))
    AcceleratorState._reset_state(reset_partial_state=True)
    offline = {"objective": "prompt_distillation", "teacher_run": str(teacher), "kd_level": "crf_pairwise"}
    run = train.train(check(shared | offline))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(line["divergence"] > 0 for line in lines if "loss" in line)


def test_pairs_are_distilled_from_captions_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    """Relations, no knowledge: what the caption says is what the text view learns."""
    schema = relations.Schema(relations=(relations.RelationType(name="in", title="in", guideline="is in"),))

    def pair(number: int) -> relations.Example:
        words = (PEOPLE[number % 6], "saw", PLACES[number % 5])
        text = " ".join(words)
        head, tail = (ner.Entity(text=w, type="", start=text.index(w), end=text.index(w) + len(w)) for w in words[::2])
        label = ("in", "None")[number % 2]
        said = {"caption": "the sea" if number % 2 else "the train"}
        gold = relations.Answer(relation=label)
        return relations.Example(id=f"r{number}", text=text, words=words, pair=(head, tail), context=said, gold=gold)

    splits = {"train": range(24), "valid": range(24, 32), "test": range(32, 40)}
    made = {name: tuple(pair(n) for n in numbers) for name, numbers in splits.items()}
    jsonl.write(Dataset("pairs", "relations", schema, made), tmp_path / "pairs.jsonl")
    read = {"task": "relations", "data": str(tmp_path / "pairs.jsonl"), "teacher_context": ["caption"]}
    teach = {"student": "cot_prompt", "objective": "prompt_distillation", "prompt_length": 2, "trust": True}
    recipe = check(settings | read | teach | {"kd_target": "both"})
    run = train.train(recipe)
    by_mode = {mode: judge.student(run, "relations", recipe.data, mode=mode) for mode in "ABCD"}
    assert by_mode["B"].answers == by_mode["C"].answers
    assert all(0 <= judged.scores.value <= 1 for judged in by_mode.values())
    assert "read_in_full" in by_mode["D"].counts
