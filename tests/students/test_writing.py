"""Writing an answer: trie, beam search, pointer and the head that joins them, against plain enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.students.collate import Text
from magister.students.encoders import seq2seq
from magister.students.heads.beam import Beam, search
from magister.students.heads.pointer import Pointer
from magister.students.heads.trie import Trie
from magister.students.heads.writing import IGNORED, Memory, Writer, targets

END = 0


def every(trie: Trie, ids: tuple[int, ...] = ()) -> dict[tuple[int, ...], str]:
    """Every answer in a trie, by following what it says is legal."""
    found = {}
    for token in trie.legal(ids):
        found |= {ids: trie.answer(ids)} if token == trie.end else every(trie, (*ids, token))
    return found


# --- trie ---


def test_a_trie_holds_its_answers_and_keeps_the_first() -> None:
    trie = Trie(END)
    for ids, answer in (((5, 6), "long"), ((5,), "short"), ((5, 6), "again"), ((7,), "")):
        trie.add(ids, answer)
    assert every(trie) == {(5, 6): "long", (5,): "short", (7,): ""}
    assert sorted(trie.legal((5,))) == [END, 6]
    assert trie.legal((6,)) == trie.legal((5, 6, END)) == trie.legal((5, END)) == []
    assert trie.words() == [END, 5, 6, 7]
    with pytest.raises(KeyError):
        trie.answer((9,))


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=8), st.integers(1, 6))
def test_a_trie_of_spans_holds_exactly_the_spans(pieces: list[list[int]], longest: int) -> None:
    written = "".join(chr(97 + i) for i in range(len(pieces)))
    text = Text(tuple(map(tuple, pieces)), tuple((i, i + 1) for i in range(len(pieces))), (0,) * len(pieces))
    trie = Trie(END)
    trie.add_spans(text, written, longest)
    expected: dict[tuple[int, ...], str] = {}
    for i, j in itertools.combinations(range(len(pieces) + 1), 2):
        ids = tuple(itertools.chain(*pieces[i:j]))
        if len(ids) <= longest:
            expected.setdefault(ids, written[i:j])
    assert every(trie) == expected


# --- beam search ---


def table(seed: int, words: int) -> torch.Tensor:
    """Log probabilities of each word after each word."""
    return torch.randn(words, words, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(1)


def follow(logs: torch.Tensor) -> Any:
    """An `expand` that reads the table; word 0 is the end, and what stands before an answer."""
    return lambda beams: [list(enumerate(logs[b.ids[-1] if b.ids else 0].tolist())) for b in beams]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(0, 3))
def test_a_wide_beam_finds_the_best(seed: int, words: int, longest: int) -> None:
    logs = table(seed, words)
    scores = {}
    for length in range(longest + 1):
        for ids in itertools.product(range(1, words), repeat=length):
            scores[ids] = sum(logs[a, b].item() for a, b in itertools.pairwise((0, *ids, 0)))
    wide = words**longest
    (found,) = search(follow(logs), [wide], longest, END)
    assert found is not None
    assert found[1] == pytest.approx(max(scores.values()), abs=1e-5)
    assert scores[found[0]] == pytest.approx(found[1], abs=1e-5)


def test_a_beam_of_one_is_greedy_and_parents_are_places_in_the_step_before() -> None:
    logs = {(): [(1, -0.1), (2, -2.4)], (1,): [(END, -3.0)], (2,): [(END, -0.01)]}
    steps: list[list[Beam]] = []

    def expand(beams: Any) -> Any:
        steps.append(list(beams))
        return [logs[b.ids] for b in beams]

    greedy, wide = search(expand, [1, 2], 5, END)
    assert greedy == ((1,), pytest.approx(-3.1))
    assert wide == ((2,), pytest.approx(-2.41))
    assert [b.parent for b in steps[0]] == [0, 1]
    assert [(b.item, b.ids, b.parent) for b in steps[1]] == [(0, (1,), 0), (1, (1,), 1), (1, (2,), 1)]


def test_what_does_not_end_is_no_answer() -> None:
    assert search(lambda beams: [[(3, -0.1)] for _ in beams], [2], 4, END) == [None]


# --- pointer ---


@pytest.mark.parametrize("all_rows", [True, False])
def test_a_pointer_mixes_writing_and_copying(all_rows: bool) -> None:
    torch.manual_seed(0)
    pointer = Pointer(width=4, hidden=6)
    states, memory = torch.randn(2, 3, 4), torch.randn(2, 5, 6)
    source = torch.tensor([[3, 1, 3, 0, -1], [2, 2, -1, -1, -1]])
    words = torch.arange(4) if all_rows else torch.arange(4).expand(2, 4)
    log_vocabulary = torch.randn(2, 3, 4).log_softmax(-1)
    found = pointer(states, memory, source, log_vocabulary, words).exp()
    assert torch.allclose(found.sum(-1), torch.ones(2, 3), atol=1e-5)
    for n, step in itertools.product(range(2), range(3)):
        places = [i for i in range(5) if source[n, i] >= 0]
        scores = [pointer.query(states[n, step]) @ pointer.key(memory[n, i]) / 2 for i in places]
        attention = torch.stack(scores).softmax(0)
        context = sum(a * memory[n, i] for a, i in zip(attention, places, strict=True))
        p = pointer.write(torch.cat([states[n, step], torch.as_tensor(context)])).sigmoid().item()
        for word in range(4):
            copied = sum(a.item() for a, i in zip(attention, places, strict=True) if source[n, i] == word)
            expected = p * log_vocabulary[n, step, word].exp().item() + (1 - p) * copied
            assert found[n, step, word].item() == pytest.approx(expected, abs=1e-5)


def test_a_pointer_leaves_out_words_that_a_row_does_not_have() -> None:
    torch.manual_seed(0)
    pointer = Pointer(4, 4)
    states, memory, source = torch.randn(1, 2, 4), torch.randn(1, 3, 4), torch.tensor([[7, 8, -1]])
    logs = torch.tensor([0.25, 0.75]).log().expand(1, 2, 2)
    few = pointer(states, memory, source, logs, torch.tensor([[7, 8]]))
    padded = torch.cat([logs, torch.full((1, 2, 1), -torch.inf)], -1)
    more = pointer(states, memory, source, padded, torch.tensor([[7, 8, -1]]))
    assert torch.allclose(few, more[..., :2])
    assert (more[..., 2] < -50).all()


# --- the head ---


@pytest.fixture(params=["tiny_bert", "tiny_t5"])
def encoder(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return seq2seq.load(request.getfixturevalue(request.param)).eval()


def remember(encoder: Any) -> Memory:
    """Two items, the second padded."""
    source = torch.randint(5, 60, (2, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    return Memory(encoder(source, mask), mask, source)


def tries_of(memory: Memory, end: int) -> list[Trie]:
    made = []
    for n in range(2):
        own = [int(token) for token, there in zip(memory.source[n], memory.mask[n], strict=True) if there]
        trie = Trie(end)
        trie.add_spans(Text(tuple((t,) for t in own), tuple((i, i + 1) for i in range(len(own))), ()), "abcdef", 3)
        trie.add((61, 62), "")
        made.append(trie)
    return made


@pytest.mark.parametrize("copying", [True, False])
@torch.no_grad()
def test_bounded_answers_sum_to_one_and_search_finds_the_best(encoder: Any, copying: bool) -> None:
    """The search decodes step by step with a cache, the reference each answer at once."""
    writer, memory = Writer(encoder, copying).eval(), remember(encoder)
    tries = tries_of(memory, encoder.end)
    best = writer.write(encoder, memory, tries, [50, 50], 5)
    for n, trie in enumerate(tries):
        answers = list(every(trie))
        told = targets(encoder, answers, [trie] * len(answers))
        logs = writer(encoder, memory.of(torch.full((len(answers),), n)), told)
        assert logs.exp().sum().item() == pytest.approx(1, abs=1e-4)
        found = best[n]
        assert found is not None
        assert found[0] == answers[int(logs.argmax())]
        assert found[1] == pytest.approx(logs.max().item(), abs=1e-4)


@pytest.mark.parametrize("copying", [True, False])
@torch.no_grad()
def test_free_answers_score_as_they_are_learned(encoder: Any, copying: bool) -> None:
    """A beam as wide as the vocabulary finds the best of all answers of at most one sub-token."""
    writer, memory = Writer(encoder, copying).eval(), remember(encoder)
    size = encoder.embeddings.num_embeddings
    answers = [(), *((token,) for token in range(size) if token != encoder.end)]
    told = targets(encoder, answers, [None] * len(answers))
    best = writer.write(encoder, memory, [None, None], [size, size], 1)
    for n, found in enumerate(best):
        logs = writer(encoder, memory.of(torch.full((len(answers),), n)), told)
        assert found is not None
        assert found[0] == answers[int(logs.argmax())]
        assert found[1] == pytest.approx(logs.max().item(), abs=1e-4)


@torch.no_grad()
def test_padding_changes_no_probability(encoder: Any) -> None:
    writer, memory = Writer(encoder, True).eval(), remember(encoder)
    tries = tries_of(memory, encoder.end)
    answers = [(int(memory.source[0, 0]),), (61, 62)]
    both = writer(encoder, memory, targets(encoder, answers, tries))
    for n in range(2):
        alone = Memory(*(part[n : n + 1, : int(memory.mask[n].sum())] for part in memory))
        one = writer(encoder, alone, targets(encoder, answers[n : n + 1], tries[n : n + 1]))
        assert one.item() == pytest.approx(both[n].item(), abs=1e-4)
        assert math.isfinite(one.item())


def test_targets_of_bounded_answers(encoder: Any) -> None:
    trie = Trie(encoder.end)
    trie.add((61, 62), "a")
    trie.add((63,), "b")
    told = targets(encoder, [(61, 62), (63,)], [trie, trie])
    words = told["words"][0].tolist()
    said = [[words[t] for t in row if t != IGNORED] for row in told["targets"].tolist()]
    assert said == [[61, 62, encoder.end], [63, encoder.end]]
    legal = [[[words[i] for i in step.nonzero()[:, 0]] for step in row] for row in told["legal"]]
    assert [sorted(step) for step in legal[0]] == [[61, 63], [62], [encoder.end]]
    assert sorted(legal[1][2]) == sorted(words)  # behind the end, where nothing is learned
