"""Every released template rendered once, kept as text to be read by people.

After a deliberate change (a new version), write the files anew with ``WRITE_GOLDEN=1`` and read them.
"""

import os
from pathlib import Path

import pytest
from magister.prompts.faces import face
from magister.prompts.library import templates
from magister.prompts.preview import preview
from magister.tasks.dataset import Dataset

GOLDEN = Path(__file__).parent / "golden"
#: Those about a text; `test_graph_tasks` keeps the others.
TEMPLATES = [template for task in ("ner", "attributes", "relations") for template in templates(task)]


def as_text(prompt):
    """A prompt as a person reads it."""
    lines = []
    for message in prompt.messages:
        parts = (p.text if p.image is None else f"[{p.image.label}]" for p in message.parts)
        lines.append(f"--- {message.role}\n{''.join(parts)}")
    kind = "text" if prompt.answer_schema is None else "json"
    lines.append(f"--- {kind}, {prompt.max_tokens} tokens, stop {list(prompt.stop)}\n")
    return "\n".join(lines)


def data_of(task, probes):
    """Small data sets of a task by the form in which it is asked: of relations a given pair, or a whole text."""
    if task == "ner":
        return {"": Dataset("probes", task, probes.TYPES, {"train": (probes.POST, probes.OTHER_POST)})}
    if task == "attributes":
        return {"": Dataset("probes", task, probes.ATTRIBUTES, {"train": (probes.PRODUCT, probes.OTHER_PRODUCT)})}
    examples, schemas = zip(*face(task).probes(), strict=True)
    pairs = [e for e in examples if e.pair is not None and e.gold]
    texts = [e for e in examples if e.pair is None and e.gold]
    pairs.sort(key=lambda e: e.id != "shown")
    return {
        form: Dataset("probes", task, schemas[0], {"train": part}) for form, part in (("", pairs), (".joint", texts))
    }


@pytest.mark.parametrize(
    "template", [t for k in ("ner", "attributes", "relations") for t in templates(k)], ids=lambda t: t.name
)
def test_golden(template, probes):
    for form, data in data_of(template.front.task, probes).items():
        text = as_text(preview(template, data))
        path = GOLDEN / f"{template.name.replace('/', '.')}{form}.txt"
        if os.environ.get("WRITE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")
