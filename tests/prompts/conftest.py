"""Small examples for the tests of this room."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from magister.tasks import attributes, ner
from magister.tasks.images import Image

PICTURE = Image(source="data:image/png;base64,iVBORw0KGgo=")
OTHER_PICTURE = Image(source="data:image/jpeg;base64,/9j/4AAQ")

TYPES = ner.Schema(
    types=(
        ner.EntityType(name="PER", title="person", guideline="Name of a person, real or from a story."),
        ner.EntityType(name="LOC", title="location", guideline="Name of a place on the map."),
        ner.EntityType(name="MISC", title="other name", guideline="Any other proper name."),
    )
)
POST = ner.Example(
    id="p1",
    text="Kobe Bryant lands in Los Angeles ! # Kobe",
    images=(PICTURE,),
    context={"caption": "a man in a yellow shirt", "ocr": "LAKERS 24", "knowledge": "secret knowledge"},
    gold=ner.Answer(
        entities=(
            ner.Entity(text="Kobe Bryant", type="PER", start=0, end=11),
            ner.Entity(text="Los Angeles", type="LOC", start=21, end=32),
        )
    ),
)
OTHER_POST = ner.Example(
    id="p2",
    text="so cold in Oslo",
    gold=ner.Answer(entities=(ner.Entity(text="Oslo", type="LOC", start=11, end=15),)),
)

ATTRIBUTES = attributes.Schema(
    attributes=(
        attributes.Attribute(name="Brand", description="Maker named on the pack.", examples=("Marvis",)),
        attributes.Attribute(name="Neckline", type="one_of", options=("V-Neck", "Crew Neck", "None")),
        attributes.Attribute(name="Use", type="free", description="What it is for"),
        attributes.Attribute(name="Size", categories=("Shirts",)),
    )
)
PRODUCT = attributes.Example(
    id="a1",
    text="ACME Runner’s T-Shirt, 100 % Cotton",
    category="Shirts",
    asked=("Brand", "Neckline", "Use"),
    images=(PICTURE,),
    context={"ocr": "Dry Fit"},
    gold=attributes.Answer(values={"Brand": ("ACME", "Acme Inc"), "Neckline": ("V-Neck",), "Use": ()}),
)
OTHER_PRODUCT = attributes.Example(
    id="a2",
    text="Nordic wool hat",
    category="Hats",
    asked=("Brand", "Use"),
    gold=attributes.Answer(values={"Brand": ("Nordic",), "Use": ()}),
)


@pytest.fixture(scope="session")
def probes():
    """The examples above by name."""
    return SimpleNamespace(**{k: v for k, v in globals().items() if k.isupper()})


@pytest.fixture
def write(tmp_path):
    """``write("ner/mine.v1", user, system)`` puts a template into a folder and returns the folder."""

    def write(name, user="{{ example.text }}", system="", *, text=None, **head):
        task, _, rest = name.partition("/")
        fields = {"task": task, "mode": rest.rpartition(".v")[0], "output": "text", "max_tokens": 9}
        fields |= {"source": "test", "description": "test", **head}
        front = "".join(f"{k}: {v}\n" for k, v in fields.items() if v is not None)
        body = (f"{{% block system %}}{system}{{% endblock %}}\n" if system else "") + (
            f"{{% block user %}}\n{user}\n{{% endblock %}}\n"
        )
        path = tmp_path / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text if text is not None else f"---\n{front}---\n{body}", encoding="utf-8")
        return tmp_path

    return write
