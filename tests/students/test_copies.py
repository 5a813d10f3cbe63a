"""Links from words to their copies in the side text."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from magister.students.fusion.copies import COMMON, CopyReader, copies, tells


def test_longest_run_wins_and_function_words_need_company() -> None:
    # text: new(1) york(2,3) of(4) new(1) orleans(5); side: of(4) . new york(1,2,3) is new(1)
    words = [(1,), (2, 3), (4,), (1,), (5,)]
    single = [True, True, False, True, True]
    assert copies(words, [4, 9, 1, 2, 3, 8, 1], single) == [(0, 2), (1, 3), (1, 4), (0, 6)]


def test_a_torn_word_is_no_copy() -> None:
    assert copies([(7, 8)], [7, 9, 8, 7], [True]) == []


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=2), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), max_size=20),
)
def test_each_pair_repeats_the_word_and_no_position_is_used_twice(words: list[list[int]], side: list[int]) -> None:
    pairs = copies(words, side, [True] * len(words))
    positions = [position for _, position in pairs]
    assert len(set(positions)) == len(positions)
    assert all(side[position] in words[word] for word, position in pairs)
    # Every sub-token sequence of a whole word somewhere in the side text starts a run or lies inside one.
    if any(side[i : i + len(w)] == w for w in words for i in range(len(side))):
        assert pairs


def test_tells() -> None:
    assert tells("Leonard", COMMON)
    assert not tells("The", COMMON)
    assert not tells("#", COMMON)
    assert not tells("of", COMMON)


def test_reader_is_the_mean_and_starts_as_identity() -> None:
    torch.manual_seed(0)
    reader = CopyReader(4)
    words, states = torch.randn(1, 2, 4), torch.randn(1, 2, 3, 4)
    mask = torch.tensor([[[True, True, False], [False, False, False]]])
    assert torch.equal(reader(words, states, mask), words)
    torch.nn.init.normal_(reader.project.weight)
    read = reader(words, states, mask)
    expected = words[0, 0] + reader.project.weight @ ((states[0, 0, 0] + states[0, 0, 1]) / 2)
    torch.testing.assert_close(read[0, 0], expected)
    assert torch.equal(read[0, 1], words[0, 1])
