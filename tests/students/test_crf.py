"""The CRF against enumeration of all tag sequences, and against pytorch-crf."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchcrf
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.students.heads.crf import CRF
from magister.students.heads.tags import Tags
from torch import Tensor


def sequence_scores(crf: CRF, emissions: Tensor, length: int) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Score of every tag sequence of one sentence, in double precision, by the definition."""
    start, end, moves = (p.double() for p in (crf.start_transitions, crf.end_transitions, crf.transitions))
    paths = list(itertools.product(range(crf.num_tags), repeat=length))
    scores = []
    for path in paths:
        score = start[path[0]] + end[path[-1]]
        for i, tag in enumerate(path):
            score = score + emissions[i, tag].double()
            if i:
                score = score + moves[path[i - 1], tag]
        scores.append(score)
    return torch.stack(scores), paths


def ragged(batch: int, words: int) -> Tensor:
    lengths = torch.randint(1, words + 1, (batch, 1))
    lengths[0] = words
    return torch.arange(words) < lengths


def random_crf(tags: int, spread: float = 1.0) -> CRF:
    crf = CRF(tags)
    with torch.no_grad():
        for p in crf.parameters():
            p.normal_(std=spread)
    return crf


@settings(max_examples=25, deadline=None)
@given(words=st.integers(1, 5), tags=st.integers(1, 4), seed=st.integers(0, 10**6), wide=st.booleans())
def test_enumeration(words: int, tags: int, seed: int, wide: bool) -> None:
    """Partition, likelihood, Viterbi, marginals and their gradients; ``wide`` takes the log-space way."""
    torch.manual_seed(seed)
    crf = random_crf(tags, 60.0 if wide else 1.0)
    mask = ragged(3, words)
    emissions = torch.randn(3, words, tags, requires_grad=True)
    gold = torch.randint(tags, (3, words))
    log_z, nll, q = (
        crf.log_partition(emissions, mask),
        crf.nll(emissions, gold, mask),
        crf.marginals(emissions, mask),
    )
    best = crf.viterbi(emissions, mask)
    weight = torch.randn(3, words, tags)
    slow = torch.zeros((), dtype=torch.double)
    for b in range(3):
        n = int(mask[b].sum())
        scores, paths = sequence_scores(crf, emissions[b], n)
        expected = torch.logsumexp(scores, 0)
        torch.testing.assert_close(log_z[b].double(), expected, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(
            nll[b].double(), expected - scores[paths.index(tuple(gold[b, :n].tolist()))], rtol=1e-5, atol=2e-4
        )
        chosen = scores[paths.index(tuple(best[b]))]
        assert chosen > scores.max() - 1e-4
        for i, k in itertools.product(range(n), range(tags)):
            through = torch.tensor([path[i] == k for path in paths])
            expected_q = torch.logsumexp(scores[through], 0) - expected
            torch.testing.assert_close(q[b, i, k].double(), expected_q, rtol=1e-5, atol=3e-4)
            # A probability's size weighs the gradient, as it does in a KL term.
            slow = slow + weight[b, i, k] * expected_q.exp()
        assert not q[b, n:].any()
    fast = (weight * q.exp() * mask[..., None]).sum()
    inputs = [emissions, *crf.parameters()]
    by_scan = torch.autograd.grad(fast, inputs)
    by_definition = torch.autograd.grad(slow, inputs, materialize_grads=True)
    for ours, theirs in zip(by_scan, by_definition, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3 if wide else 1e-4)


@settings(max_examples=15, deadline=None)
@given(words=st.integers(1, 4), tags=st.integers(1, 3), seed=st.integers(0, 10**6), wide=st.booleans())
def test_moves_by_enumeration(words: int, tags: int, seed: int, wide: bool) -> None:
    """The posterior of each move, with start and end, and its gradient."""
    torch.manual_seed(seed)
    crf = random_crf(tags, 60.0 if wide else 1.0)
    mask = ragged(3, words)
    emissions = torch.randn(3, words, tags, requires_grad=True)
    q, there = crf.pair_marginals(emissions, mask)
    assert q.shape == (3, words + 1, tags, tags)
    assert there.sum(1).tolist() == (mask.sum(1) + 1).tolist()
    weight = torch.randn(3, words + 1, tags, tags)
    slow = torch.zeros((), dtype=torch.double)
    for b in range(3):
        n = int(mask[b].sum())
        scores, paths = sequence_scores(crf, emissions[b], n)
        expected = torch.zeros(words + 1, tags, tags, dtype=torch.double)
        for share, path in zip(scores.softmax(0), paths, strict=True):
            moves = enumerate(itertools.pairwise(path), 2)
            for move in [(0, 0, path[0]), (1, path[-1], 0), *((i, *pair) for i, pair in moves)]:
                at = torch.zeros_like(expected)
                at[move] = 1.0
                expected = expected + share * at
        torch.testing.assert_close(q[b, : n + 1].exp().double(), expected[: n + 1], rtol=1e-3, atol=1e-4)
        assert not q[b, n + 1 :].any()
        slow = slow + (weight[b].double() * expected)[: n + 1].sum()
    fast = (weight * q.exp() * there[..., None, None]).sum()
    inputs = [emissions, *crf.parameters()]
    by_scan = torch.autograd.grad(fast, inputs, materialize_grads=True)
    by_definition = torch.autograd.grad(slow, inputs, materialize_grads=True)
    for ours, theirs in zip(by_scan, by_definition, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3 if wide else 1e-4)


def twins(tags: int, spread: float) -> tuple[CRF, torchcrf.CRF]:
    ours, theirs = random_crf(tags, spread), torchcrf.CRF(tags, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("spread", [0.1, 3.0, 200.0])
def test_equals_pytorch_crf(spread: float) -> None:
    torch.manual_seed(0)
    ours, theirs = twins(9, spread)
    emissions = (3 * torch.randn(8, 40, 9)).requires_grad_()
    gold, mask = torch.randint(9, (8, 40)), ragged(8, 40)
    mine = ours.nll(emissions, gold, mask)
    other = -theirs(emissions, gold, mask, reduction="none")
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)
    assert ours.viterbi(emissions, mask) == theirs.decode(emissions, mask)
    first = torch.autograd.grad(mine.sum(), [emissions, *ours.parameters()])
    second = torch.autograd.grad(other.sum(), [emissions, *theirs.parameters()])
    for a, b in zip(first, second, strict=True):
        # Both err by some 5e-5 against double precision at a spread of 3.
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 if spread > 10 else 3e-4)


@pytest.mark.parametrize("size", [30.0, 300.0])
def test_extreme_emissions_stay_finite(size: float) -> None:
    """Sharp emissions of a confident tagger: nothing under- or overflows, in value or gradient."""
    torch.manual_seed(1)
    ours, theirs = twins(5, 2.0)
    emissions = (size * torch.randn(4, 60, 5)).requires_grad_()
    gold, mask = torch.randint(5, (4, 60)), ragged(4, 60)
    mine = ours.nll(emissions, gold, mask)
    torch.testing.assert_close(mine, -theirs(emissions, gold, mask, reduction="none"), rtol=1e-5, atol=1e-2)
    q = ours.marginals(emissions, mask)
    assert torch.isfinite(q).all()
    torch.testing.assert_close(q.exp().sum(-1)[mask], torch.ones(int(mask.sum())))
    (mine.sum() + q.clamp(min=-50).sum()).backward()
    assert torch.isfinite(emissions.grad).all()


def test_marginals_are_the_gradient_of_log_z() -> None:
    torch.manual_seed(2)
    crf, emissions, mask = random_crf(9), torch.randn(4, 30, 9, requires_grad=True), ragged(4, 30)
    (gradient,) = torch.autograd.grad(crf.log_partition(emissions, mask).sum(), emissions)
    torch.testing.assert_close(gradient, crf.marginals(emissions, mask).exp() * mask[..., None], rtol=1e-4, atol=1e-5)


def test_padding_is_never_read() -> None:
    torch.manual_seed(3)
    crf, emissions, mask = (
        random_crf(4),
        torch.randn(3, 7, 4),
        torch.arange(7) < torch.tensor([[7], [2], [4]]),
    )
    gold = torch.randint(4, (3, 7))
    spoilt, ignored = emissions.masked_fill(~mask[..., None], float("nan")), gold.masked_fill(~mask, -100)
    assert torch.equal(crf.nll(emissions, gold, mask), crf.nll(spoilt, ignored, mask))
    assert torch.equal(crf.marginals(emissions, mask), crf.marginals(spoilt, mask))
    assert crf.viterbi(emissions, mask) == crf.viterbi(spoilt, mask)
    alone = crf.nll(emissions[1:2, :2], gold[1:2, :2], mask[1:2, :2])
    torch.testing.assert_close(crf.nll(emissions, gold, mask)[1:2], alone)


def test_bf16_is_computed_in_fp32() -> None:
    torch.manual_seed(4)
    crf, emissions = random_crf(9), torch.randn(2, 20, 9).bfloat16().requires_grad_()
    mask, gold = ragged(2, 20), torch.randint(9, (2, 20))
    expected = crf.nll(emissions.float(), gold, mask)
    with torch.autocast("cpu", torch.bfloat16):
        loss = crf.nll(emissions, gold, mask)
        loss.sum().backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    (gradient,) = torch.autograd.grad(expected.sum(), emissions)
    assert torch.equal(emissions.grad, gradient)


def test_illegal_transitions_are_forbidden_at_decoding() -> None:
    allowed = Tags(("PER", "LOC")).legal()
    assert allowed.shape == (6, 5)
    assert allowed[:, [0, 1, 3]].all()
    assert allowed[:, 2].tolist() == [False, True, True, False, False, False]
    assert allowed[:, 4].tolist() == [False, False, False, True, True, False]
    torch.manual_seed(5)
    crf, emissions, mask = random_crf(5), 3 * torch.randn(12, 4, 5), ragged(12, 4)
    free, bound = crf.viterbi(emissions, mask), crf.viterbi(emissions, mask, allowed)
    assert free != bound
    for b, path in enumerate(bound):
        scores, paths = sequence_scores(crf, emissions[b], len(path))
        legal = [all(allowed[i, j] for i, j in zip((5, *p), p, strict=False)) for p in paths]
        assert paths[int(scores.masked_fill(~torch.tensor(legal), -torch.inf).argmax())] == tuple(path)


def test_bad_input_is_named() -> None:
    crf, emissions = CRF(3), torch.zeros(2, 4, 3)
    full = torch.ones(2, 4, dtype=torch.bool)
    hole = full.clone()
    hole[0, 1] = False
    with pytest.raises(ValueError, match="first word to its last"):
        crf.log_partition(emissions, hole)
    with pytest.raises(ValueError, match="needs a word"):
        crf.log_partition(emissions, full & torch.tensor([[True], [False]]))
    with pytest.raises(ValueError, match="bool"):
        crf.log_partition(emissions, full.long())
    with pytest.raises(ValueError, match="3 tags"):
        crf.log_partition(torch.zeros(2, 4, 5), full)
    with pytest.raises(ValueError, match="no tag sequence"):
        crf.viterbi(emissions, full, torch.zeros(4, 3, dtype=torch.bool))
