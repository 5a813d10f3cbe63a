"""Linear-chain conditional random field over the words of a sentence (Lafferty et al., ICML 2001)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class CRF(nn.Module):
    """Scores a tag sequence ``y``: ``start[y_1] + sum_i E[i, y_i] + sum_i A[y_i-1, y_i] + end[y_n]``.

    ``B`` sentences, ``W`` words, ``K`` tags. Everything is computed in fp32, whatever the emissions' type.
    A mask is True on a sentence's words and False on the padding behind them; a sentence has at least one
    word. Tags under the padding are not read (``-100`` is fine). The parameters have the names and shapes
    of ``pytorch-crf``'s.
    """

    def __init__(self, num_tags: int) -> None:
        super().__init__()
        self.num_tags = num_tags
        self.start_transitions = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        self.end_transitions = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags).uniform_(-0.1, 0.1))

    def nll(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Negative log likelihood (nats) of the tags: ``[B, W, K]``, ``[B, W]``, ``[B, W]`` to ``[B]``."""
        emissions, lengths = _checked(emissions, mask, self.num_tags)
        return self._log_partition(emissions, lengths) - self._score(emissions, tags, mask, lengths)

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """``log Z``, the log of the sum of ``exp(score)`` over all sequences: ``[B, W, K]`` to ``[B]``."""
        return self._log_partition(*_checked(emissions, mask, self.num_tags))

    def marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log posterior of each tag at each word, ``log q(y_i = k | x)``: ``[B, W, K]``; 0 under the padding.

        Differentiable once: the soft targets of cross-view distillation (ITA, Wang et al., NAACL 2022). The
        backward recursion is the forward one over the sentence read from its end, so both run as one scan.
        """
        emissions, lengths = _checked(emissions, mask, self.num_tags)
        forward, backward = self._both_ways(emissions, lengths)
        # Both directions hold the word's own emission: it counts once.
        return (forward + backward - emissions).log_softmax(-1).masked_fill(~mask[..., None], 0.0)

    def pair_marginals(self, emissions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log posterior of each move: ``[B, W + 1, K, K]``, from tag to tag, and which moves there are.

        Move 0 goes from the start of the sentence (row 0; the other rows are ``-inf``), move 1 to its end (column 0),
        and move ``i + 1`` from word ``i`` to the next, counted from 1: ``log q(y_i = a, y_i+1 = b | x)``.
        Differentiable once.
        """
        emissions, lengths = _checked(emissions, mask, self.num_tags)
        forward, backward = self._both_ways(emissions, lengths)
        moves = (forward[:, :-1, :, None] + self.transitions + backward[:, 1:, None]).flatten(2)
        moves = moves.log_softmax(-1).unflatten(2, (self.num_tags, self.num_tags))
        words = (forward + backward - emissions).log_softmax(-1)
        last = words.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, self.num_tags))
        rest = self.num_tags - 1
        start = nn.functional.pad(words[:, :1], (0, 0, 0, rest), value=-torch.inf)[:, None]
        end = nn.functional.pad(last.transpose(1, 2), (0, rest), value=-torch.inf)[:, None]
        there = torch.cat([mask.new_ones(len(mask), 2), mask[:, 1:]], 1)
        return torch.cat([start, end, moves], 1).masked_fill(~there[..., None, None], 0.0), there

    def _both_ways(self, emissions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Forward and backward variables ``[B, W, K]``, each with the word's own emission in it."""
        words = emissions.shape[1]
        steps = torch.arange(words, device=emissions.device)[:, None]
        mirror = (lengths - 1 - steps).remainder(words)[..., None].expand(-1, -1, self.num_tags)  # [W, B, K]
        ahead = emissions.transpose(0, 1)
        both = torch.stack([ahead, ahead.gather(0, mirror)], dim=1)  # [W, 2, B, K]
        first = both[0] + torch.stack([self.start_transitions, self.end_transitions])[:, None]
        forward, backward = _scan(first, both, torch.stack([self.transitions, self.transitions.T])).unbind(1)
        return forward.transpose(0, 1), backward.gather(0, mirror).transpose(0, 1)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor, allowed: Tensor | None = None) -> list[list[int]]:
        """The best tag sequence of each sentence, as long as the sentence.

        Args:
            emissions: ``[B, W, K]``.
            mask: ``[B, W]``.
            allowed: bool ``[K + 1, K]``: which tag (column) may follow which (row; the last row is the start
                of a sentence), such as `tags.Tags.legal` gives. It binds the decoding alone; training stays free.

        Raises:
            ValueError: a mask with holes, an empty sentence, or no sequence is allowed.
        """
        emissions, lengths = _checked(emissions, mask, self.num_tags)
        # On the host, with numpy: a step has few numbers, and a call of torch costs more than they do.
        weights = (emissions, self.transitions, self.start_transitions, self.end_transitions)
        scores, moves, first, last = (t.detach().float().cpu().numpy() for t in weights)
        if allowed is not None:
            forbidden = ~allowed.cpu().numpy()
            moves = np.where(forbidden[:-1], -np.inf, moves)
            first = np.where(forbidden[-1], -np.inf, first)
        return _best_paths(scores, lengths.cpu().numpy(), moves, first, last)

    def _log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        emissions = emissions.transpose(0, 1)
        alpha = _scan(emissions[0] + self.start_transitions, emissions, self.transitions)
        ends = alpha.gather(0, (lengths - 1)[None, :, None].expand(1, -1, self.num_tags))[0]
        return torch.logsumexp(ends + self.end_transitions, dim=-1)

    def _score(self, emissions: Tensor, tags: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        tags = tags.masked_fill(~mask, 0)
        words = emissions.gather(2, tags[..., None])[..., 0].masked_fill(~mask, 0.0)
        pairs = tags[:, :-1] * self.num_tags + tags[:, 1:]
        # index_select: the gradient of plain indexing is several times slower.
        moves = self.transitions.flatten().index_select(0, pairs.flatten()).view_as(pairs)
        first = self.start_transitions.index_select(0, tags[:, 0])
        last = self.end_transitions.index_select(0, tags.gather(1, lengths[:, None] - 1)[:, 0])
        return first + words.sum(1) + moves.masked_fill(~mask[:, 1:], 0.0).sum(1) + last


def _checked(emissions: Tensor, mask: Tensor, num_tags: int) -> tuple[Tensor, Tensor]:
    """Emissions in fp32 with zeros under the padding, and the lengths ``[B]``."""
    if emissions.shape != (*mask.shape, num_tags):
        raise ValueError(f"emissions {list(emissions.shape)} do not fit a mask {list(mask.shape)} and {num_tags} tags")
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask must be bool, not {mask.dtype}")
    if not bool(mask[:, 0].all()) or bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ValueError("a mask is True from a sentence's first word to its last, and a sentence needs a word")
    return emissions.float().masked_fill(~mask[..., None], 0.0), mask.sum(1)


def _scan(first: Tensor, emissions: Tensor, transitions: Tensor) -> Tensor:
    """Forward variables ``[W, *, B, K]``: ``[*, B, K]``, emissions ``[W, *, B, K]``, moves ``[*, K, K]``."""
    with torch.autocast(emissions.device.type, enabled=False):
        states: Tensor = _Scan.apply(first, emissions, transitions)
    return states


#: Within this range (nats) of transition scores, sums of ``exp`` in fp32 drop nothing that fp32 could show.
_SAFE_RANGE = 80.0


class _Scan(torch.autograd.Function):
    """``s_t[j] = e_t[j] + logsumexp_i(s_t-1[i] + A[i, j])``, with a gradient of one small product a step.

    The derivative of ``s_t[j]`` by ``s_t-1[i]`` is the probability ``p_t[i, j] = exp(s_t-1[i] + A[i, j] +
    e_t[j] - s_t[j])``; all of them are computed in one go, where autograd would keep and undo every step.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, emissions: Tensor, transitions: Tensor) -> Tensor:
        state, states = first, [first]
        most = transitions.max()
        if bool(most - transitions.min() < _SAFE_RANGE):
            weights = (transitions - most).exp()
            for emission in (emissions + most).unbind(0)[1:]:
                top = state.amax(-1, keepdim=True)
                state = ((state - top).exp_() @ weights).log_().add_(top).add_(emission)
                states.append(state)
        else:
            for emission in emissions.unbind(0)[1:]:
                state = torch.logsumexp(state.unsqueeze(-1) + transitions.unsqueeze(-3), dim=-2) + emission
                states.append(state)
        joined = torch.stack(states)
        ctx.save_for_backward(joined, emissions, transitions)
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, emissions, transitions = ctx.saved_tensors
        most = transitions.max()
        if bool(most - transitions.min() < _SAFE_RANGE):
            return _gradients_by_products(states, emissions, transitions, most, grads[0])
        into = (emissions[1:] - states[1:]).unsqueeze(-2)
        # [W - 1, *, B, from, to]
        shares = (states[:-1].unsqueeze(-1) + transitions.unsqueeze(-3)).add_(into).exp_()
        carried = grads[0].flatten(1, -2).unsqueeze(-1).clone()
        steps, products = carried.unbind(0), shares.flatten(1, -3).unbind(0)
        with torch.autocast(states.device.type, enabled=False):
            for t in range(len(products) - 1, -1, -1):
                steps[t].add_(products[t] @ steps[t + 1])
        carried = carried.view_as(states)
        by_transition = (shares * carried[1:].unsqueeze(-2)).sum((0, -3))
        by_emission = carried.clone()
        by_emission[0] = 0.0
        return carried[0], by_emission, by_transition


def _gradients_by_products(
    states: Tensor, emissions: Tensor, transitions: Tensor, most: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`_Scan.backward` without its ``[W, *, B, K, K]``: ``p_t[i, j] = out[i] * weights[i, j] * into[j]``.

    ``out`` is at most 1, and ``into`` at most ``exp(_SAFE_RANGE)``: nothing leaves the range of fp32.
    """
    weights = (transitions - most).exp()
    top = states[:-1].amax(-1, keepdim=True)
    out = (states[:-1] - top).exp_()
    into = (emissions[1:] - states[1:]).add_(top + most).exp_()
    carried = grad.clone()
    steps = carried.unbind(0)
    back = weights.transpose(-1, -2).contiguous()
    with torch.autocast(states.device.type, enabled=False):
        for t in range(len(steps) - 2, -1, -1):
            steps[t].add_(((into[t] * steps[t + 1]) @ back).mul_(out[t]))
        by_transition = torch.einsum("w...bi,w...bj->...ij", out, into * carried[1:]) * weights
    by_emission = carried.clone()
    by_emission[0] = 0.0
    return carried[0], by_emission, by_transition


def _best_paths(
    scores: np.ndarray, lengths: np.ndarray, moves: np.ndarray, first: np.ndarray, last: np.ndarray
) -> list[list[int]]:
    """Viterbi over ``[B, W, K]`` scores: each sentence's best path, traced back from its own last word."""
    rows = np.arange(len(scores))
    best = final = scores[:, 0] + first
    came = np.zeros(scores.shape, dtype=np.int64)
    for t in range(1, scores.shape[1]):
        paths = best[:, :, None] + moves
        came[:, t] = paths.argmax(1)
        best = paths.max(1) + scores[:, t]
        final = np.where((lengths > t)[:, None], best, final)
    final = final + last
    tag = final.argmax(1)
    if not np.isfinite(final[rows, tag]).all():
        raise ValueError("no tag sequence is allowed, or an emission is not a number")
    path = np.empty(scores.shape[:2], dtype=np.int64)
    for t in range(scores.shape[1] - 1, -1, -1):
        path[:, t] = tag
        tag = np.where(lengths > t, came[rows, t, tag], tag)
    return [row[:length].tolist() for row, length in zip(path, lengths, strict=True)]
