"""Answers held to a JSON schema while they are generated, by llguidance: what does not fit cannot be said.

At each token the grammar allows some words of the vocabulary; the others' scores become minus infinity. White
space is what ``json.dumps`` writes, one blank after each comma and colon and none elsewhere, as in the
demonstrations that our prompts show: a grammar that leaves it free lets a model pad until its limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: What a schema's grammar is compiled with.
SPACING: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class SchemaFault(ValueError):
    """A schema that cannot be enforced: says what in it."""


def available() -> bool:
    """Whether llguidance is installed."""
    return find_spec("llguidance") is not None


class Grammars:
    """The grammars of one tokenizer: each distinct schema is compiled once.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: number of scores that the model gives (often more than the tokenizer has tokens).
        ends: tokens that end an answer.

    Raises:
        SchemaFault: the tokenizer is of a kind that llguidance cannot read, or nothing ends an answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: set[int]) -> None:
        from llguidance.hf import from_tokenizer

        if not ends:
            raise SchemaFault("this model has no token that ends an answer")
        try:
            self._words = from_tokenizer(tokenizer, n_vocab=max(vocabulary, len(tokenizer)), eos_token=sorted(ends))
        except ValueError as error:
            raise SchemaFault(f"this tokenizer cannot be constrained: {error}") from None
        self._end = min(ends)
        self._made: dict[str, Any] = {}

    def constraint(self, schemas: Sequence[Mapping[str, Any] | None], width: int) -> Constraint:
        """The logits processor of a batch: one schema (or none) a row, prompts padded to ``width`` tokens."""
        return Constraint([None if s is None else self.matcher(s) for s in schemas], width, self._end)

    def matcher(self, schema: Mapping[str, Any]) -> Any:
        """A fresh reader of one answer.

        Raises:
            SchemaFault: the schema says something that llguidance cannot enforce.
        """
        from llguidance import LLMatcher

        written = json.dumps(schema)  # with its properties in order: the answer comes in that order
        if written not in self._made:
            made = LLMatcher(self._words, LLMatcher.grammar_from_json_schema(written, overrides=SPACING), log_level=0)
            if made.is_error():
                raise SchemaFault(f"the answer's schema cannot be enforced: {made.get_error()}")
            self._made[written] = made
        return self._made[written].deep_copy()


class Constraint:
    """Leaves each row only the tokens with which its answer can still become what its schema says."""

    def __init__(self, matchers: Sequence[Any | None], width: int, end: int) -> None:
        self.matchers, self.width, self.end = matchers, width, end

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """``ids`` ``[batch, width + produced]``, ``scores`` ``[batch, vocabulary]``."""
        scores = scores.clone()
        for row, matcher in enumerate(self.matchers):
            if matcher is None:
                continue
            if ids.shape[1] > self.width and not matcher.is_stopped():
                matcher.consume_token(int(ids[row, -1]))
            allowed = torch.zeros(scores.shape[1], dtype=torch.bool)
            if matcher.is_stopped():  # said all there is to say: the answer ends (or the row had ended before)
                allowed[self.end] = True
            else:
                bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
                known = min(len(bits), len(allowed))
                allowed[:known] = torch.from_numpy(bits[:known].astype(bool))
            scores[row].masked_fill_(~allowed.to(scores.device), -torch.inf)
        return scores
