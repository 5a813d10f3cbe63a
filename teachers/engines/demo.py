"""The teacher that needs no network: Gemma 3 270M out of its Python package.

A base model without a chat template: it continues text, so it wants few-shot prompts (with six demonstrations
it nearly always keeps their form). It is there to run the whole path on any laptop; no claim of quality
stands on it.
"""

from __future__ import annotations

from ...models.gemma import revision
from .transformers import TransformersTeacher


def demo(batch_size: int = 16) -> TransformersTeacher:
    """The demo teacher; the first call ever converts the model, which takes about a minute.

    Raises:
        ModelNotFound: the model's package is not installed; says what to install.
    """
    return TransformersTeacher("gemma-270m", spec="demo", revision=revision(), batch_size=batch_size)
