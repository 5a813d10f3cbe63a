"""MKGformer's switches, and what they stop. Its equations are tested in ``test_mkg.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.relations.mkgformer import MKGformer, MKGformerConfig
from magister.students.student import View
from magister.tasks import relations
from magister.tasks.images import Image
from torch import Tensor, nn

SEES = View(images=True)
LEVELS = [(16, 8), (4, 6)]


def build(backbone: str, schema: relations.Schema, **settings: Any) -> MKGformer:
    """A student whose fusion says something from the start."""
    torch.manual_seed(0)
    config = MKGformerConfig(backbone=backbone, lora_rank=4, dropout=0.0, **settings)
    blind = MKGformer.create(config, {"relations": schema})
    student = MKGformer(config, {"relations": schema}, blind.encoder, LEVELS)
    for caf in student.fusion.fusions:
        nn.init.normal_(caf.project.weight, std=0.5)
    student.features = lambda images: [torch.ones(len(images), *level) for level in LEVELS]
    return student.eval()


def vision_of(student: MKGformer, examples: list[relations.Example]) -> Tensor:
    """The vision side's last states ``[R, N, d]``."""
    caught: list[Tensor] = []
    handle = student.fusion.vision[-1].register_forward_hook(lambda m, i, output: caught.append(output))
    with torch.no_grad():
        student(student.collate(examples, SEES))
    handle.remove()
    return caught[0]


def additions_of(student: MKGformer, examples: list[relations.Example]) -> Tensor:
    """What the last FFN gains ``[R, T, inner]``."""
    caught: list[Tensor] = []
    handle = student.fusion.fusions[-1].register_forward_hook(lambda m, i, output: caught.append(output))
    with torch.no_grad():
        student(student.collate(examples, SEES))
    handle.remove()
    return caught[0]


@pytest.fixture
def some(pairs: list[relations.Example]) -> list[relations.Example]:
    """Two texts with the same picture."""
    return [e.model_copy(update={"images": (Image(source="1"),)}) for e in pairs[:2]]


@pytest.mark.parametrize("pgi", [True, False])
def test_vision_knows_of_the_text_by_pgi_alone(
    pgi: bool, tiny_bert: str, relation_schema: relations.Schema, some: Any
) -> None:
    seen = vision_of(build(tiny_bert, relation_schema, pgi=pgi), some)
    assert seen.shape[1] == 20
    assert torch.allclose(seen[0], seen[1], atol=1e-6) is not pgi


@pytest.mark.parametrize("caf", [True, False])
def test_tokens_differ_in_what_they_read_by_caf_alone(
    caf: bool, tiny_bert: str, relation_schema: relations.Schema, some: Any
) -> None:
    added = additions_of(build(tiny_bert, relation_schema, caf=caf), some)
    assert torch.allclose(added[0, 0], added[0, 1], atol=1e-6) is not caf


def test_it_reads_encoders_of_berts_build(tiny_gemma: str, relation_schema: relations.Schema) -> None:
    with pytest.raises(UnsupportedBackbone, match="take BERT"):
        build(tiny_gemma, relation_schema)
