"""Evidence: nearest texts against all cosines, repeats of the example dropped, results pinned once and filled in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from magister.distill.evidence import (
    Evidence,
    SentenceEncoder,
    TextStore,
    by_caption,
    by_mentions,
    by_objects,
    by_text,
    fill,
    gather,
    pin,
    pin_captions,
    repeats,
)
from magister.tasks import ner, relations
from magister.tasks.task import DataFault
from magister.teachers.knowledge import corpus
from torch import Tensor

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def pairs() -> list[relations.Example]:
    def pair(id: str, text: str, head: str, tail: str) -> relations.Example:
        mention = lambda m: ner.Entity(text=m, type="", start=text.index(m), end=text.index(m) + len(m))
        return relations.Example(
            id=id,
            text=text,
            pair=(mention(head), mention(tail)),
            context={"knowledge": f"{head} and {tail} : lives_in ."},
            gold=relations.Answer(relation="lives_in"),
        )

    return [
        pair("a", "Kawhi Leonard is off to Oakland", "Kawhi Leonard", "Oakland"),
        pair("b", "the Raptors with Kawhi", "Kawhi", "Raptors"),
        pair("c", "KevinLove and the text of Oakland ! # finals", "KevinLove", "Oakland"),
        pair("d", "Leonard , Toronto", "Leonard", "Toronto"),
    ]


def counted(texts: Sequence[str]) -> Tensor:
    """A vector of how often each letter stands in a text."""
    return torch.tensor([[float(text.lower().count(letter)) for letter in LETTERS] for text in texts])


def test_the_nearest_texts_are_those_of_all_cosines() -> None:
    texts = ["a dog runs", "two cats", "a dog runs", " ", "dogs and cats", "zzz"]
    store = TextStore(texts, counted)
    assert store.texts == ("a dog runs", "two cats", "dogs and cats", "zzz")
    query = counted(["the cats"])[0].numpy()
    vectors = counted(store.texts).numpy()
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    found = store("the cats", 3)
    assert [e.text for e in found] == [store.texts[i] for i in np.argsort(-cosines)[:3]]
    assert [e.score for e in found] == pytest.approx(sorted(cosines, reverse=True)[:3], abs=1e-6)
    assert list(TextStore([], counted)("any", 3)) == []


def test_a_sentence_is_the_mean_of_its_states(backbone: Path) -> None:
    encode = SentenceEncoder(str(backbone), batch_size=2)
    texts = ["Kawhi Leonard", "the text of Oakland and the Raptors", "!"]
    together = encode(texts)
    tokenizer = encode.sentences._encoder.sub_tokens.tokenizer
    ids = torch.tensor([tokenizer.encode("[CLS] Kawhi Leonard [SEP]", add_special_tokens=False)])
    with torch.no_grad():
        states = encode.sentences._encoder.plain(ids).last_hidden_state[0]
    torch.testing.assert_close(together[0], states.mean(0) / states.mean(0).norm(), rtol=1e-4, atol=1e-5)
    for text, vector in zip(texts, together, strict=True):
        torch.testing.assert_close(encode([text])[0], vector, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("found", "text", "is_one"),
    [
        ("Kawhi is off to Oakland", "RT @ Someone : Kawhi is off to Oakland ! https : / / t.co / abc", True),
        ("kawhi is off to oakland", "Kawhi is off to Oakland", True),
        ("News . Kawhi is off to Oakland https://t.co/x and much more is said here", "Kawhi is off to Oakland", True),
        ("is off", "Kawhi is off to Oakland", True),  # a piece of it
        ("Kawhi Leonard plays in Oakland", "Kawhi is off to Oakland", False),
        ("", "Kawhi", False),
    ],
)  # fmt: skip
def test_what_repeats_a_text(found: str, text: str, is_one: bool) -> None:
    assert repeats(found, text) is is_one


def pinned(example: Any) -> Any:
    return example.model_copy(update={"context": {"caption": "two men play basketball"}})


def test_what_the_example_says_itself_is_no_evidence(pairs: Any) -> None:
    example = pinned(pairs[0])
    said = [
        Evidence("Breaking : Kawhi Leonard is off to Oakland , says a page", 0.9),  # the tweet itself
        Evidence("two men play basketball", 0.8),  # its own caption
        Evidence("a city by the bay", 0.7),
        Evidence("A city by the bay .", 0.6),  # again
        Evidence("a man in a suit", 0.5),
        Evidence("something far away", 0.1),
    ]
    asked: list[tuple[str, int]] = []

    def search(query: str, count: int) -> Sequence[Evidence]:
        asked.append((query, count))
        return said[:count]

    found, dropped = gather(example, by_text, search, count=4, least=0.3)
    assert [e.text for e in found] == ["a city by the bay", "a man in a suit"]
    assert dropped == 2
    assert asked == [(example.text, 6)]
    assert by_mentions(example) == ("Kawhi Leonard", "Oakland")
    assert by_caption(example) == ("two men play basketball",)
    assert by_caption(pairs[0]) == ()
    detector = SimpleNamespace(objects=lambda picture: [((0, 0, 1, 1), "ball", 0.9), ((0, 0, 1, 1), "ball", 0.8)])
    picture = SimpleNamespace(open=lambda: None)
    assert by_objects(detector)(SimpleNamespace(images=(picture, picture))) == ("ball",)


def test_results_are_pinned_once_and_read_by_a_recipe(pairs: Any, tmp_path: Path) -> None:
    store = TextStore(["a city by the bay", "men on a court", "a red shirt"], counted)
    file = tmp_path / "evidence.jsonl"
    some = [pinned(pairs[0]), pairs[1]]
    silent = lambda query, count: ()
    counts = pin(file, [*some, pairs[2]], {"text": (by_text, lambda q, n: store(q, n) if "KevinLove" not in q else ()),
                                          "image": (by_caption, silent)}, count=2)  # fmt: skip
    assert counts["examples"] == 3
    assert counts["without_evidence"] == 1
    assert counts["text"] == 4
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["a", "b"]
    assert len(lines[0]["evidence"]["text"]) == 2
    assert corpus.texts(file)["a"] == " ; ".join(text for text, _ in lines[0]["evidence"]["text"])
    filled = fill([*some, pairs[2]], file)
    assert filled[0].context["evidence_text"] == lines[0]["text"]
    assert filled[0].context["caption"] == "two men play basketball"
    assert "evidence_image" not in filled[0].context
    assert filled[2].context == pairs[2].context
    before = file.read_bytes()
    with pytest.raises(DataFault, match="not written over"):
        pin(file, some, {"text": (by_text, store)})
    assert file.read_bytes() == before


def test_captions_of_training_are_pinned_for_every_split(backbone: Path, tmp_path: Path) -> None:
    """By the command's own function, on a set with captions and on one without."""
    lines: list[Any] = [
        {"task": "ner", "schema": {"types": [{"name": "PER", "title": "person", "guideline": "people"}]}}
    ]
    for number, (split, caption) in enumerate(
        [("train", "a red shirt"), ("train", "the finals in Oakland"), ("test", "a blue shirt with Kawhi")]
    ):
        gold: dict[str, Any] = {"entities": []}
        context = {"caption": caption}
        lines.append(
            {"id": f"{split}{number}", "text": "green cotton", "split": split, "context": context, "gold": gold}
        )
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    told: list[tuple[int, int]] = []
    counts = pin_captions(
        str(data), tmp_path / "e.jsonl", str(backbone), count=2, least=-1.0, said=lambda *at: told.append(at)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert counts["examples"] == 3
    pinned = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert {row["id"] for row in pinned} == {"train0", "train1", "test2"}
    assert not any("blue" in row["text"] for row in pinned)  # the test split's caption is in no store
    assert "a red shirt" not in pinned[0]["text"].split(" ; ")  # its own caption is no evidence
    for line in lines[1:]:
        line["context"] = {}
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(DataFault, match="no captions"):
        pin_captions(str(data), tmp_path / "other.jsonl", str(backbone))
