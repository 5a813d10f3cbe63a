"""The leakage audit: a prompt that shows gold, a rationale that tells of it, candidates in a telling order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from magister.prompts.library import find
from magister.tasks import alignment, attributes, ner
from magister.tasks.graph import Entity
from magister.teachers.knowledge.audit import audit

sys.path.insert(0, str(Path(__file__).parent))
from fake_teacher import SCHEMA, example

EXAMPLES = [example(i) for i in range(4)]

CHEAT = """---
task: ner
mode: zero_shot
output: json
max_tokens: 64
source: a test
description: shows gold without saying so in its name
may: [gold]
---
{% block user %}
Which names are in {{ example.text }}?
{% if example.gold %}Hint: {{ example.gold.entities[0].text }}{% endif %}
{% endblock %}
"""


def row(number: int, prompt: str = "ner/zero_shot", **fields) -> dict:
    template = find(prompt)
    return {
        "id": f"e{number}", "prompt": template.name, "digest": template.digest, "about": None, "sample": 0,
        "status": "kept", "answer": "{}", "text": "{}",
    } | fields  # fmt: skip


def test_our_own_prompts_do_not_depend_on_gold():
    rows = [row(i, f"ner/{mode}") for i in range(4) for mode in ("zero_shot", "queries", "few_shot")]
    demonstrations = [example(i, f"Ann{i} flies from Rome to Oslo with {i} friends") for i in range(5, 9)]
    found = audit(rows, ner.TASK, EXAMPLES, SCHEMA, demonstrations)
    assert (found.rows, found.checked, found.hinted, found.not_checked) == (12, 12, 0, {})
    assert found.clean
    assert "12 rows = 12 checked without gold + 0 hinted + 0 not checked" in str(found)
    without = audit(rows, ner.TASK, EXAMPLES, SCHEMA)
    assert without.not_checked == {"demonstrations_not_given": 4}


def test_a_hinted_prompt_is_counted_and_its_words_are_scanned():
    rows = [
        row(0, "ner/rationale.style", answer=None, text="Ann0 is one who looks at a city."),
        row(1, "ner/rationale.style", answer=None, text="The given answer says so."),
        row(2, "ner/rationale.style", answer=None, text="The given answer says so.", status="quarantined"),
    ]
    found = audit(rows, ner.TASK, EXAMPLES, SCHEMA)
    assert (found.checked, found.hinted) == (0, 3)
    assert [(leak.example, leak.kind) for leak in found.leaks] == [("e1", "speaks_of_key")]
    assert not found.clean
    assert "speaks of key: example e1" in str(found)


def test_a_prompt_that_depends_on_gold_is_found(monkeypatch):
    """As if rendering showed gold to a template that did not ask for it."""
    from magister.teachers.knowledge import audit as module

    honest = module.render

    def leaky(template, task, asked, schema, **extra):
        if asked.gold is not None and asked.id == "e2":
            asked = asked.model_copy(update={"text": f"{asked.text} (Rome is a LOC)", "gold": None})
        return honest(template, task, asked, schema, **extra)

    monkeypatch.setattr(module, "render", leaky)
    found = audit([row(i) for i in range(4)], ner.TASK, EXAMPLES, SCHEMA)
    assert (found.checked, len(found.leaks)) == (4, 1)
    assert (found.leaks[0].example, found.leaks[0].kind) == ("e2", "depends_on_gold")
    assert "(Rome is a LOC)" in found.leaks[0].detail


def test_a_template_that_may_show_gold_is_hinted_whatever_it_is_called(tmp_path, monkeypatch):
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "zero_shot.v9.jinja").write_text(CHEAT)
    monkeypatch.setenv("MAGISTER_PROMPTS", str(tmp_path))
    found = audit([row(0)], ner.TASK, EXAMPLES, SCHEMA)
    assert (found.checked, found.hinted) == (0, 1)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"id": "nobody"}, "example_not_given"),
        ({"prompt": "ner/gone.v1"}, "template_not_found"),
        ({"digest": "f00d"}, "template_changed"),
        ({"prompt": "knowledge"}, "template_not_found"),
    ],
)
def test_what_cannot_be_checked_is_counted(fields, why):
    found = audit([row(0) | fields], ner.TASK, EXAMPLES, SCHEMA)
    assert found.not_checked == {why: 1}
    assert found.rows == found.checked + found.hinted + sum(found.not_checked.values())


def test_gold_that_is_always_the_first_candidate_is_a_leak_of_the_data():
    def asked(number, place):
        ids = [f"n{number}", f"m{number}"]
        ids.insert(place, "gold")
        gold = alignment.Answer(ranking=("gold",))
        return alignment.Example(
            id=str(number), entity=Entity(id="x"), candidates=tuple(Entity(id=i) for i in ids), gold=gold
        )

    telling = audit([], alignment.TASK, [asked(i, 0) for i in range(20)], None)
    assert telling.notes == {"gold_always_at_place_1": 20}
    assert not telling.clean
    assert audit([], alignment.TASK, [asked(i, i % 3) for i in range(20)], None).notes == {}
    assert audit([], alignment.TASK, [asked(i, 0) for i in range(19)], None).notes == {}


def test_gold_beside_the_text_is_counted():
    schema = attributes.Schema(attributes=(attributes.Attribute(name="Color"),))
    products = [
        attributes.Example(
            id=str(i),
            text="a shoe",
            asked=("Color",),
            context={"knowledge": said, "ocr": ""},
            gold=attributes.Answer(values={"Color": ("crimson",)}),
        )
        for i, said in enumerate(("It is Crimson.", "It is nice."))
    ]
    found = audit([], attributes.TASK, products, schema)
    assert found.notes == {"gold_said_in_knowledge_only": 1}
    assert found.clean  # counted, not judged: a picture's words may rightly say it
