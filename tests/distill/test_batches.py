"""Subsets are nested, knowledge is joined, steps are deterministic and bucketed by length."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.distill import batches
from magister.tasks.task import DataFault

from .conftest import examples


@given(st.integers(1, 200), st.floats(0.01, 1), st.floats(0.01, 1))
def test_subsets_are_nested_and_keep_the_order(count: int, first: float, second: float) -> None:
    everything = examples(count)
    small, large = (batches.subset(everything, f) for f in sorted((first, second)))
    ids = [e.id for e in everything]
    assert {e.id for e in small} <= {e.id for e in large}
    assert [e.id for e in large] == [i for i in ids if i in {e.id for e in large}]
    assert len(large) == max(1, round(count * max(first, second)))


def test_a_limit_is_nested_too() -> None:
    everything = examples(50)
    assert {e.id for e in batches.subset(everything, 1, 5)} <= {e.id for e in batches.subset(everything, 0.5)}


def test_split_off_is_disjoint_and_depends_on_the_seed() -> None:
    rest, part = batches.split_off(examples(40), 0.25, seed=3)
    assert len(part) == 10
    assert not {e.id for e in rest} & {e.id for e in part}
    assert len(rest) == 30
    assert part == batches.split_off(examples(40), 0.25, seed=3)[1] != batches.split_off(examples(40), 0.25, seed=4)[1]


def test_join_counts_what_is_missing_and_refuses_other_data() -> None:
    joined, missing = batches.join(examples(3), {"e0": "a", "e1": "  "}, "k.jsonl")
    assert [e.context for e in joined] == [{"knowledge": "a"}, {}, {}]
    assert missing == 2
    with pytest.raises(DataFault, match=r"ids like 'e0'.*ids like 'x_9'"):
        batches.join(examples(3), {"x_9": "a"}, "k.jsonl")


def test_near_duplicates_are_found_under_case_links_and_marks() -> None:
    extra = examples(4, seed=5)
    reposted = f"RT @ someone : {extra[2].text.upper()} ! http : / / t . co / a1"
    kept, dropped = batches.without_duplicates(extra, [extra[0].model_copy(update={"text": reposted, "words": ()})])
    assert dropped == 1
    assert [e.id for e in kept] == [e.id for e in extra if e is not extra[2]]


@given(st.integers(1, 90), st.integers(1, 9), st.integers(0, 3), st.integers(1, 3))
def test_an_epoch_holds_every_example_once(count: int, size: int, epoch: int, processes: int) -> None:
    everything, size = examples(count), size * processes
    made = batches.steps(everything, size, 0, epoch, processes, window=3)
    assert Counter(e.id for step in made for e in step) == Counter(e.id for e in everything)
    assert made == batches.steps(everything, size, 0, epoch, processes, window=3)
    assert len(made) == len(batches.steps(everything, size, 1, epoch + 1, processes, window=3))
    if count >= processes:
        assert all(len(step) >= processes for step in made)


def test_steps_differ_by_epoch_and_are_bucketed() -> None:
    everything = examples(400)
    first, second = (batches.steps(everything, 8, 0, epoch) for epoch in (0, 1))
    assert first != second
    spread = [max(len(e.text) for e in s) - min(len(e.text) for e in s) for s in first]
    assert sum(spread) / len(spread) < 5, "similar lengths stand together"
    assert [len(s[0].text) for s in first] != sorted(len(s[0].text) for s in first), "but steps are shuffled"


def test_a_step_is_shared_without_loss_and_kinds_are_kept_apart() -> None:
    step = [*examples(7), *batches.without_gold(examples(4, seed=6))]
    parts = [micro for p in range(3) for micro in batches.share(step, p, 3, 2)]
    assert Counter(e.id for m in parts for e in m) == Counter(e.id for e in step)
    assert all(len({e.gold is None for e in m}) == 1 and len(m) <= 2 for m in parts)
