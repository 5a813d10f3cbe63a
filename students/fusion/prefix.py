"""The visual prefix: image features become gated keys and values in every attention layer of a text backbone.

HVPNeT (Chen et al., Findings of NAACL 2022). Any transformers backbone whose attention goes through its
``AttentionInterface`` can wear one: encoders (BERT, RoBERTa, ModernBERT) and decoders (Gemma, Qwen, Llama),
with grouped heads, sliding windows, a key/value cache, and LoRA by peft. The text keeps its positions; the
prefix has none (its keys are not rotated) and every word sees it, whatever its window.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.torchvision_guard import guard
from ..encoders.text import UnsupportedBackbone, attend

#: The prefix attention's name among transformers' attention implementations.
NAME = "magister_prefix"

#: Where an attention layer finds its own part of the attached states, for as long as they are attached.
_SLOT = "_visual_prefix"

#: What some backbones hand to their attention and sdpa does not compute: score caps, sinks, position biases.
_FOREIGN = ("softcap", "s_aux", "position_bias")


class PrefixError(ValueError):
    """A prefix that does not fit what it is used with: says which sizes meet and what to do."""


@dataclass(frozen=True)
class PrefixStates:
    """Keys and values for every attention layer.

    Attributes:
        keys, values: ``[layers, B, kv_heads, P, head_dim]``.
        mask: bool ``[B, P]``, False for examples without an image: they read as if there were no prefix.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor

    def select(self, rows: Tensor) -> PrefixStates:
        """The states of other rows: ``rows [R]`` says which example each of them belongs to."""
        return PrefixStates(
            self.keys.index_select(1, rows),
            self.values.index_select(1, rows),
            self.mask.index_select(0, rows),
        )

    def repeat(self, times: int) -> PrefixStates:
        """Each example ``times`` times in a row, as ``generate`` does for beams and for several samples."""
        return self.select(torch.arange(len(self.mask), device=self.mask.device).repeat_interleave(times))

    def join(self, pictures: int) -> PrefixStates:
        """The rows of every ``pictures`` examples in a row side by side, as those of one example."""
        merged = lambda states: states.unflatten(1, (-1, pictures)).transpose(2, 3).flatten(3, 4)
        return PrefixStates(merged(self.keys), merged(self.values), self.mask.unflatten(0, (-1, pictures)).flatten(1))


class VisualPrefix(nn.Module):
    """Turns a pyramid of image features into `PrefixStates`.

    Each level ``b`` is normed and projected to ``F_b [P, h]`` (``tanh``, one row a cell, plus a vector that
    tells the rows apart). Layer ``l`` mixes the levels by its own gate ``softmax(LeakyReLU(W_l flatten(mean_b
    F_b)))``, as in the paper, and projects the mix to its keys and values. There the paper shares one
    projection between the layers; here each has its own, since a backbone that only LoRA may move keeps its
    layers' keys in spaces of their own.

    Args:
        levels: ``(cells, channels)`` of each level, as `encoders.image.ImageEncoder.levels` says.
        backbone_config: the backbone's transformers config (of a vision LLM: its text part is taken).
        length: rows ``P`` of the prefix. A level of other than ``P`` cells is pooled, or repeated, to ``P``.
        hidden: width ``h``.
        gated: whether layers have gates; without, each takes the mean of the levels.
    """

    def __init__(
        self,
        levels: Sequence[tuple[int, int]],
        backbone_config: Any,
        length: int = 4,
        hidden: int = 256,
        gated: bool = True,
    ) -> None:
        super().__init__()
        config = backbone_config.get_text_config()
        self.levels = [(cells, channels) for cells, channels in levels]
        self.length, self.layers = length, config.num_hidden_layers
        self.heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, hidden)) for _, channels in self.levels
        )
        self.rows = nn.Parameter(0.02 * torch.randn(length, hidden))
        self.gate = nn.Linear(length * hidden, self.layers * len(self.levels)) if gated else None
        width = 2 * self.heads * self.head_dim
        self.weight = nn.Parameter(torch.empty(self.layers, hidden, width).uniform_(-1, 1) * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(self.layers, 1, width))

    def forward(self, features: Sequence[Tensor], present: Tensor) -> PrefixStates:
        """States of ``B`` examples.

        Args:
            features: one ``[B, cells, channels]`` a level; rows without an image may hold anything.
            present: bool ``[B]``, whether an example has an image.
        """
        shapes = [tuple(f.shape[1:]) for f in features]
        if shapes != self.levels or any(len(f) != len(present) for f in features):
            raise PrefixError(
                f"features {[list(f.shape) for f in features]} for {len(present)} examples, but this prefix "
                f"reads levels of (cells, channels) {self.levels}"
            )
        rows = self._rows(features, present)  # [B, levels, P, h]
        batch, hidden = len(rows), rows.shape[-1]
        mixed = torch.einsum("bln,bnph->lbph", self.gates(rows), rows).reshape(self.layers, -1, hidden)
        states = torch.baddbmm(self.bias, mixed, self.weight)
        states = states.view(self.layers, batch, self.length, 2, self.heads, self.head_dim)
        keys, values = states.permute(3, 0, 1, 4, 2, 5)
        return PrefixStates(keys, values, present.bool()[:, None].expand(-1, self.length))

    def gates(self, rows: Tensor) -> Tensor:
        """What a layer takes of each level: ``[B, levels, P, h]`` to ``[B, layers, levels]``, sums of 1."""
        if self.gate is None:
            return rows.new_full((len(rows), self.layers, len(self.levels)), 1 / len(self.levels))
        scores = F.leaky_relu(self.gate(rows.mean(1).flatten(1)))
        return scores.view(-1, self.layers, len(self.levels)).softmax(-1)

    def _rows(self, features: Sequence[Tensor], present: Tensor) -> Tensor:
        levels = []
        for level, project in zip(features, self.inputs, strict=True):
            cells = project(level.float().masked_fill(~present.bool()[:, None, None], 0.0))
            if cells.shape[1] != self.length:
                cells = F.adaptive_avg_pool1d(cells.transpose(1, 2), self.length).transpose(1, 2)
            levels.append((cells + self.rows).tanh())
        return torch.stack(levels, 1)


@contextmanager
def attached(model: nn.Module, states: PrefixStates | None) -> Iterator[None]:
    """Runs ``model``, or ``model.generate``, with a prefix.

    Outside the context the model is what it was, and attends as it did. With None nothing happens.

    Raises:
        UnsupportedBackbone: no prefix can reach this backbone's attention.
        PrefixError: sizes that do not fit; gradient checkpointing in training (it computes attention again
            after the prefix has gone); a model that wears a prefix already.
    """
    if states is None:
        yield
        return
    host, layers = _host(model), attention_layers(model)
    if len(layers) != len(states.keys):
        raise PrefixError(f"a prefix for {len(states.keys)} layers, but the backbone has {len(layers)}")
    if any(_SLOT in layer.__dict__ for layer in layers):
        raise PrefixError("the backbone wears a prefix already: attach one at a time")
    if host.is_gradient_checkpointing and host.training:
        raise PrefixError(
            "gradient checkpointing computes attention again in the backward pass, when the prefix has gone: "
            "switch it off (gradient_checkpointing_disable)"
        )
    before = host.config._attn_implementation
    try:
        host.set_attn_implementation(NAME)
        for layer, keys, values in zip(layers, states.keys, states.values, strict=True):
            layer.__dict__[_SLOT] = (keys, values, states.mask)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop(_SLOT, None)
        host.set_attn_implementation(before)


def attention_layers(model: nn.Module) -> list[nn.Module]:
    """The attention modules of a backbone, one a layer, in order; `UnsupportedBackbone` where that fails."""
    host = _host(model)
    name, expected = type(host).__name__, host.config.num_hidden_layers
    if host.config.is_encoder_decoder:
        raise UnsupportedBackbone(f"{name} is an encoder-decoder: a visual prefix needs an encoder or a decoder")
    modules: list[nn.Module] = list(host.modules())
    found = [m for m in modules if _through_interface(m)]
    if len(found) != expected or not host._supports_sdpa:
        raise UnsupportedBackbone(
            f"{name}: {len(found)} attention modules for its {expected} layers go through transformers' "
            "AttentionInterface with sdpa, so a visual prefix cannot reach each layer once; take BERT, "
            "RoBERTa, ModernBERT, Gemma 3, Qwen or Llama"
        )
    return found


def _host(model: nn.Module) -> Any:
    """The transformers model that holds the text layers: inside peft's wrapping, inside a vision LLM."""
    _register()
    from transformers import PreTrainedModel

    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    if not models:
        raise UnsupportedBackbone(f"{type(model).__name__} holds no transformers model: no visual prefix fits it")
    kind = type(models[0].config.get_text_config())
    return next((m for m in models if type(m.config) is kind), models[0])


def _through_interface(module: nn.Module) -> bool:
    """Whether the module's class computes attention by the function that its config names."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


@cache
def _register() -> None:
    guard()
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The text backbones' own attention, with the layer's prefix before its keys and values.

    ``query [B, heads, Q, head_dim]``, ``key`` and ``value [B, kv_heads, K, head_dim]``,
    mask ``[B, 1, Q, K]``.
    """
    if _SLOT not in module.__dict__:  # the vision tower of a vision LLM
        return attend(module, query, key, value, attention_mask, is_causal=is_causal, **kwargs)
    keys, values, seen = module.__dict__[_SLOT]
    if len(seen) != len(key) or keys.shape[1::2] != key.shape[1::2]:
        raise PrefixError(
            f"a prefix for {len(seen)} rows, {keys.shape[1]} heads of {keys.shape[3]}, but the backbone runs "
            f"{len(key)} rows, {key.shape[1]} heads of {key.shape[3]}; states.repeat(n) is for n beams or "
            "samples, states.select(rows) for several rows of one example"
        )
    foreign = [name for name in _FOREIGN if kwargs.get(name) is not None]
    if foreign:
        raise UnsupportedBackbone(f"{type(module).__name__} attends with {foreign}, which sdpa does not compute")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    mask = _extended(attention_mask, seen, query, key.shape[2], is_causal)
    key = torch.cat([keys.to(key.dtype), key], dim=2)
    value = torch.cat([values.to(value.dtype), value], dim=2)
    return attend(module, query, key, value, mask, is_causal=False, **kwargs)


def _extended(mask: Tensor | None, seen: Tensor, query: Tensor, width: int, is_causal: bool) -> Tensor:
    """Mask ``[B, 1, Q, P + K]`` over prefix and text, of a text mask or what sdpa takes its absence for."""
    length = query.shape[2]
    if mask is None:
        mask = torch.ones(length, width, dtype=torch.bool, device=query.device)
        if is_causal and length > 1:
            mask = mask.tril()
    before = seen[:, None, None].expand(-1, 1, length, -1)
    if mask.dtype != torch.bool:
        before = torch.where(before, 0.0, torch.finfo(mask.dtype).min).to(mask.dtype)
    return torch.cat([before, mask.expand(len(seen), 1, length, -1)], dim=-1)
