"""HVPNeT: the prefix of the whole picture and its crops, worked out in numpy, and its switches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from magister.students.fused import Picture
from magister.students.relations.hvpnet import HVPNeT, HVPNeTConfig
from magister.students.student import View
from magister.tasks import relations
from magister.tasks.images import Image
from torch import Tensor

SEES = View(images=True)
#: Four depths of 2 x 2 cells and a vector, each of the whole picture and of three crops.
LEVELS = [(16, 8), (16, 6), (16, 10), (16, 4), (4, 12)]
VIEWS = 4


def build(backbone: str, schema: relations.Schema, **settings: Any) -> HVPNeT:
    torch.manual_seed(0)
    config = HVPNeTConfig(backbone=backbone, lora_rank=4, dropout=0.0, width=16, **settings)
    blind = HVPNeT.create(config, {"relations": schema})
    return HVPNeT(config, {"relations": schema}, blind.encoder, LEVELS).eval()


def picture(*present: bool) -> Picture:
    generator = torch.Generator().manual_seed(1)
    levels = [torch.randn(len(present), *level, generator=generator) for level in LEVELS]
    return Picture(levels, torch.tensor(present))


def by_hand(student: HVPNeT, levels: list[Any], view: int, layer: int) -> Any:
    """``[P, 2 d]`` of one view of one picture in one layer: keys, then values."""
    prefix = student.prefix
    array = lambda tensor: tensor.detach().numpy()
    blocks = []
    for level, project in zip(levels, prefix.inputs, strict=True):
        cells = len(level) // VIEWS
        own: Any = level[view * cells : (view + 1) * cells]
        own = (own - own.mean(1, keepdims=True)) / np.sqrt(own.var(1, keepdims=True) + 1e-5)
        own = own @ array(project[1].weight).T + array(project[1].bias)
        own = np.repeat(own, 4 // cells, 0)
        blocks.append(np.tanh(own + array(prefix.rows)))
    weights = np.full(len(blocks), 1 / len(blocks))
    if prefix.gate is not None:
        at = slice(layer * len(blocks), (layer + 1) * len(blocks))
        scores = array(prefix.gate.weight)[at] @ np.mean(blocks, 0).reshape(-1) + array(prefix.gate.bias)[at]
        scores = np.exp(np.where(scores > 0, scores, 0.01 * scores))
        weights = scores / scores.sum()
    mixed = sum(weight * block for weight, block in zip(weights, blocks, strict=True))
    return mixed @ array(prefix.weight)[layer] + array(prefix.bias)[layer]


@pytest.mark.parametrize("gate", [True, False])
def test_each_view_has_its_rows_by_gates_of_its_own(
    gate: bool, tiny_bert: str, relation_schema: relations.Schema
) -> None:
    student, seen = build(tiny_bert, relation_schema, gate=gate), picture(True, False, True)
    states = student.prefixes(seen)
    layers, heads, size = 2, 2, 16
    assert states.keys.shape == states.values.shape == (layers, 3, heads, 16, size)
    assert states.mask.tolist() == [[True] * 16, [False] * 16, [True] * 16]
    for row in (0, 2):
        levels = [level[row].numpy() for level in seen.levels]
        for layer in range(layers):
            for view in range(VIEWS):
                expected = by_hand(student, levels, view, layer)
                for number, found in enumerate((states.keys, states.values)):
                    own = found[layer, row, :, 4 * view : 4 * view + 4].transpose(0, 1).flatten(1).detach().numpy()
                    np.testing.assert_allclose(own, expected[:, 32 * number : 32 * number + 32], rtol=1e-4, atol=1e-5)


def queries_and_scores(student: HVPNeT, examples: Any, view: View) -> tuple[Tensor, Tensor]:
    """Queries ``[R, T, d]`` of the first layer, and the pairs' scores."""
    caught: list[Tensor] = []
    first = student.encoder.plain.encoder.layer[0].attention.self.query
    handle = first.register_forward_hook(lambda m, i, output: caught.append(output))
    with torch.no_grad():
        scores = student(student.collate(examples, view)).scores["pair"]
    handle.remove()
    return caught[0], scores


def test_the_text_keeps_its_positions(tiny_bert: str, relation_schema: relations.Schema, pairs: Any) -> None:
    """16 rows stand before the text, and its first layer's queries are those of the text alone."""
    student = build(tiny_bert, relation_schema)
    student.features = lambda images: picture(*[True] * len(images)).levels
    some = [e.model_copy(update={"images": (Image(source="1"),)}) for e in pairs]
    queries, scores = queries_and_scores(student, some, SEES)
    alone, unseen = queries_and_scores(student, some, View())
    assert torch.equal(queries, alone)
    assert (scores - unseen).abs().max() > 1e-3


@pytest.mark.parametrize("crops_seen", [True, False])
def test_crops_count_where_they_are_seen(
    crops_seen: bool, tiny_bert: str, relation_schema: relations.Schema, pairs: Any
) -> None:
    student, seen = build(tiny_bert, relation_schema, crops_seen=crops_seen), picture(True)
    some = [pairs[0].model_copy(update={"images": (Image(source="1"),)})]
    student.features = lambda images: seen.levels
    _, before = queries_and_scores(student, some, SEES)
    for level in seen.levels:
        level[:, level.shape[1] // VIEWS :] = 3.0 * torch.randn_like(level[:, level.shape[1] // VIEWS :])
    _, after = queries_and_scores(student, some, SEES)
    assert torch.equal(before, after) is not crops_seen
    assert student.prefixes(seen).keys.shape[3] == (16 if crops_seen else 4)
    said = HVPNeTConfig(image_encoder="efficientnet-lite0", crops_seen=crops_seen).pretrained(images=True)
    assert ("3 salient crops" in said) is crops_seen


def test_without_gates_there_are_none_to_learn(tiny_bert: str, relation_schema: relations.Schema) -> None:
    names = dict(build(tiny_bert, relation_schema, gate=False).named_parameters())
    assert not any("gate" in name for name in names)
