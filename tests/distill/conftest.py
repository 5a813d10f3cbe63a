"""A tiny random backbone, a tiny data set with knowledge, and a recipe that trains in a second."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch = pytest.importorskip("torch")

from magister.distill.recipe import Recipe, check  # noqa: E402
from magister.tasks import ner  # noqa: E402
from magister.tasks.dataset import Dataset  # noqa: E402
from magister.tasks.readers import jsonl  # noqa: E402

PEOPLE = ["Ada", "Bo", "Cleo", "Dag", "Eve", "Finn"]
PLACES = ["Oslo", "Rome", "Kyoto", "Lima", "Quito", "Bern"]
OTHER = ["went", "to", "saw", "from", "with", "today", "again", "the", "sea", "train", "and", "near"]
SCHEMA = ner.Schema(
    types=(
        ner.EntityType(name="PER", title="person", guideline="Name of a human being."),
        ner.EntityType(name="LOC", title="place", guideline="Name of a place."),
    )
)


def example(number: int, words: list[str]) -> ner.Example:
    """A sentence whose people and places are its entities."""
    entities, at = [], 0
    for word in words:
        kind = "PER" if word in PEOPLE else "LOC" if word in PLACES else ""
        if kind:
            entities.append(ner.Entity(text=word, type=kind, start=at, end=at + len(word)))
        at += len(word) + 1
    gold = ner.Answer(entities=tuple(entities))
    return ner.Example(id=f"e{number}", text=" ".join(words), words=tuple(words), gold=gold)


def examples(count: int, seed: int = 0) -> list[ner.Example]:
    """Random sentences of 3 to 14 words."""
    rng = random.Random(seed)
    return [example(seed * 1000 + i, rng.choices(PEOPLE + PLACES + OTHER, k=rng.randint(3, 14))) for i in range(count)]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights and a vocabulary of whole words."""
    from magister.models.torchvision_guard import guard

    guard()
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("backbone")
    letters = sorted({c for w in PEOPLE + PLACES + OTHER for c in w.lower()})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    words += [w.lower() for w in PEOPLE + PLACES + OTHER] + ["is", "person", "place"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data.jsonl`` (48 / 12 / 12 sentences) and ``knowledge.jsonl.gz`` for all but one of
    them.
    """
    folder = tmp_path_factory.mktemp("data")
    splits = {"train": examples(48, 1), "valid": examples(12, 2), "test": examples(12, 3)}
    made = Dataset("tiny", "ner", SCHEMA, {k: tuple(v) for k, v in splits.items()})
    jsonl.write(made, folder / "data.jsonl")
    other = Dataset("other", "ner", SCHEMA, {"train": tuple(examples(20, 4) + splits["test"][:2])})
    jsonl.write(other, folder / "other.jsonl")
    for name, dataset in (("knowledge", made), ("other_knowledge", other)):
        everything = [e for split in dataset.splits.values() for e in split]
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            for e in everything[1:]:
                titles = {"PER": "person", "LOC": "place"}
                said = " ".join(f"{x.text} is {titles[x.type]}" for x in e.gold.entities) or "the sea"
                file.write(json.dumps({"id": e.id, "text": said}) + "\n")
    return folder


@pytest.fixture
def settings(backbone: Path, corpus: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a run of 2 epochs of 6 steps, in fp32."""
    return {
        "task": "ner",
        "backbone": str(backbone),
        "data": str(corpus / "data.jsonl"),
        "lora_rank": 4,
        "lora_alpha": 8,
        "epochs": 2,
        "batch_size": 8,
        "precision": "fp32",
        "threads": 1,
        "output": str(tmp_path / "run"),
    }


@pytest.fixture
def recipe(settings: dict[str, Any]) -> Recipe:
    """The recipe of `settings`."""
    return check(settings)


def losses(folder: Path) -> dict[int, float]:
    """The loss of each step in a run's log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}
