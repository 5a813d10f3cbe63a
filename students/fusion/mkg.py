"""The M-encoder: a vision side that runs beside the last layers of a text encoder and is read inside their FFNs.

MKGformer (Chen et al., SIGIR 2022): prefix-guided interaction (PGI) from text to vision, correlation-aware fusion (CAF)
from vision to text. It is attached to an encoder of BERT's build by hooks on its sub-modules, so LoRA by peft stays in
place, and outside of `MEncoder.attached` the encoder is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.text import UnsupportedBackbone, attend


class VisionLayer(nn.Module):
    """A pre-norm transformer layer over vision states; with PGI its keys and values begin with a text layer's.

    ``V' = V + W_o Attn(Q, [K_text; K], [V_text; V])``, then ``V' + FFN(V')``: queries are vision's alone. It has
    the heads of the text layer. (Keys have no bias: without PGI it would cancel.)

    Args:
        width: ``d``, of both sides.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.ffn = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, seen: Tensor, text: tuple[Tensor, Tensor] | None, mask: Tensor) -> Tensor:
        """States ``[R, N, d]`` of states ``[R, N, d]``.

        Args:
            seen: vision states.
            text: keys and values of the text layer before, ``[R, T, d]`` each; None without PGI.
            mask: ``[R, T]``, which of the text there is.
        """
        inside = self.norm(seen)
        query, key, value = self.query(inside), self.key(inside), self.value(inside)
        allowed = None
        if text is not None:
            key, value = torch.cat([text[0].to(key.dtype), key], 1), torch.cat([text[1].to(value.dtype), value], 1)
            allowed = torch.cat([mask.bool(), mask.new_ones(seen.shape[:2]).bool()], 1)[:, None, None]
        split = lambda states: states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        found, _ = attend(self, split(query), split(key), split(value), allowed, is_causal=False)
        seen = seen + self.output(found.flatten(2))
        fed: Tensor = seen + self.ffn(self.ffn_norm(seen))
        return fed


class CorrelationFusion(nn.Module):
    """``W_f Z + b_f``, with ``Z = softmax(C V^T) V``: what a text FFN's inner states gain before their activation.

    ``C`` is the context that the layer's attention gives, before its output projection; the product is not scaled, as
    published. ``W_f`` and ``b_f`` start at 0: training begins from the text encoder as it is.

    Args:
        width: ``d`` of the states of both sides.
        inner: width of the FFN's inner states.
        correlated: False takes the mean of ``V`` for every token, whatever it says.
    """

    def __init__(self, width: int, inner: int, correlated: bool = True) -> None:
        super().__init__()
        self.correlated = correlated
        self.project = nn.Linear(width, inner)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, context: Tensor, seen: Tensor) -> Tensor:
        """``[R, T, inner]`` of contexts ``[R, T, d]`` and vision states ``[R, N, d]``."""
        if self.correlated:
            weights = (context @ seen.to(context.dtype).transpose(1, 2)).float().softmax(-1)
            read = weights.to(seen.dtype) @ seen
        else:
            read = seen.mean(1, keepdim=True).expand(-1, context.shape[1], -1)
        added: Tensor = self.project(read)
        return added


class MEncoder(nn.Module):
    """The vision side and both interactions, for the last layers of one text encoder.

    Vision layer ``l`` reads keys and values of text layer ``l - 1``; the FFN of text layer ``l`` reads its states.

    Args:
        levels: ``(cells, channels)`` of each level of a picture; all cells of all levels are vision's tokens.
        backbone: the text encoder, in peft's wrapping or not. It is looked at, not kept.
        layers: how many of its last layers, the first excepted; fewer where it has not as many.
        pgi: whether vision reads the text.
        caf: whether each token reads what it correlates with; without, each gains the mean of vision's states.
    """

    def __init__(
        self, levels: Sequence[tuple[int, int]], backbone: Any, layers: int, pgi: bool = True, caf: bool = True
    ) -> None:
        super().__init__()
        config = backbone.config
        count, width = min(layers, len(text_layers(backbone)) - 1), config.hidden_size
        self.pgi = pgi
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width)) for _, channels in levels
        )
        self.places = nn.Parameter(0.02 * torch.randn(sum(cells for cells, _ in levels), width))
        self.vision = nn.ModuleList(VisionLayer(width, config.num_attention_heads) for _ in range(count))
        self.fusions = nn.ModuleList(CorrelationFusion(width, config.intermediate_size, caf) for _ in range(count))

    def embed(self, levels: Sequence[Tensor]) -> Tensor:
        """Vision's tokens ``[R, N, d]`` of pictures' levels ``[R, cells, channels]``."""
        cells = [project(level) for project, level in zip(self.inputs, levels, strict=True)]
        return torch.cat(cells, 1) + self.places

    @contextmanager
    def attached(self, backbone: Any, levels: Sequence[Tensor], present: Tensor, mask: Tensor) -> Iterator[None]:
        """Runs of ``backbone`` inside see these pictures; one run at a time.

        Args:
            backbone: the encoder that this was made for.
            levels: one ``[R, cells, channels]`` a level.
            present: bool ``[R]``: a row without a picture is read as by the encoder alone.
            mask: ``[R, T]``, the rows' attention mask.
        """
        if backbone.is_gradient_checkpointing and backbone.training:
            raise UnsupportedBackbone(
                "gradient checkpointing computes layers again in the backward pass, when vision has gone: switch it "
                "off (gradient_checkpointing_disable)"
            )
        stack = text_layers(backbone)[-len(self.vision) - 1 :]
        run = _Run(self, self.embed(levels), present, mask)
        with ExitStack() as hooks:
            for number, (before, layer) in enumerate(pairwise(stack)):
                for module, hook in run.hooks(number, before, layer):
                    hooks.callback(module.register_forward_hook(hook).remove)
            yield


class _Run:
    """One pass through text and vision at once: what has been computed so far."""

    def __init__(self, fusion: MEncoder, seen: Tensor, present: Tensor, mask: Tensor) -> None:
        self.fusion, self.seen, self.absent, self.mask = fusion, seen, ~present.bool()[:, None, None], mask
        self.text: dict[tuple[int, str], Tensor] = {}
        self.added: Tensor | None = None

    def hooks(self, number: int, before: Any, layer: Any) -> Iterator[tuple[nn.Module, Any]]:
        """Sub-modules of a text layer and of the one before, in the order in which they run, and what is done there."""

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                # By number: a layer's own keys are there before it looks, and it must read those of the one before.
                self.text[number, name] = output

            return hook

        def look(module: nn.Module, inputs: Any, output: tuple[Tensor, Any]) -> None:
            text = (self.text[number, "key"], self.text[number, "value"]) if self.fusion.pgi else None
            self.seen = self.fusion.vision[number](self.seen, text, self.mask)
            self.added = self.fusion.fusions[number](output[0], self.seen).masked_fill(self.absent, 0.0)

        def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            assert self.added is not None
            return output + self.added

        yield before.attention.self.key, keep("key")
        yield before.attention.self.value, keep("value")
        yield layer.attention.self, look
        yield layer.intermediate.dense, add


def text_layers(backbone: Any) -> list[Any]:
    """The layers of an encoder of BERT's build, in order; `UnsupportedBackbone` for any other."""
    found = [module for module in backbone.modules() if _of_berts_build(module)]
    if len(found) != backbone.config.num_hidden_layers or len(found) < 2:
        raise UnsupportedBackbone(
            f"{type(backbone).__name__}: {len(found)} of its {backbone.config.num_hidden_layers} layers have the keys, "
            "values and FFN of BERT's, which are read here; take BERT, RoBERTa, XLM-R or ELECTRA of two layers or more"
        )
    return found


def _of_berts_build(module: nn.Module) -> bool:
    attention = getattr(getattr(module, "attention", None), "self", None)
    ffn = getattr(module, "intermediate", None)
    return all(hasattr(attention, name) for name in ("key", "value")) and hasattr(ffn, "dense")
