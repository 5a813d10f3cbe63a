"""Queries behind a text that do not see one another, and a picture's cells as tokens of the row (MUMRC, ICME 2023).

A row is ``text, query 1, ..., query n, cells``. Text and cells see everything; a query sees the text and itself. So the
queries speak to the text as so many prompts in one pass, and a query's own states do not depend directly on the
others.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..collate import Layout, Row, Text
from ..encoders.text import ATTENTION, TextEncoder, UnsupportedBackbone

#: Parts the queries of one text.
AND = "\n"

#: Kinds of positions: text (with its side texts), a cell of a picture; query ``k`` is ``k``, from 1.
TEXT, CELL = 0, -1


@dataclass(frozen=True)
class QueriedLayout(Layout):
    """Rows ``[CLS] text [SEP] side [SEP] query 1 [SEP] query 2 [SEP]``: a text's ``question`` is its queries, joined by
    `AND`. The token type of query ``k`` is ``k + 1``; `kinds` and `read` know that.
    """

    def rows(
        self,
        text: Text,
        where: str,
        question: str = "",
        sides: Sequence[Sequence[int]] = (),
        reserve: int = 0,
        windowed: bool = True,
    ) -> tuple[list[Row], Counter[str]]:
        """As `Layout.rows`; queries are never cut."""
        sub = self.encoder.sub_tokens
        queries = [(*sub.text(query), sub.separator) for query in question.split(AND) if query]
        taken = sum(len(query) for query in queries)
        rows, counts = super().rows(text, where, "", sides, reserve + taken, windowed)
        for row in rows:
            for number, query in enumerate(queries, start=1):
                row.ids.extend(query)
                row.segments.extend([number + 1] * len(query))
                row.shapes.extend([0] * len(query))
                row.text.extend([False] * len(query))
        return rows, counts


def kinds(segments: Tensor) -> Tensor:
    """The kind of each position of a `QueriedLayout`'s rows, of their token types."""
    return (segments - 1).clamp(min=TEXT)


def sees(kinds: Tensor, real: Tensor) -> Tensor:
    """Which position (third dimension) sees which (fourth): bool ``[R, 1, N, N]``.

    Padding sees what the text sees, so that no row of the mask is empty; nobody sees it. A mask of truth values cannot
    carry the queries' numbers into a bias, as the release's does in the rows of its picture tokens.

    Args:
        kinds: ``[R, N]``.
        real: bool ``[R, N]``, false for padding and for the cells of a picture that is not there.
    """
    seer, seen = kinds[:, :, None], kinds[:, None]
    return ((seer <= TEXT) | (seen == TEXT) | (seer == seen))[:, None] & real[:, None, None]


def check(encoder: TextEncoder) -> None:
    """Refuse a backbone that cannot take such a mask, or a cell's position: all but BERT and its kin."""
    config = encoder.plain.config
    local = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    takes = inspect.signature(type(encoder.body).forward).parameters
    if encoder.decoder or local or "position_ids" not in takes or config._attn_implementation != ATTENTION:
        raise UnsupportedBackbone(
            f"{config.model_type}: queries that do not see one another need an encoder with positions, whose layers "
            "all take a mask for each pair of positions: take BERT, RoBERTa or XLM-R"
        )


def read(
    encoder: TextEncoder,
    rows: dict[str, Tensor],
    added: Tensor | None = None,
    cells: Tensor | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """The backbone's states ``[R, T, d]`` of a `QueriedLayout`'s rows under the mask of `sees`.

    Args:
        encoder: the backbone; `check` it once.
        rows: what `collate.stack` makes of the rows.
        added: ``[R, T, d]`` to add to the input vectors.
        cells: input vectors ``[R, C, d]`` of each row's picture; they go through the embeddings' norm, too, all with
            the first position and token type 1. None for no pictures.
        present: bool ``[R]``, which rows have a picture; the cells of the others are seen by nobody.
    """
    segments, real = rows["token_type_ids"], rows["attention_mask"].bool()
    length = segments.shape[1]
    vectors = encoder.embeddings(rows["input_ids"])
    vectors = vectors if added is None else vectors + added.to(vectors.dtype)
    kind, types = kinds(segments), segments.clamp(max=1)
    places = torch.arange(length, device=kind.device).expand_as(kind) + encoder.first_position
    if cells is not None:
        there = real.new_ones(len(real)) if present is None else present
        shape = cells.shape[:2]
        kind = torch.cat([kind, kind.new_full(shape, CELL)], 1)
        types = torch.cat([types, types.new_ones(shape)], 1)
        places = torch.cat([places, places.new_full(shape, encoder.first_position)], 1)
        real = torch.cat([real, there[:, None].expand(shape)], 1)
        vectors = torch.cat([vectors, cells.to(vectors.dtype)], 1)
    more = {"token_type_ids": types} if encoder.token_types else {}
    states: Tensor = encoder.body(
        inputs_embeds=vectors, attention_mask=sees(kind, real), position_ids=places, **more
    ).last_hidden_state
    return states[:, :length]
