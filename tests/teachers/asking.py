"""Requests for the tests of the engines that run a model here, and their replies by key."""

from __future__ import annotations

import io
from types import SimpleNamespace

from magister.prompts.messages import Message, Part, Prompt
from magister.tasks import alignment, attributes, completion, linking, ner, relations
from magister.tasks.images import Image
from magister.teachers.teacher import Request
from PIL import Image as Pillow

SHOTS = "".join(f"Text: {n} flew to {p}.\nEntities: {n}, {p}\n\n" for n, p in [("Anna", "Oslo"), ("Bo", "Rome")])
#: A bounded answer, as the tasks' own are.
SCHEMA = {
    "type": "object",
    "properties": {
        "entities": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "minLength": 1, "maxLength": 8},
                    "type": {"type": "string", "enum": ["PER", "LOC"]},
                },
                "required": ["text", "type"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["entities"],
    "additionalProperties": False,
}


def request(*parts: str | Image, max_tokens: int = 12, key: str = "k", stop=(), **options) -> Request:
    """One user turn of texts and pictures."""
    made = tuple(Part(text=p) if isinstance(p, str) else Part(image=p) for p in parts)
    prompt = Prompt(
        template="t",
        digest="d",
        messages=(Message(role="user", parts=made),),
        max_tokens=max_tokens,
        stop=stop,
    )
    return Request(example="e", prompt=prompt, key=key, **options)


def few_shot(post: str, **options) -> Request:
    """A question after two demonstrations; its key is the post."""
    return request(f"{SHOTS}Text: {post}\nEntities:", key=options.pop("key", post), **options)


def with_schema(asked: Request, schema=SCHEMA) -> Request:
    return asked.model_copy(update={"prompt": asked.prompt.model_copy(update={"answer_schema": schema})})


def picture(colour: str) -> Image:
    buffer = io.BytesIO()
    Pillow.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return Image.of_bytes(buffer.getvalue(), example="e9")


def by_key(teacher, requests):
    """Every reply by its key; each request has exactly one."""
    requests = list(requests)
    replies = list(teacher.generate(requests))
    assert sorted(r.key for r in replies) == sorted(r.key for r in requests)
    return {r.key: r for r in replies}


def task_schemas() -> dict[str, dict]:
    """The tasks' own answer schemas, by name."""
    seven = SimpleNamespace(candidates=range(7))
    related = SimpleNamespace(labels=("place of birth", 'says "so"', "né à"), none="none")
    colour = attributes.Attribute(name="colour", type="one_of", options=("red", "dark blue"))
    asked = {"colour": colour, "sleeve length": attributes.Attribute(name="sleeve length")}
    return {
        "ner": ner.answer_schema(SimpleNamespace(labels=("PER", "LOC")), None),
        "attributes": attributes.answer_schema(
            SimpleNamespace(attribute=lambda name, category: asked[name]), SimpleNamespace(asked=asked, category="")
        ),
        "relation": relations.answer_schema(related, SimpleNamespace(pair=(0, 1))),
        "triples": relations.answer_schema(related, SimpleNamespace(pair=None)),
        "completion": completion.answer_schema(None, seven),
        "alignment": alignment.answer_schema(None, seven),
        "linking": linking.answer_schema(SimpleNamespace(nil=True), seven),
    }
