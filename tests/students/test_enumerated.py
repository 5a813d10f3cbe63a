"""Enumerated spans: which there are, and their scores, against plain loops."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from magister.students.heads.enumerated import SpanMLP, enumerate_spans


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 9))
def test_all_spans_of_a_text_and_no_others(lengths: list[int], longest: int) -> None:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    last, there = enumerate_spans(mask, longest)
    for text, length in enumerate(lengths):
        found = {(i, int(last[i, more])) for i, more in there[text].nonzero().tolist()}
        assert found == {(i, j) for i in range(length) for j in range(i, min(i + longest, length))}
        assert int(there[text].sum()) == len(found)


def test_scores_are_those_of_both_states_side_by_side() -> None:
    torch.manual_seed(0)
    scorer, words = SpanMLP(4, 5, 2, 3).eval(), torch.randn(2, 6, 4)
    last, there = enumerate_spans(torch.ones(2, 6, dtype=torch.bool), 3)
    scores = scorer(words, last)
    weight = torch.cat([scorer.first.weight, scorer.last.weight], 1)
    for text, i, more in there.nonzero().tolist():
        pair = torch.cat([words[text, i], words[text, i + more]])
        torch.testing.assert_close(scores[text, i, more], scorer.rest(weight @ pair + scorer.first.bias))
