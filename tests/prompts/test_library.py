"""Templates are found, read, and refused with file, line and remedy."""

import hashlib

import pytest
from magister.prompts.library import PACKAGE_FOLDER, TemplateFault, UnknownTemplate, find, load, templates
from magister.tasks import TASKS

MODES = {"zero_shot", "few_shot", "queries", "judge"} | {
    f"rationale.{d}" for d in ("noun", "sentence", "multimodality", "style", "entity", "image")
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_all_modes(task):
    assert {t.front.mode for t in templates(task)} >= MODES
    assert all(t.front.task == task for t in templates(task))


def test_digest_is_that_of_the_file():
    template = find("ner/zero_shot.v1")
    assert template.digest == hashlib.sha256((PACKAGE_FOLDER / "ner/zero_shot.v1.jinja").read_bytes()).hexdigest()
    assert template.name == "ner/zero_shot.v1"
    assert template.version == 1


def test_a_name_without_version_is_the_latest_by_number(write):
    for version in (2, 9, 10):
        folder = write(f"ner/mine.v{version}")
    assert find("ner/mine", [folder]).version == 10
    assert find("ner/mine.v9", [folder]).version == 9


def test_users_folders_come_first(write, monkeypatch, tmp_path_factory):
    folder = write("ner/zero_shot.v1", user="mine {{ example.text }}")
    monkeypatch.setenv("MAGISTER_PROMPTS", str(folder))
    assert find("ner/zero_shot").path.parent.parent == folder
    assert [t.path.parent.parent for t in templates("ner") if t.name == "ner/zero_shot.v1"] == [folder]
    assert find("ner/few_shot").path.parent.parent == PACKAGE_FOLDER


def test_a_missing_folder_is_an_error(monkeypatch):
    monkeypatch.setenv("MAGISTER_PROMPTS", "/no/such/folder")
    with pytest.raises(TemplateFault, match="no such template folder"):
        find("ner/zero_shot")


def test_unknown_name_lists_near_misses():
    with pytest.raises(UnknownTemplate, match="did you mean 'ner/zero_shot'"):
        find("ner/zeroshot")
    with pytest.raises(UnknownTemplate, match=r"zero_shot\.v1"):
        find("ner/zero_shot.v7")


@pytest.mark.parametrize(
    ("head", "line", "says"),
    [
        ({"max_tokens": None}, 1, "lacks 'max_tokens'"),
        ({"maxtokens": 4}, 8, "did you mean 'max_tokens'"),
        ({"output": "xml"}, 4, "it says 'xml'"),
        ({"max_tokens": 0}, 5, "greater than or equal to 1"),
        ({"task": "nre"}, 2, "the file says 'ner'"),
        ({"mode": "other"}, 3, "the file says 'mine'"),
        ({"needs": "[golden]"}, 8, "gold"),
        ({"source": "'open"}, 0, "not YAML"),
    ],
)
def test_front_matter_faults(write, head, line, says):
    folder = write("ner/mine.v1", **head)
    with pytest.raises(TemplateFault, match=says) as caught:
        load(folder / "ner/mine.v1.jinja")
    assert "mine.v1.jinja" in str(caught.value)
    if line:
        assert caught.value.line == line


@pytest.mark.parametrize("name", ["ner/mine", "ner/mine.v", "ner/Mine.v1", "ner/mine.vx"])
def test_wrong_file_names(write, name):
    folder = write(name, text="---\ntask: ner\n---\n")
    with pytest.raises(TemplateFault, match="not a template's name"):
        load(folder / f"{name}.jinja")


def test_no_front_matter_and_no_utf8(write):
    path = write("ner/mine.v1", text="{% block user %}x{% endblock %}") / "ner/mine.v1.jinja"
    with pytest.raises(TemplateFault, match="no front matter"):
        load(path)
    path.write_bytes(b"---\ntask: ner\n\xff")
    with pytest.raises(TemplateFault, match="not UTF-8") as caught:
        load(path)
    assert caught.value.line == 3
