"""New examples of what a teacher wrote: labels projected, names exchanged, pictures imagined, and why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.distill import augment, batches, data, train
from magister.distill.recipe import RecipeFault, check
from magister.tasks import ner, relations
from magister.tasks.dataset import Dataset
from magister.tasks.images import Image
from magister.tasks.readers import jsonl
from magister.teachers.knowledge import corpus as corpora

from .conftest import SCHEMA, examples


def post(text: str, *entities: tuple[str, str], **more: Any) -> ner.Example:
    gold, at = [], 0
    for mention, kind in entities:
        at = text.index(mention, at)
        gold.append(ner.Entity(text=mention, type=kind, start=at, end=at + len(mention)))
        at += len(mention)
    answer = ner.Answer(entities=tuple(gold))
    return ner.Example(id="p", text=text, words=tuple(text.split(" ")), gold=answer, **more)


POST = post(
    "Kawhi Leonard left Toronto !",
    ("Kawhi Leonard", "PER"),
    ("Toronto", "LOC"),
    context={"caption": "I", "knowledge": "c"},
    images=(Image(source="1"),),
)


def tagged(example: Any) -> list[tuple[str, str]]:
    return [(e.text, e.type) for e in example.gold.entities]


def test_a_rewrite_carries_its_labels_along() -> None:
    found = augment.restyled(POST, "so long TORONTO, says\nKawhi Leonard")
    assert found.text == "so long TORONTO , says Kawhi Leonard"
    assert tagged(found) == [("TORONTO", "LOC"), ("Kawhi Leonard", "PER")]
    assert found.context == POST.context
    assert augment.restyled(post("no names here"), "nobody named").gold.entities == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Leonard left Toronto", "mention_missing"),
        ("Kawhi Leonard left Torontos", "mention_missing"),
        ("Kawhi Leonard left Toronto , poor toronto", "mention_repeated"),
        ("kawhi Leonard  left Toronto !", "unchanged"),
        ("  ", "unchanged"),
    ],
)
def test_a_rewrite_that_lost_a_name_is_refused(text: str, reason: str) -> None:
    assert augment.restyled(POST, text) == reason


def test_a_name_inside_another_is_refused() -> None:
    nested = post("York beats New York", ("York", "PER"), ("New York", "LOC"))
    assert augment.restyled(nested, "in New York") == "mentions_overlap"
    assert augment.restyled(nested, "York in New York") == "mention_repeated"


NAMES = ("Ada", "Bo Li", "J. R. Smith", "#NBA", "C++", "O'Neal", "Zoë", "São Paulo")
FILLERS = ("went", "to", "the", "sea", "and", "then", "…", "🙂")


@given(
    names=st.lists(st.sampled_from(NAMES), unique_by=str.casefold, min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    cases=st.lists(st.sampled_from([str.upper, str.lower, str.title, str]), min_size=4, max_size=4),
    marks=st.lists(st.sampled_from(["", "!", ",", "'s", ")"]), min_size=4, max_size=4),
    fault=st.sampled_from(["", "lost", "twice"]),
)
def test_projection_keeps_every_mention_or_refuses(
    names: list[str], order: Any, cases: list[Any], marks: list[str], fault: str
) -> None:
    """Whatever the order, case and marks around them: types go with their names, offsets and words fit."""
    kinds = {name: ("PER", "LOC", "ORG")[i % 3] for i, name in enumerate(names)}
    original = post(" ".join(w for name in names for w in (name, "went")), *kinds.items())
    written = [case(name) + mark for name, case, mark in zip(names, cases, marks, strict=False)]
    if fault == "lost":
        written = written[1:]
    elif fault == "twice":
        written = [names[0], *written]
    parts = [*written, *order.sample(FILLERS, 3)]
    order.shuffle(parts)
    found = augment.restyled(original, " ".join(parts))
    if fault:
        assert found == {"lost": "mention_missing", "twice": "mention_repeated"}[fault]
        return
    assert " ".join(found.words) == found.text
    assert len(found.gold.entities) == len(names)
    spans = ner.word_spans(found)
    for entity in found.gold.entities:
        assert kinds[next(n for n in names if n.casefold() == entity.text.casefold())] == entity.type
        assert entity.start in {a for a, _ in spans}
        assert entity.end in {b for _, b in spans}


def test_a_name_is_exchanged_by_its_offsets() -> None:
    found = augment.swapped(POST, "Toronto", '"San Antonio"', {})
    assert found.text == "Kawhi Leonard left San Antonio !"
    assert tagged(found) == [("Kawhi Leonard", "PER"), ("San Antonio", "LOC")]
    assert found.context == {"caption": "I"}  # what was said of the old name is not true of the new one
    twice = post("Rome , oh Rome , not Bern", ("Rome", "LOC"), ("Rome", "LOC"), ("Bern", "LOC"))
    moved = augment.swapped(twice, "Rome", "Oslo City", {})
    assert tagged(moved) == [("Oslo City", "LOC"), ("Oslo City", "LOC"), ("Bern", "LOC")]
    assert moved.text == "Oslo City , oh Oslo City , not Bern"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Toronto", "none", "no_name"),
        ("Toronto", "!!!", "no_name"),
        ("Toronto", "a whole sentence that is no name at all", "no_name"),
        ("Toronto", "toronto", "name_in_the_post"),
        ("Toronto", "Kawhi", "name_in_the_post"),
        ("Toronto", "Kyle Lowry", "another_type"),
        ("Raptors", "Spurs", "name_not_in_gold"),
    ],
)
def test_an_exchange_that_cannot_be_is_refused(old: str, new: str, reason: str) -> None:
    assert augment.swapped(POST, old, new, {"kyle lowry": {"PER"}}) == reason


def test_a_name_known_by_its_own_type_and_another_is_refused() -> None:
    types = augment.types_of([POST, post("Oakland in Oakland", ("Oakland", "LOC"), ("Oakland", "ORG"))])
    assert augment.swapped(POST, "Toronto", "Oakland", types) == "another_type"


def test_a_picture_is_imagined() -> None:
    found = augment.repictured(POST, " a man\nwaves ")
    assert found.context == {"knowledge": "c", "caption": "a man waves"}
    assert found.images == ()
    assert found.gold == POST.gold
    assert augment.repictured(POST, " ") == "no_caption"


def test_pairs_keep_their_order_and_relation() -> None:
    mention = lambda text, start: ner.Entity(text=text, type="", start=start, end=start + len(text))
    pair = relations.Example(
        id="r",
        text="Bo of Rome",
        words=("Bo", "of", "Rome"),
        pair=(mention("Rome", 6), mention("Bo", 0)),
        gold=relations.Answer(relation="home_of"),
    )
    found = augment.restyled(pair, "bo, who comes from rome")
    assert [m.text for m in found.pair] == ["rome", "bo"]
    assert found.gold == pair.gold
    assert augment.restyled(pair, "rome has bo") == "order_changed"
    assert [m.text for m in augment.swapped(pair, "Bo", "Ada Li", {}).pair] == ["Rome", "Ada Li"]


def rows_of(some: list[Any]) -> list[dict[str, Any]]:
    """Two rewrites and a swap of each example, as a corpus has them."""
    rows = []
    for e in some:
        base = {"id": e.id, "task": "ner", "sample": 0, "status": "kept", "repaired": False, "teacher": "t"}
        rows += [
            {**base, "prompt": "ner/rationale.style.v1", "text": f"today {e.text} again", "sample": n} for n in (0, 1)
        ]
        rows.append({**base, "prompt": "ner/rationale.image.v1", "text": "a train"})
        rows += [
            {**base, "prompt": "ner/rationale.entity.v1", "about": x.text, "text": "Zed"} for x in e.gold.entities[:1]
        ]
    return rows


def test_there_is_at_most_one_for_each_real_example() -> None:
    some = examples(6, 1)
    rows = rows_of([*some, *examples(3, 2)])  # those of other splits are passed over
    found, counts = augment.samples(some, rows, ["style", "entity", "image"])
    assert len(found) == 6
    assert len({e.id for e in found}) == 6
    assert sum(counts[f"augmented_{d}"] for d in augment.DIMENSIONS) == 6
    asked = sum(r["id"] in {e.id for e in some} for r in rows)
    assert counts.total() == asked
    only, _ = augment.samples(some, rows, ["image"])
    assert {e.context["caption"] for e in only} == {"a train"}


def test_training_ends_with_an_epoch_of_real_examples(
    settings: dict[str, Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = corpora.Card(name="more", source="made up", license="", notes={})
    corpora.build(tmp_path / "more", rows_of(examples(48, 1)), card)
    recipe = check(settings | {"augment": str(tmp_path / "more"), "augment_dimensions": ["image"]})
    sets = data.load(recipe)
    assert sets.counts["augmented_image"] == len(sets.augmented) == 48
    plans: list[list[str]] = []
    steps = batches.steps

    def spied(pool: Any, *rest: Any) -> Any:
        plans.append([e.id for e in pool])
        return steps(pool, *rest)

    monkeypatch.setattr(batches, "steps", spied)
    folder = train.train(recipe)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "loss" in line] == [0] * 12 + [1] * 6
    assert [line["step"] for line in lines if "validation" in line] == [12, 18]
    assert {len(plan) for plan in plans} == {96, 48}
    assert not any("+" in name for name in plans[-1])
    with pytest.raises(RecipeFault, match="2 epochs"):
        check(settings | {"augment": "c", "epochs": 1})


def test_another_sets_test_examples_are_taken_out_of_training(settings: dict[str, Any], tmp_path: Path) -> None:
    shared = [e.model_copy(update={"id": f"x{e.id}"}) for e in examples(48, 1)[:3]]
    jsonl.write(Dataset("o", "ner", SCHEMA, {"test": (*shared, *examples(5, 9))}), tmp_path / "o.jsonl")
    spec = str(tmp_path / "o.jsonl")
    sets = data.load(check(settings | {"without": spec}))
    assert sets.counts[f"train_near_duplicates_of_{spec}_dropped"] == 3
    assert sets.counts["train"] == 45
