"""Turns as one text."""

from __future__ import annotations

import jinja2
import pytest
from magister.prompts.messages import Message, Part
from magister.tasks.images import Image
from magister.teachers.engines.turns import chat_text, cut, demonstration_stops, plain_text


def turn(role: str, *parts: str | None) -> Message:
    made = tuple(Part(image=Image(source="x.jpg")) if p is None else Part(text=p) for p in parts)
    return Message(role=role, parts=made)


def test_plain_text_of_one_turn_ends_at_its_cue():
    messages = [
        turn("system", "Be brief.\n"),
        turn("user", "Text: a\nAnswer: b\n\nText: ", None, " c\nAnswer: \n"),
    ]
    assert plain_text(messages, "<image>") == "Be brief.\n\nText: a\nAnswer: b\n\nText: <image> c\nAnswer:"


def test_plain_text_of_demonstrations_as_turns_ends_with_the_break_before_an_answer():
    messages = [turn("user", "Text: a"), turn("assistant", "b"), turn("user", "Text: c")]
    assert plain_text(messages) == "Text: a\nb\n\nText: c\n"


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("Do this.\n\nText: a\nAnswer: b\n\nText: c\nAnswer:", ("\n\n", "\nText:")),
        ("Text: c\nAnswer:", ("\n\n",)),
        ("Guide: x\n\nText: c\nAnswer:", ("\n\n",)),
        ("no labels here", ("\n\n",)),
    ],
)
def test_stops(text, stops):
    assert demonstration_stops(text) == stops


def test_cut():
    assert cut("\n\n b \nText: c", ("\n\n", "\nText:")) == "b"
    assert cut(" as it was \n\n x", ()) == " as it was \n\n x"
    assert cut("", ("\n\n",)) == ""


class Template:
    """A chat template that refuses a system turn, as Gemma's first one did."""

    def __init__(self, refuses: bool) -> None:
        self.refuses, self.chat_template = refuses, "yes"

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        if self.refuses and turns[0]["role"] == "system":
            raise jinja2.TemplateError("System role not supported")
        return " | ".join(f"{t['role']}: {t['content']}" for t in turns)


def test_a_refused_system_turn_opens_the_first_user_turn():
    messages = [turn("system", "S"), turn("user", "U"), turn("assistant", "A")]
    assert chat_text(Template(False), messages, vision=False) == "system: S | user: U | assistant: A"
    assert chat_text(Template(True), messages, vision=False) == "user: S\n\nU | assistant: A"
    assert chat_text(object(), messages, vision=False) is None


def test_pictures_are_parts_for_a_vision_template():
    said = chat_text(Template(False), [turn("user", "a", None, "b")], vision=True)
    assert said == "user: [{'type': 'text', 'text': 'a'}, {'type': 'image'}, {'type': 'text', 'text': 'b'}]"
