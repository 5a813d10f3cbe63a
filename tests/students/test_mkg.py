"""The M-encoder on tiny random encoders: against the equations worked out in numpy, and how it comes and goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.fusion.mkg import CorrelationFusion, MEncoder, VisionLayer, text_layers
from scipy.special import erf, softmax
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

LEVELS = [(4, 6), (2, 5)]
PRESENT = torch.tensor([True, False, True])
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
FAMILIES: dict[str, Any] = {
    "bert": lambda: BertModel(BertConfig(**SIZES), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZES), add_pooling_layer=False),
    "electra": lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=16)),
}


def build(family: str = "bert", layers: int = 2, **switches: bool) -> tuple[Any, MEncoder]:
    """An encoder and its fusion, with weights large enough that a mistake shows."""
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    fusion = MEncoder(LEVELS, model, layers, **switches)
    for parameter in (*model.parameters(), *fusion.parameters()):
        nn.init.normal_(parameter, std=0.3)
    return model, fusion


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *level, generator=generator) for level in LEVELS]


def text() -> dict[str, Tensor]:
    ids = torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(7) < torch.tensor([5, 7, 4])[:, None]
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long()}


def run(model: Any, fusion: MEncoder, levels: list[Tensor] | None = None, inputs: Any = None) -> Tensor:
    inputs = inputs or text()
    with fusion.attached(model, levels or pictures(), PRESENT, inputs["attention_mask"]):
        states: Tensor = model(**inputs).last_hidden_state
    return states


# --- the equations, one row at a time, without padding, without torch ---


def linear(module: Any, x: Any) -> Any:
    bias = 0 if module.bias is None else module.bias.detach().numpy()
    return x @ module.weight.detach().numpy().T + bias


def norm(module: Any, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + module.eps)
    return scaled * module.weight.detach().numpy() + module.bias.detach().numpy()


def gelu(x: Any) -> Any:
    return x * (1 + erf(x / np.sqrt(2))) / 2


def attend(query: Any, key: Any, value: Any, heads: int = 2) -> Any:
    """Multi-head attention, head by head."""
    size = query.shape[1] // heads
    parts = [slice(h * size, (h + 1) * size) for h in range(heads)]
    return np.concatenate([softmax(query[:, p] @ key[:, p].T / size**0.5, -1) @ value[:, p] for p in parts], 1)


def by_hand(model: Any, fusion: MEncoder, states: Any, cells: list[Any] | None, pgi: bool, caf: bool) -> Any:
    """States of one text ``[T, d]`` from its embeddings, with a picture's levels or without."""
    seen: Any = None
    if cells is not None:
        told = [linear(m[1], norm(m[0], level)) for m, level in zip(fusion.inputs, cells, strict=True)]
        seen = np.concatenate(told) + fusion.places.detach().numpy()
    separate = 4 - len(fusion.vision)
    keys: Any = None
    values: Any = None
    for number, layer in enumerate(model.encoder.layer):
        attention, added = layer.attention, 0.0
        own_keys, own_values = linear(attention.self.key, states), linear(attention.self.value, states)
        context = attend(linear(attention.self.query, states), own_keys, own_values)
        if seen is not None and number >= separate:
            vision = fusion.vision[number - separate]
            inside = norm(vision.norm, seen)
            key, value = linear(vision.key, inside), linear(vision.value, inside)
            if pgi:
                key, value = np.concatenate([keys, key]), np.concatenate([values, value])
            seen = seen + linear(vision.output, attend(linear(vision.query, inside), key, value))
            seen = seen + linear(vision.ffn[2], gelu(linear(vision.ffn[0], norm(vision.ffn_norm, seen))))
            read = softmax(context @ seen.T, -1) @ seen if caf else np.tile(seen.mean(0), (len(context), 1))
            added = linear(fusion.fusions[number - separate].project, read)
        keys, values = own_keys, own_values
        states = norm(attention.output.LayerNorm, linear(attention.output.dense, context) + states)
        inner = gelu(linear(layer.intermediate.dense, states) + added)
        states = norm(layer.output.LayerNorm, linear(layer.output.dense, inner) + states)
    return states


@pytest.mark.parametrize(("pgi", "caf"), [(True, True), (False, True), (True, False), (False, False)])
def test_equals_the_equations(pgi: bool, caf: bool) -> None:
    model, fusion = build(pgi=pgi, caf=caf)
    inputs, levels = text(), pictures()
    with torch.no_grad():
        found = run(model, fusion, levels)
        embedded = model.embeddings(input_ids=inputs["input_ids"])
    plain = model(**inputs).last_hidden_state.detach()
    for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        cells = [level[row].numpy() for level in levels] if PRESENT[row] else None
        expected = by_hand(model, fusion, embedded[row, :length].numpy(), cells, pgi, caf)
        np.testing.assert_allclose(found[row, :length], expected, rtol=1e-3, atol=1e-4)
        changed = float((found - plain)[row, :length].abs().max())
        assert changed > 0.01 if PRESENT[row] else changed < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_without_weights_it_is_the_encoder_alone(family: str) -> None:
    """As made, ``W_f`` and ``b_f`` are 0: no bit of the text's states changes."""
    model, fusion = build(family)
    for caf in fusion.fusions:
        fresh = CorrelationFusion(16, 24)
        caf.load_state_dict(fresh.state_dict())
    with torch.no_grad():
        plain = model(**text()).last_hidden_state
        assert torch.equal(run(model, fusion), plain)


def test_an_absent_picture_may_be_anything() -> None:
    model, fusion = build()
    levels = pictures()
    for level in levels:
        level[1] = float("nan")
    with torch.no_grad():
        torch.testing.assert_close(run(model, fusion, levels), run(model, fusion))


def test_pgi_lets_vision_read_the_text() -> None:
    """Unscaled and hand-worked: with a text of one token that shouts, all of vision hears its value alone."""
    layer = VisionLayer(2, 1)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    nn.init.eye_(layer.output.weight)
    nn.init.constant_(layer.query.bias, 1.0)
    seen = torch.tensor([[[3.0, 1.0], [0.0, 2.0]]])
    loud, quiet = torch.full((1, 1, 2), 50.0), torch.full((1, 1, 2), -50.0)
    value = torch.tensor([[[5.0, 7.0]]])
    mask = torch.ones(1, 1)
    torch.testing.assert_close(layer(seen, (loud, value), mask), seen + value)
    torch.testing.assert_close(layer(seen, (quiet, value), mask), seen)
    torch.testing.assert_close(layer(seen, (loud, value), torch.zeros(1, 1)), seen)  # padding
    torch.testing.assert_close(layer(seen, None, mask), seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_under_lora(family: str) -> None:
    from peft import LoraConfig, get_peft_model

    model, fusion = build(family)
    expected = run(model, fusion).detach()
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).eval()  # untrained: adds 0
    found = run(model, fusion)
    torch.testing.assert_close(found, expected)
    found.pow(2).sum().backward()
    trained = {n: p for n, p in (*wrapped.named_parameters(), *fusion.named_parameters()) if p.requires_grad}
    assert [n for n, p in trained.items() if "lora_A" not in n and (p.grad is None or not p.grad.any())] == []


def test_bf16_autocast() -> None:
    model, fusion = build()
    full = run(model, fusion)
    with torch.autocast("cpu", torch.bfloat16):
        half = run(model, fusion)
    half.float().sum().backward()
    assert float((half.float() - full).detach().abs().mean()) < 0.1


def test_nothing_is_left_behind() -> None:
    model, fusion = build()
    plain = model(**text()).last_hidden_state
    run(model, fusion)
    with (
        pytest.raises(RuntimeError, match="stop"),
        fusion.attached(model, pictures(), PRESENT, text()["attention_mask"]),
    ):
        raise RuntimeError("stop")
    assert torch.equal(model(**text()).last_hidden_state, plain)
    assert not any(module._forward_hooks for module in model.modules())


def test_it_takes_all_layers_but_the_first_at_most() -> None:
    model, fusion = build(layers=9)
    assert len(fusion.vision) == len(fusion.fusions) == len(text_layers(model)) - 1


def test_what_cannot_be_is_refused() -> None:
    small = {k: v for k, v in SIZES.items() if "dropout" not in k}
    models: list[Any] = [
        DebertaV2Model(DebertaV2Config(**small)),
        DistilBertModel(DistilBertConfig(vocab_size=64, dim=16, n_layers=2, n_heads=2, hidden_dim=24)),
        BertModel(BertConfig(**SIZES | {"num_hidden_layers": 1})),
    ]
    for model in models:
        with pytest.raises(UnsupportedBackbone, match="take BERT"):
            MEncoder(LEVELS, model, 4)
    model, fusion = build()
    model.gradient_checkpointing_enable()
    run(model, fusion)
    with pytest.raises(UnsupportedBackbone, match="checkpointing"):
        run(model.train(), fusion)
