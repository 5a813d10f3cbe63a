"""Retrieval and synthesis: the attention to evidence worked out, kinds weighed, nothing searched for in training."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from magister.distill import evidence
from magister.distill.recipe import RecipeFault, check
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.relations import retrieval
from magister.students.relations.retrieval import Retrieval, RetrievalConfig
from magister.students.student import Output, View
from magister.tasks import relations
from magister.tasks.images import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawn import pictures_of

SEES = View(images=True)
LEVELS = [(16, 6), (4, 5)]
features = pictures_of(LEVELS)


def build(backbone: str, schema: relations.Schema, **settings: Any) -> Retrieval:
    torch.manual_seed(0)
    settings = {"lora_rank": 4, "attention_heads": 4, "width": 16} | settings
    config = RetrievalConfig(backbone=backbone, dropout=0.0, **settings)
    blind = Retrieval.create(config, {"relations": schema})
    student = Retrieval(config, {"relations": schema}, blind.encoder, LEVELS).eval()
    student.features = features
    return student


def with_evidence(example: Any, source: str = "", **context: str) -> Any:
    images = (Image(source=source),) if source else ()
    return example.model_copy(update={"context": context, "images": images})


def beside(student: Retrieval, examples: Any, view: View = SEES) -> Tensor:
    batch = student.collate(examples, view)
    with torch.no_grad():
        found = student.fuse(batch.tensors, student.seen(batch.tensors, batch.tensors["example"])).beside
    assert found is not None
    return found


def test_what_the_text_reads_of_its_evidence(tiny_bert: str, relation_schema: relations.Schema, pairs: Any) -> None:
    """Without pictures, by the tokenizer, the backbone and torch's attention themselves."""
    student = build(tiny_bert, relation_schema)
    said = "the Raptors of Toronto"
    some = [with_evidence(pairs[0], knowledge=said), with_evidence(pairs[1]), with_evidence(pairs[2], knowledge="red")]
    found = beside(student, some, View())
    encoder = student.encoder
    first, between = encoder.sub_tokens.first, encoder.sub_tokens.separator
    ids = torch.tensor([[first, between, *encoder.sub_tokens.text(said), between]])
    types = torch.tensor([[0, 0] + [1] * (ids.shape[1] - 2)])
    with torch.no_grad():
        read = encoder(ids, torch.ones_like(ids), types)
        asked = student.encode(student.collate(some[:1], View()).tensors)[:, :1]
        expected, _ = student.consult.attention(asked, read, read)
    torch.testing.assert_close(found[0], expected[0, 0], rtol=1e-4, atol=1e-5)
    assert not found[1].any()
    assert student.collate(some, View()).counts["evidence_missing"] == 1


def test_evidence_is_read_with_the_picture(tiny_bert: str, relation_schema: relations.Schema, pairs: Any) -> None:
    student = build(tiny_bert, relation_schema)
    some = [with_evidence(pairs[0], "1", knowledge="Toronto"), with_evidence(pairs[1], "", knowledge="the Raptors")]
    seen, unseen = beside(student, some), beside(student, some, View())
    assert not torch.allclose(seen[0], unseen[0], atol=1e-3)
    torch.testing.assert_close(seen[1], unseen[1], rtol=1e-4, atol=1e-5)
    other = [with_evidence(pairs[0], "22", knowledge="Toronto"), some[1]]
    assert not torch.allclose(beside(student, other)[0], seen[0], atol=1e-3)


def test_kinds_are_weighed_and_those_that_are_missing_have_no_weight(
    tiny_bert: str, relation_schema: relations.Schema, pairs: Any
) -> None:
    student = build(tiny_bert, relation_schema, evidence=("evidence_text", "evidence_image"))
    texts = {"evidence_text": "Kawhi of Toronto", "evidence_image": "Blue shirt"}
    both = with_evidence(pairs[0], **texts)
    one, other = (with_evidence(pairs[0], **{name: text}) for name, text in texts.items())
    found = beside(student, [both, one, other, with_evidence(pairs[1])], View())
    assert student.synthesis is not None
    asked = student.encode(student.collate([both], View()).tensors)[:, 0]
    kinds = found[1:3][None]
    weights = student.synthesis.weights(asked, kinds, torch.tensor([[True, True]]))
    torch.testing.assert_close(found[0], (weights[..., None] * kinds).sum(1)[0], rtol=1e-4, atol=1e-5)
    assert not found[3].any()


def test_no_evidence_is_the_prefix_alone(tiny_bert: str, relation_schema: relations.Schema, pairs: Any) -> None:
    student = build(tiny_bert, relation_schema, evidence=())
    batch = student.collate([with_evidence(pairs[0], "1", knowledge="Toronto")], SEES)
    assert not [name for name in batch.tensors if name.startswith("evidence")]
    assert student.fuse(batch.tensors, student.seen(batch.tensors, batch.tensors["example"])).beside is None


def test_long_evidence_is_cut_and_counted(tiny_bert: str, relation_schema: relations.Schema, pairs: Any) -> None:
    student = build(tiny_bert, relation_schema, evidence_tokens=5)
    batch = student.collate([with_evidence(pairs[0], knowledge="the " * 30)])
    assert batch.tensors["evidence.input_ids"].shape == (1, 7)  # [CLS] [SEP], four sub-tokens, [SEP]
    assert batch.counts["evidence_tokens_cut"] == 26
    assert "context_tokens_cut" not in batch.counts


def test_nothing_is_retrieved_in_training(
    tiny_bert: str,
    relation_schema: relations.Schema,
    pairs: Any,
    learn: Callable[..., Output],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("searched")

    for name in ("gather", "pin", "fill", "SentenceEncoder"):
        monkeypatch.setattr(evidence, name, refuse)
    monkeypatch.setattr(evidence.TextStore, "__call__", refuse)
    student = build(tiny_bert, relation_schema)
    learn(student, [with_evidence(e, "1", knowledge="Toronto") for e in pairs], 2, 0.01, SEES)
    imported = [n for n in ast.walk(ast.parse(inspect.getsource(retrieval))) if isinstance(n, ast.ImportFrom)]
    assert not [n for n in imported if "evidence" in (n.module or "") or any(a.name == "evidence" for a in n.names)]


def test_bad_settings_are_refused(tiny_bert: str, tiny_gemma: str, relation_schema: relations.Schema) -> None:
    wanted = {"task": "relations", "student": "retrieval", "data": "mnre"}
    with pytest.raises(RecipeFault, match="pinned evidence"):
        check(wanted)
    with pytest.raises(RecipeFault, match="caption is read twice"):
        check({**wanted, "evidence": ["caption"], "context": ["caption"]})
    check({**wanted, "evidence": ["caption", "long_caption"]})
    with pytest.raises(UnsupportedBackbone, match="do not divide"):
        build(tiny_bert, relation_schema, attention_heads=5)
    with pytest.raises(UnsupportedBackbone, match="no \\[CLS\\]"):
        build(tiny_gemma, relation_schema)
