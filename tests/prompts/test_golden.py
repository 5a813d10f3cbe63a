"""Every released template rendered once, kept as text to be read by people.

After a deliberate change (a new version), write the files anew with ``WRITE_GOLDEN=1`` and read them.
"""

import os
from pathlib import Path

import pytest
from magister.prompts.library import templates
from magister.prompts.preview import preview
from magister.tasks.dataset import Dataset

GOLDEN = Path(__file__).parent / "golden"


def as_text(prompt):
    """A prompt as a person reads it."""
    lines = []
    for message in prompt.messages:
        parts = (p.text if p.image is None else f"[{p.image.label}]" for p in message.parts)
        lines.append(f"--- {message.role}\n{''.join(parts)}")
    kind = "text" if prompt.answer_schema is None else "json"
    lines.append(f"--- {kind}, {prompt.max_tokens} tokens, stop {list(prompt.stop)}\n")
    return "\n".join(lines)


@pytest.mark.parametrize("template", templates(), ids=lambda t: t.name)
def test_golden(template, probes):
    if template.front.task == "ner":
        data = Dataset("probes", "ner", probes.TYPES, {"train": (probes.POST, probes.OTHER_POST)})
    else:
        data = Dataset("probes", "attributes", probes.ATTRIBUTES, {"train": (probes.PRODUCT, probes.OTHER_PRODUCT)})
    text = as_text(preview(template, data))
    path = GOLDEN / f"{template.name.replace('/', '.')}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
