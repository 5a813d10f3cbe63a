"""Every task's face: the same names in each, sound probes, pictures of candidates, mutated answers."""

import importlib.util
import inspect
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from magister.prompts.faces import Face, face, face_of
from magister.prompts.library import load, templates
from magister.prompts.lint import _probes
from magister.prompts.plain import CONTROL
from magister.prompts.render import InputFault, render
from magister.prompts.view import is_itself
from magister.tasks import TASKS
from magister.tasks.graph import Entity, Relation
from magister.tasks.images import Image

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("fuzz_parsers", ROOT / "benchmarks/fuzz_parsers.py")
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


# --- the interface ---


def test_the_same_names_in_each(task):
    about = face(task)
    for name in ("VARIABLES", "SUBJECTS"):
        assert isinstance(getattr(about, name), frozenset)
    for name, declared in inspect.getmembers(Face, inspect.isfunction):
        if not name.startswith("_"):
            parameters = list(inspect.signature(getattr(about, name)).parameters)
            assert parameters == list(inspect.signature(declared).parameters)[1:], name
            assert getattr(about, name).__doc__, name


def test_a_task_that_is_none():
    with pytest.raises(KeyError, match="unknown task 'poems'; there are: ner"):
        face("poems")
    with pytest.raises(TypeError, match=r"no task has .* SimpleNamespace"):
        face_of(SimpleNamespace())


def test_probes_are_what_a_run_may_meet(task):
    about, key = face(task), TASKS[task]
    probes = about.probes()
    for example, schema in probes:
        assert type(example) is key.Example
        assert type(schema) is key.Schema
        assert face_of(example) is about
        # what is built without validation elsewhere is validated here
        assert key.Example.model_validate(example.model_dump()) == example
        assert about.said(example)
    assert {len(e.images) for e, _ in probes} >= {0, 1, 2}
    assert any(e.gold is None for e, _ in probes)
    assert any("{% block system %}" in e.text for e, _ in probes)
    assert len({e.id for e, _ in probes}) == len(probes)


def test_variables_are_those_declared_and_no_records(task):
    about = face(task)
    for example, schema in about.probes():
        shown = about.variables(example, schema, lambda image: "mark")
        assert shown.keys() == about.VARIABLES
        assert not vars(walk(shown | about.fields(example)))


def walk(value):
    """Refuse whatever is not plain."""
    assert isinstance(value, str | int | float | tuple | list | dict | SimpleNamespace | None), type(value)
    inner = vars(value) if isinstance(value, SimpleNamespace) else value
    if isinstance(inner, dict):
        for part in inner.values():
            walk(part)
    elif isinstance(inner, tuple | list):
        for part in inner:
            walk(part)
    return SimpleNamespace()


def among_candidates(answer, example):
    """Whether what an answer ranks can be shown as numbers of candidates."""
    return set(getattr(answer, "ranking", ())) <= {c.id for c in getattr(example, "candidates", ())}


def test_claims_also_of_an_empty_answer(task):
    about = face(task)
    for example, schema in about.probes():
        for answer in (example.gold, TASKS[task].Answer()):
            if answer is not None and among_candidates(answer, example):
                said = about.claims(schema, answer, example)
                assert said
                assert all(isinstance(text, str) and text and not CONTROL.search(text) for text in said)


def test_gold_as_an_answer_is_parsed_to_itself(task):
    for example, schema in face(task).probes():
        if example.gold is None or not among_candidates(example.gold, example):
            continue
        text = face(task).as_json(example.gold, example, schema)
        assert "\n" not in text
        json.loads(text)
        assert fuzz.outcome(task, example, schema, text, "stop") == "answer"


# --- rendering ---


def test_no_control_mark_of_the_data_survives(task):
    rendered = 0
    for template in templates(task):
        for example, schema, extra in _probes(template):
            try:
                prompt = render(template, task, example, schema, **extra)
            except InputFault:
                continue
            rendered += 1
            assert not CONTROL.search("\n".join(m.text for m in prompt.messages)), (template.name, example.id)
            assert (prompt.answer_schema is None) == (template.front.output == "text")
    assert rendered > 40


def entity(id, *pictures):
    images = tuple(Image(source=f"data:image/png;base64,{id}{p}") for p in pictures)
    return Entity(id=id, name=f"name of {id}", images=images)


@pytest.fixture
def triple():
    return TASKS["completion"].Example(
        id="t1",
        given=entity("e0", 1),
        relation=Relation(name="r"),
        candidates=(entity("e1", 1, 2), entity("e2")),
        gold=TASKS["completion"].Answer(ranking=("e1",)),
    )


SHOW = "{{ given.name }} {% for p in example.images %}{{ p }}{% endfor %}"


@pytest.mark.parametrize(
    ("user", "pictures"),
    [
        (SHOW, ["e01"]),
        (SHOW + "{% for c in candidates %}{% for p in c.pictures %}{{ p }}{% endfor %}{% endfor %}", ["e01", "e11"]),
        ("{{ given.name }}", []),
    ],
)
def test_pictures_of_candidates_only_if_the_template_asks(write, triple, user, pictures):
    path = write("completion/mine.v1", user) / "completion/mine.v1.jinja"
    schema = TASKS["completion"].Schema(relations=())
    (turn,) = render(load(path), "completion", triple, schema).messages
    assert [image.source.rpartition(",")[2] for image in turn.images] == pictures


def test_a_candidates_picture_does_not_stand_in_for_the_examples_own(write, triple):
    user = "{{ given.name }}{% for c in candidates %}{% for p in c.pictures %}{{ p }}{% endfor %}{% endfor %}"
    path = write("completion/mine.v1", user) / "completion/mine.v1.jinja"
    with pytest.raises(Exception, match="places 0 of the 1 pictures of example t1"):
        render(load(path), "completion", triple, TASKS["completion"].Schema(relations=()))


def test_needs_candidates_and_a_pair(write, triple):
    path = write("completion/mine.v1", SHOW, needs="[candidates]") / "completion/mine.v1.jinja"
    schema = TASKS["completion"].Schema(relations=())
    assert render(load(path), "completion", triple, schema)
    bare = triple.model_copy(update={"candidates": ()})
    with pytest.raises(InputFault, match=r"example t1: completion/mine\.v1 needs candidates, and the example has none"):
        render(load(path), "completion", bare, schema)
    path = write("relations/mine.v1", "{{ example.text }}", needs="[pair]") / "relations/mine.v1.jinja"
    probes = {example.id: (example, schema) for example, schema in face("relations").probes()}
    assert render(load(path), "relations", *probes["plain"])
    with pytest.raises(InputFault, match="needs pair, and the example has none"):
        render(load(path), "relations", *probes["joint"])


def test_what_is_the_example_itself(probes, triple):
    assert is_itself(probes.POST, probes.POST.model_copy(update={"id": "another"}))
    assert is_itself(probes.POST, probes.OTHER_POST.model_copy(update={"id": probes.POST.id}))
    assert not is_itself(probes.POST, probes.OTHER_POST)
    assert not is_itself(triple, triple.model_copy(update={"id": "of the same text"}))
    assert is_itself(triple, triple.model_copy(update={"candidates": ()}))


# --- mutated answers ---


def test_mutated_answers_end_in_an_answer_or_a_fault(task):
    """`benchmarks/fuzz_parsers.py` runs 10,000 a task."""
    outcomes = Counter(fuzz.outcome(task, *case) for case in fuzz.mutants(task, 300))
    assert sum(outcomes.values()) == 300
    assert len(outcomes) >= 6  # mutants are neither all right nor all alike


def test_the_fuzz_can_fail(monkeypatch, task):
    """A parser that raises is found out."""

    def broken(value, example, schema, repairs):
        raise ZeroDivisionError

    monkeypatch.setattr(face(task), "read", broken)
    cases = fuzz.mutants(task, 300)
    with pytest.raises(ZeroDivisionError):
        [fuzz.outcome(task, *case) for case in cases]
