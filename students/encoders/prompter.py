"""Prompters: frozen encoders whose texts and pictures have vectors in one space, so that a text can name a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...models.packaged import ModelNotFound
from ...models.torchvision_guard import guard
from .captions import PREFIX
from .sight import Sight

#: How the names of image encoders begin that have a text side.
KINDS = (PREFIX, "open_clip:")

#: Texts to vectors ``[N, c]`` in the space of an image encoder's own vector of a picture (its last level).
Prompter = Callable[[Sequence[str]], Tensor]


def prompts(name: str | None) -> bool:
    """Whether an image encoder of that name has a text side."""
    return str(name).startswith(KINDS)


def prompter(name: str, sight: Sight) -> Prompter:
    """The text side of an image encoder; ``sight`` is it (of ``caption:`` it reads prompts as it reads captions)."""
    if name.startswith(PREFIX):
        return lambda texts: sight.encode(texts)[-1][:, 0]
    if not prompts(name):
        raise ModelNotFound(f"image encoder {name!r} has no text side: take open_clip:NAME@WEIGHTS or caption:NAME")
    guard()
    import open_clip

    kind, _, weights = name.removeprefix(KINDS[1]).partition("@")
    model, _, _ = open_clip.create_model_and_transforms(kind, pretrained=weights or None)
    tokenize = open_clip.get_tokenizer(kind)

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Tensor:
        found: Tensor = model.eval().encode_text(tokenize(list(texts)))
        return found.float()

    return encode
