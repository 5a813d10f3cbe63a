"""The one face of every student: what it reads, what it gives, how it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """Which parts of an example a student is shown. One checkpoint can be trained and used under several views.

    Attributes:
        text: whether the example's own text is read; without it (and its side texts) only the pictures speak.
        context: names of the side texts read beside the text, in this order (``("caption", "knowledge")``).
        images: whether the pictures are seen (through the visual prefix).
        prompt: whether the learnable, text-conditioned prompt stands before the text.
        explain: name of a side text to be produced instead of the answer (the second prefix of distilling
            step by step): a decoder writes it, an encoder fills its masked tokens. Empty: answer the task.
    """

    context: tuple[str, ...] = ()
    images: bool = False
    prompt: bool = False
    explain: str = ""
    text: bool = True


@dataclass
class Batch:
    """A collated batch: tensors by name, and the examples they were made of.

    ``counts`` says what had to be given up on the way (``context_tokens_cut``, ``image_missing``); it is summed and
    printed by whoever drives the student.
    """

    tensors: dict[str, Tensor]
    examples: Sequence[Any]
    view: View
    counts: dict[str, int] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        moved = {k: v.to(device, non_blocking=True) for k, v in self.tensors.items()}
        return Batch(moved, self.examples, self.view, self.counts)


@dataclass
class Output:
    """What a forward pass gives.

    Attributes:
        loss: mean loss over the batch, or None where the batch has no gold.
        losses: its named parts, for the log.
        scores: what the heads said, by name, and ``states [B, N, d]`` that a tagging or a pair head read (of words;
            of the pair); ``objectives`` compare these between views.
    """

    loss: Tensor | None
    losses: dict[str, Tensor]
    scores: dict[str, Tensor]


class Student(Protocol):
    """A model of the zoo. Concrete students are `torch.nn.Module`s."""

    #: The view it answers under when none is given.
    view: View

    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """Tensors of some examples, with gold labels where they have any."""
        ...

    def __call__(self, batch: Batch) -> Output:
        """Losses and scores of a batch."""
        ...

    def predict(self, examples: Sequence[Any], view: View | None = None, batch_size: int = 32) -> list[Any]:
        """The task's answers, one an example, in the order given."""
        ...

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json``, ``model.safetensors`` and, with LoRA, ``adapter/`` in PEFT's own format."""
        ...
