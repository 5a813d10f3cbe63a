"""Lint finds what would fail in a run, and a released text that was changed."""

import json

import pytest
from magister.prompts import lint as module
from magister.prompts.library import PACKAGE_FOLDER, TemplateFault
from magister.prompts.lint import RELEASED, lint
from magister.tasks import TASKS


def test_ours_are_sound_and_released():
    results = lint()
    assert [(r.name, f) for r in results for f in r.faults] == []
    assert all(r.renders >= 3 for r in results)
    assert {r.name: r.digest for r in results} == json.loads(RELEASED.read_text())


def test_a_changed_released_text_is_an_error(monkeypatch, tmp_path):
    released = json.loads(RELEASED.read_text())
    changed = tmp_path / "released.json"
    changed.write_text(json.dumps({**released, "ner/judge.v1": "0" * 64, "ner/old.v3": "1" * 64}))
    monkeypatch.setattr(module, "RELEASED", changed)
    faults = {r.name: str(r.faults[0]) for r in lint() if r.faults}
    assert set(faults) == {"ner/judge.v1", "ner/old.v3"}
    assert "make v2" in faults["ner/judge.v1"]
    assert "is gone" in faults["ner/old.v3"]


def test_a_line_break_more_is_a_change(monkeypatch, tmp_path):
    """The check reads the files: a copy of ours with one byte more is refused."""
    import shutil

    for task in TASKS:
        shutil.copytree(PACKAGE_FOLDER / task, tmp_path / task)
    monkeypatch.setattr(module, "PACKAGE_FOLDER", tmp_path)
    assert not any(r.faults for r in lint())
    with (tmp_path / "ner/zero_shot.v1.jinja").open("a") as file:
        file.write("\n")
    assert [r.name for r in lint() if r.faults] == ["ner/zero_shot.v1"]


@pytest.mark.parametrize(
    ("user", "head", "says"),
    [
        ("{{ example.text }} {{ exmple }}", {}, "did you mean 'example'"),
        ("always the same", {}, "text is not in the prompt"),
        ("{{ example.text }}{% if example.images %}{{ image(0) }}{% endif %}", {}, "places 1 of the 2"),
        ("{{ example.text }} {{ example.context.caption }}", {}, "caption"),
        ("{{ example.text }}", {"needs": "[attribute]"}, "no probe could be rendered"),
        ("{{ example.text }}", {"outputs": "json"}, "did you mean 'output'"),
    ],
)
def test_faults_of_a_users_template(write, user, head, says):
    (result,) = lint(write("ner/mine.v1", user, **head))
    assert says in " ".join(map(str, result.faults))


def test_gold_that_only_some_rows_show_is_found(write):
    (result,) = lint(write("ner/mine.v1", "{{ example.text }}{% if example.images %}{{ example.gold }}{% endif %}"))
    assert "gold" in str(result.faults[0])


def test_each_file_is_reported_on_its_own(write):
    write("ner/good.v1")
    write("ner/bad.v1", "{{ nothing }}")
    folder = write("ner/nameless", text="x")
    results = {r.name: bool(r.faults) for r in lint(folder)}
    assert results == {"ner/good.v1": False, "ner/bad.v1": True, "ner/nameless": True}


def test_nothing_to_lint(tmp_path):
    with pytest.raises(TemplateFault, match="no templates here"):
        lint(tmp_path)
    with pytest.raises(TemplateFault, match="no such template folder"):
        lint(tmp_path / "none")
