"""A product: a text, or a page of several fields, with its category, pictures and texts beside them."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, field_validator

from ..tasks.record import Record

#: What a place in the page is called that lies in no single field.
WHOLE_PAGE = "page"


@dataclass(frozen=True)
class Part:
    """A field of a product in its page: characters ``start`` to ``end``."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Page:
    """A product's fields as the one text that is asked about, a line each, and where each field lies in it."""

    text: str
    parts: tuple[Part, ...]

    def locate(self, start: int, end: int) -> tuple[str, int, int]:
        """Characters of the page as characters of the field that holds them: its name, start and end there.

        What lies in no single field keeps its offsets in the page, under the name ``page``.
        """
        for part in self.parts:
            if part.start <= start and end <= part.end:
                return part.name, start - part.start, end - part.start
        return WHOLE_PAGE, start, end


class Product(Record):
    """One product: a text, fields of a page, or both.

    Attributes:
        text: the whole text, where there are no fields.
        title, bullets, description: the page's fields. Those that are not blank become the lines of the page.
        table: the page's specifications, value by name; a line ``name: value`` each.
        images: paths or data URLs.
        context: named texts beside the page, such as ``ocr`` or ``caption``.
    """

    text: str = ""
    id: str = ""
    category: str = ""
    images: tuple[str, ...] = ()
    title: str = ""
    bullets: tuple[str, ...] = ()
    description: str = ""
    table: dict[str, str] = Field(default_factory=dict)
    context: dict[str, str] = Field(default_factory=dict)

    @field_validator("context")
    @classmethod
    def _no_field(cls, context: dict[str, str]) -> dict[str, str]:
        taken = context.keys() & {"text", "title", "description", WHOLE_PAGE}
        if taken:
            raise ValueError(f"the text {sorted(taken)[0]!r} belongs into the field of that name")
        return context

    @property
    def page(self) -> Page:
        """What is asked about, with the places of its fields. Their names there are ``title``, ``text``,
        ``bullets[0]``, ``description``, ``table.NAME``."""
        fields = [("title", "", self.title), ("text", "", self.text)]
        fields += [(f"bullets[{n}]", "", bullet) for n, bullet in enumerate(self.bullets)]
        fields += [("description", "", self.description)]
        fields += [(f"table.{name}", f"{name}: ", value) for name, value in self.table.items()]
        lines: list[str] = []
        parts: list[Part] = []
        at = 0
        for name, lead, said in fields:
            if said.strip():
                parts.append(Part(name, at + len(lead), at + len(lead) + len(said)))
                lines.append(lead + said)
                at += len(lead) + len(said) + 1
        return Page("\n".join(lines), tuple(parts))
