"""The start that prompts share, computed once: within a batch, and from one request to the next.

Rows of a left-padded batch read ``[padding | start | rest]``. The start's keys and values depend on nothing
after it and on no padding (positions count real tokens), so they are computed for one row and copied into
all, shifted by each row's padding. All rows must then go on at the same column: the column where the start
ends in the longest row. A shorter row has a piece of the start beyond it, which is computed again. The result
equals the plain batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from ..teacher import Request

#: A shorter shared start is not worth the copying.
LEAST = 32


def shared_prefix_cache(model: Any, prompts: Sequence[list[int]]) -> Any | None:
    """A cache to hand to ``generate`` as ``past_key_values``, beside the whole left-padded prompts.

    Args:
        model: a causal LM of transformers with plain or sliding-window attention.
        prompts: token ids of the batch's rows, not padded.

    Returns:
        A ``DynamicCache`` of ``len(prompts)`` rows, or None where sharing does not pay or the model's state
        is of another kind.
    """
    import torch

    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    longest, shortest = max(map(len, prompts)), min(map(len, prompts))
    shared = min(
        sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))),
        shortest - 1,
    )
    if len(prompts) == 1 or shared < max(LEAST, longest - shortest):
        return None
    if not kinds <= {"full_attention", "sliding_attention"} or not model._supports_default_dynamic_cache():
        return None
    from transformers import DynamicCache

    # Without a configuration the cache keeps all keys of sliding layers as well; their window is in the mask.
    one: Any = DynamicCache()
    start = torch.tensor([prompts[0][:shared]], device=model.device)
    model(input_ids=start, past_key_values=one, use_cache=True, logits_to_keep=1)
    layers = []
    for layer in one.layers:
        keys = layer.keys.new_zeros(len(prompts), *layer.keys.shape[1:])
        values = layer.values.new_zeros(len(prompts), *layer.values.shape[1:])
        for row, prompt in enumerate(prompts):
            padding = longest - len(prompt)
            keys[row, :, padding:] = layer.keys[0, :, : shared - padding]
            values[row, :, padding:] = layer.values[0, :, : shared - padding]
        layers.append((keys, values))
    return DynamicCache(layers)


def prefix_order(requests: Iterable[Request]) -> list[Request]:
    """The requests so that those which begin alike stand side by side: same system turn, then same picture.

    An engine that keeps what it has computed of a prompt's start (`vllm`) then finds it again before it has had to
    make room. Turns and their parts are compared in the order in which the model reads them, a picture by its
    reference; equals keep their order.
    """

    def parts(request: Request) -> list[tuple[str, str, str]]:
        said = [(m.role, part) for m in request.prompt.messages for part in m.parts]
        return [(role, part.text or "", part.image.source if part.image else "") for role, part in said]

    return sorted(requests, key=parts)
