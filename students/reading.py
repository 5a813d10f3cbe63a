"""A batch as heads read it: states of rows under the batch's view, pictures, continuations."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor

from .collate import group
from .fusion.prefix import PrefixStates, attached
from .student import Batch


class BatchReading:
    """What a student made of backbone, prefix and prompt gives its heads (`collate.Reading`).

    Args:
        student: has ``encoder``, ``shapes``, ``prefix`` and ``prompt`` (each of the last two may be None).
        batch: already on the device.
    """

    def __init__(self, student: Any, batch: Batch) -> None:
        self.student, self.batch = student, batch
        self.images = group(batch.tensors, "image")

    @cached_property
    def _prefix(self) -> PrefixStates | None:
        """The visual prefix of each example, or None where no example has a picture."""
        if self.student.prefix is None or not self.images:
            return None
        states: PrefixStates = self.student.prefix(self._levels, self.images["present"])
        return states

    @property
    def _levels(self) -> list[Tensor]:
        return [self.images[f"level{number}"] for number in range(len(self.images) - 1)]

    def _attached(self, rows: dict[str, Tensor]) -> Any:
        states = None if self._prefix is None else self._prefix.select(rows["example"])
        return attached(self.student.encoder.plain, states)

    def _before(self, rows: dict[str, Tensor]) -> Tensor | None:
        """The conditional prompt of each row, made of the text alone."""
        student = self.student
        if not self.batch.view.prompt or student.prompt is None:
            return None
        prompt: Tensor = student.prompt(student.encoder.embeddings(rows["input_ids"]), rows["text"])
        return prompt

    def states(self, rows: dict[str, Tensor], alone: bool = False) -> Tensor:
        """States ``[R, T, d]`` of rows; ``alone`` without picture and prompt."""
        student = self.student
        added = student.shapes(rows["shapes"])
        inputs = rows["input_ids"], rows["attention_mask"], rows["token_type_ids"], added
        if alone:
            states: Tensor = student.encoder(*inputs)
            return states
        with self._attached(rows):
            states = student.encoder(*inputs, self._before(rows))
        return states

    def pictures(self, examples: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Vectors ``[I, C]`` of some examples' pictures (the mean of the last level), and which have one."""
        if not self.images:
            return None, None
        return self._levels[-1].mean(1)[examples], self.images["present"][examples]

    def generate(self, rows: dict[str, Tensor], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of rows."""
        encoder = self.student.encoder
        with self._attached(rows):
            return encoder.generate(rows["input_ids"], rows["attention_mask"], self._before(rows), max_new_tokens)

    def vocabulary(self, states: Tensor) -> Tensor:
        """Logits ``[N, V]`` of states ``[N, d]``: by the language model's head, or the input embeddings."""
        encoder = self.student.encoder
        if encoder.decoder:
            logits: Tensor = encoder.plain.get_output_embeddings()(states)
            return logits
        return states @ encoder.embeddings.weight.T
