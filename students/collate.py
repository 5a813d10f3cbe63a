"""From texts to padded rows: words, side texts and questions laid out for an encoder or a decoder, in windows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..tasks import ner, relations
from ..tasks.task import DataFault
from .encoders.text import SubTokens, TextEncoder, TooLong
from .student import View

#: How much of a window is seen again by the next one.
OVERLAP = 0.25

#: A batch's tensors by name, and what was given up on the way.
Collated = tuple[dict[str, Tensor], Counter[str]]

#: What a head found for one item: entities with their probability, values with theirs by attribute, or a relation with
#: its own. A probability is None where it would not be cheap.
Found = list[tuple[ner.Entity, float | None]] | dict[str, tuple[tuple[str, ...], float | None]] | tuple[str, float]


class Reading(Protocol):
    """One batch under its view, as a head sees it: it asks for the states of rows and for the pictures."""

    def states(self, rows: dict[str, Tensor], alone: bool = False) -> Tensor:
        """States ``[R, T, d]``; ``alone`` without picture and prompt (for rows that are no example's)."""
        ...

    def pictures(self, examples: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Vectors ``[I, C]`` of the pictures of some examples, and which of them have one; None for no pictures."""
        ...

    def generate(self, rows: dict[str, Tensor], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of rows."""
        ...

    def vocabulary(self, states: Tensor) -> Tensor:
        """A decoder's logits ``[N, V]`` of states ``[N, d]``."""
        ...


#: What a word looks like, for backbones whose vocabulary is lower-case. 0 stands for what is no word of the text.
SHAPES = ("none", "lower", "Title", "UPPER", "miXed", "digits", "punctuation", "link", "other")
#: A word behind a hash or an at sign has the shape of a hashtag or a mention, in each casing.
MARKS = ("", "#", "@")

#: The marks around the two mentions of a pair, and what stands for them in the text: a sign that any vocabulary has,
#: told from the same sign elsewhere by a shape of its own.
MARKERS = ("head", "head end", "tail", "tail end")
SIGNS = ("*", "*", "^", "^")


@dataclass(frozen=True)
class Item:
    """What a head is asked at once: an example, its place in the batch, and entity types or attributes of it."""

    index: int
    example: Any
    labels: tuple[str, ...] = ()


def shape(word: str, previous: str = "") -> int:
    """Number of a word's shape, in ``range(shape_count())``.

    A hash or an at sign counts whether it is part of the word or, as in tokenised tweets, the word before it.
    """
    mark = word[0] if len(word) > 1 and word[0] in "#@" else previous if previous in ("#", "@") else ""
    body = word[1:] if len(word) > 1 and word[0] in "#@" else word
    return SHAPES.index(_casing(body)) + len(SHAPES) * MARKS.index(mark)


def shape_count() -> int:
    """How many shapes a word can have. The shapes behind them are those of `MARKERS`."""
    return len(SHAPES) * len(MARKS)


def _casing(word: str) -> str:
    if re.match(r"https?(:|$)|www\.", word, re.IGNORECASE):
        return "link"
    if any(c.isdigit() for c in word):
        return "digits"
    if not any(c.isalpha() for c in word):
        return "punctuation"
    if word.islower():
        return "lower"
    if word.isupper() and len(word) > 1:
        return "UPPER"
    if word[0].isupper() and not any(c.isupper() for c in word[1:]):
        return "Title"
    return "miXed" if any(c.isupper() for c in word) else "other"


@dataclass(frozen=True)
class Text:
    """A text as units that are never torn apart: its words, or its single sub-tokens.

    Attributes:
        pieces: the sub-token ids of each unit.
        spans: the characters of the text that each unit stands for.
        shapes: the shape of each unit's word.
    """

    pieces: tuple[tuple[int, ...], ...]
    spans: tuple[tuple[int, int], ...]
    shapes: tuple[int, ...]


def read(sub_tokens: SubTokens, text: str, spans: Sequence[tuple[int, int]], split: bool = False) -> Text:
    """The words of a text, given by their character spans; with ``split`` each sub-token is a unit of its own."""
    words = [text[a:b] for a, b in spans]
    pieces = sub_tokens.words(text, spans)
    shapes = [shape(word, before) for before, word in zip(["", *words], words, strict=False)]
    if not split:
        return Text(tuple(tuple(p.id for p in word) for word in pieces), tuple(spans), tuple(shapes))
    ids: list[tuple[int, ...]] = []
    places: list[tuple[int, int]] = []
    kinds: list[int] = []
    for word, kind in zip(pieces, shapes, strict=True):
        waiting: tuple[int, ...] = ()
        for piece in word:
            waiting = (*waiting, piece.id)
            if piece.end > piece.start:  # a mark for the blank alone joins what follows it
                ids.append(waiting)
                places.append((piece.start, piece.end))
                kinds.append(kind)
                waiting = ()
    return Text(tuple(ids), tuple(places), tuple(kinds))


def marked(sub_tokens: SubTokens, example: relations.Example) -> Text:
    """The words of a text with the marks around its pair's mentions as units of their own (``[E1] head [/E1]``).

    A mention that begins or ends inside a word has the whole word between its marks. Marks also stand around mentions
    that overlap, and whichever comes first (Baldini Soares et al., ACL 2019, "Matching the blanks").
    """
    assert example.pair is not None
    spans = ner.word_spans(example)
    text = read(sub_tokens, example.text, spans)
    opening: dict[int, list[int]] = {}
    closing: dict[int, list[int]] = {}
    for number, mention in enumerate(example.pair):
        assert mention.start is not None  # `relations.Example` sees to both
        assert mention.end is not None
        inside = ner.words_inside(spans, mention.start, mention.end)
        if not inside:
            raise DataFault(f"example {example.id}", f"no word stands at its mention {mention.text!r}")
        opening.setdefault(inside[0], []).append(2 * number)
        closing.setdefault(inside[-1], []).insert(0, 2 * number + 1)
    signs = [tuple(sub_tokens.text(sign)) for sign in SIGNS]
    units: list[tuple[tuple[int, ...], tuple[int, int], int]] = []
    for word, unit in enumerate(zip(text.pieces, text.spans, text.shapes, strict=True)):
        start, end = spans[word]
        units += [(signs[mark], (start, start), shape_count() + mark) for mark in opening.get(word, ())]
        units.append(unit)
        units += [(signs[mark], (end, end), shape_count() + mark) for mark in closing.get(word, ())]
    pieces, places, shapes = zip(*units, strict=True)
    return Text(pieces, places, shapes)


@dataclass
class Row:
    """One row for the backbone: a window of a text with what stands around it.

    Attributes:
        ids, segments, shapes: sub-token ids, token types and word shapes, each of the row's length.
        text: whether each sub-token belongs to the text itself.
        units: which units of the text are in it, ``range(first, last)``.
        at: position of the first and of the last sub-token of each of those units.
        null: the position that stands for "no answer".
        sides: the positions of the side texts, with the marks between them.
    """

    ids: list[int]
    segments: list[int]
    shapes: list[int]
    text: list[bool]
    units: range
    at: list[tuple[int, int]]
    null: int
    sides: range = range(0)


@dataclass(frozen=True)
class Layout:
    """How rows are laid out for one backbone.

    An encoder reads ``[CLS] question [SEP] text [SEP] side [SEP] side [SEP]``, the side texts (and, after a question,
    the text) with token type 1. A decoder sees only what is before, so it reads ``<bos> side, side, question, text``,
    a line break behind each; the last one stands for "no answer".

    Attributes:
        encoder: the backbone.
        context_tokens: the most sub-tokens of side text (separators included), or None for as many as fit.
        lead: words right before every text (``predict:``), or "".
    """

    encoder: TextEncoder
    context_tokens: int | None = None
    lead: str = ""

    def read(self, example: Any, shown: bool = True) -> Text:
        """An example's text, by words, with a pair's mentions `marked`; by sub-tokens for `attributes`; without units
        if it is not shown.
        """
        if not shown:
            return Text((), (), ())
        if isinstance(example, relations.Example) and example.pair is not None:
            return marked(self.encoder.sub_tokens, example)
        if isinstance(example, (ner.Example, relations.Example)):
            return read(self.encoder.sub_tokens, example.text, ner.word_spans(example))
        return self.words(example.text)

    def words(self, text: str) -> Text:
        """A text by sub-tokens."""
        return read(self.encoder.sub_tokens, text, [m.span() for m in re.finditer(r"\S+", text)], split=True)

    def sides(self, example: Any, view: View) -> list[tuple[int, ...]]:
        """The sub-tokens of the side texts of a view, in its order; a side text that is not there is left out."""
        if not view.text:
            return []
        texts = (example.context.get(name, "").strip() for name in view.context)
        return [self.encoder.sub_tokens.text(text) for text in texts if text]

    def rows(
        self,
        text: Text,
        where: str,
        question: str = "",
        sides: Sequence[Sequence[int]] = (),
        reserve: int = 0,
        windowed: bool = True,
    ) -> tuple[list[Row], Counter[str]]:
        """The rows of one text, and what was given up.

        Side text is cut first, from the end of the last one (counted ``context_tokens_cut``). The text is never cut:
        if it is too long by itself, it is read in overlapping windows (counted ``windows``).

        Args:
            text: the text.
            where: the example's id, for the message.
            question: a question about it.
            sides: sub-tokens of each side text.
            reserve: sub-tokens to leave free (for an answer).
            windowed: whether windows can serve.

        Raises:
            TooLong: a single unit is longer than a row, or the text is and windows cannot serve.
        """
        asked, lead = self.encoder.sub_tokens.text(question), self.encoder.sub_tokens.text(self.lead)
        fixed = len(self._first) + 1 + (len(asked) + 1 if asked else 0) + len(lead) + reserve
        room = self.encoder.limit - fixed
        lengths = [len(p) for p in text.pieces]
        longest = max(lengths, default=0) if windowed else sum(lengths)
        if longest > room:
            raise TooLong(
                f"example {where}: {'a word' if windowed else 'a text'} of {longest} sub-tokens; rows have "
                f"{self.encoder.limit}, of which {fixed} are taken (raise max_tokens, or leave the example out)"
            )
        fitting, cut = self._cut(sides, room - sum(lengths))
        counts = Counter({"context_tokens_cut": cut} if cut else {})
        spans = windows(lengths, room)
        if len(spans) > 1:
            counts["windows"] += len(spans)
        return [self._row(text, asked, lead, fitting, units) for units in spans], counts

    @property
    def _first(self) -> list[int]:
        first = self.encoder.sub_tokens.first
        return [] if first is None else [first]

    def _cut(self, sides: Sequence[Sequence[int]], room: int) -> tuple[list[list[int]], int]:
        """Side texts that fit into ``room`` with a separator each, and how many of their sub-tokens do not."""
        left = room if self.context_tokens is None else min(self.context_tokens, room)
        kept, cut = [], 0
        for side in sides:
            keep = min(len(side), max(left - 1, 0))
            cut += len(side) - keep
            if keep:
                kept.append(list(side[:keep]))
                left -= keep + 1
        return kept, cut

    def _row(
        self, text: Text, question: Sequence[int], lead: Sequence[int], sides: list[list[int]], units: range
    ) -> Row:
        sub, decoder = self.encoder.sub_tokens, self.encoder.decoder
        behind = list(sub.text("\n")[-1:]) if decoder else [sub.separator]
        segment = int(bool(question))
        row = Row([], [], [], [], units, [], 0)

        def put(ids: Sequence[int], segment: int, shape: int = 0, text: bool = False) -> None:
            row.ids.extend(ids)
            row.segments.extend([segment] * len(ids))
            row.shapes.extend([shape] * len(ids))
            row.text.extend([text] * len(ids))

        def put_sides() -> None:
            first = len(row.ids)
            for side in sides:
                put([*side, *behind], 1)
            row.sides = range(first, len(row.ids))

        put(self._first, 0)
        if decoder:
            put_sides()
        if question:
            put([*question, *behind], 0)
        put(lead, segment)
        for unit in units:
            first = len(row.ids)
            put(text.pieces[unit], segment, text.shapes[unit], True)
            row.at.append((first, len(row.ids) - 1))
        put(behind, segment)
        if decoder:
            row.null = len(row.ids) - 1
        else:
            put_sides()
        return row


def windows(lengths: Sequence[int], room: int) -> list[range]:
    """Ranges of units that fit into ``room`` sub-tokens and overlap by about `OVERLAP`; together they are all units."""
    spans: list[range] = []
    first = 0
    while True:
        last, used = first, 0
        while last < len(lengths) and used + lengths[last] <= room:
            used += lengths[last]
            last += 1
        spans.append(range(first, last))
        if last >= len(lengths):
            return spans
        # The next window goes back for context, but not so far that the next unit would not fit.
        spare = min(room * OVERLAP, room - lengths[last])
        back = last
        while back > first + 1 and lengths[back - 1] <= spare:
            back -= 1
            spare -= lengths[back]
        first = back


def owner(rows: Sequence[Row], unit: int) -> int:
    """The row in which a unit has most text on its shorter side; the ends of the text count as far away."""
    count = rows[-1].units.stop

    def margin(row: Row) -> int:
        left = count if row.units.start == 0 else unit - row.units.start
        right = count if row.units.stop == count else row.units.stop - 1 - unit
        return min(left, right)

    return max((i for i, row in enumerate(rows) if unit in row.units), key=lambda i: margin(rows[i]))


def place(rows: Sequence[Row], unit: int, offset: int, last: bool) -> tuple[int, int]:
    """Where a unit's state stands: its row (counted from ``offset``) and its first or ``last`` sub-token's position."""
    own = owner(rows, unit) if len(rows) > 1 else 0
    row = rows[own]
    return offset + own, row.at[unit - row.units.start][int(last)]


def pad(values: Sequence[Sequence[int]], fill: int = 0, dtype: torch.dtype = torch.long) -> Tensor:
    """Lists of numbers as one tensor, filled up on the right."""
    width = max(len(v) for v in values)
    return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values], dtype=dtype)


def stack(encoder: TextEncoder, rows: Sequence[Row], owners: Sequence[int]) -> dict[str, Tensor]:
    """Rows as tensors ``[R, T]``; ``example [R]`` says which example of the batch a row belongs to."""
    return {
        "input_ids": pad([r.ids for r in rows], encoder.sub_tokens.pad),
        "attention_mask": pad([[1] * len(r.ids) for r in rows]),
        "token_type_ids": pad([r.segments for r in rows]),
        "shapes": pad([r.shapes for r in rows]),
        "text": pad([r.text for r in rows], False, torch.bool),
        "example": torch.tensor(list(owners)),
    }


def group(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors named ``name.…``, without the name before theirs."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
