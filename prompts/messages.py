"""What a rendered prompt is: turns of text and pictures, in the order in which the template placed them."""

from __future__ import annotations

from typing import Any, Literal

from ..tasks.images import Image
from ..tasks.record import Record


class Part(Record):
    """A piece of a turn: a text, or a picture where the template placed it. Exactly one of the two."""

    text: str | None = None
    image: Image | None = None


class Message(Record):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The turn's text alone, pictures left out."""
        return "".join(p.text for p in self.parts if p.text is not None)

    @property
    def images(self) -> tuple[Image, ...]:
        """The turn's pictures in order."""
        return tuple(p.image for p in self.parts if p.image is not None)


class Prompt(Record):
    """A template rendered for one example: what a teacher is asked, and by which text of ours.

    Attributes:
        template: the template's name with version, for example ``ner/zero_shot.v1``.
        digest: SHA-256 of the template file, kept in every corpus row.
        messages: the turns.
        answer_schema: JSON schema of the answer, or None where the answer is free text.
        max_tokens: limit on the answer.
        stop: strings at which the answer ends (a base model would go on with the next example).
    """

    template: str
    digest: str
    messages: tuple[Message, ...]
    answer_schema: dict[str, Any] | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
