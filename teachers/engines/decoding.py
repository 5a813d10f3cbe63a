"""What happens at each generated token of a batch: who is finished, and how a temperature draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..teacher import Finish, Request, sampling_seed


class Halt:
    """Ends each row of a batch on its own: at an end token, at a stop string of its, or at its token limit.

    After the run ``lengths`` holds the tokens that each row produced (the end token included), ``finish`` why
    it ended.
    """

    def __init__(
        self,
        limits: Sequence[int],
        stops: Sequence[tuple[str, ...]],
        width: int,
        ends: set[int],
        tokenizer: Any,
    ) -> None:
        self.limits, self.stops, self.width, self.ends, self.tokenizer = limits, stops, width, ends, tokenizer
        self.lengths = [0] * len(limits)
        self.finish: list[Finish] = ["length"] * len(limits)
        self.running = set(range(len(limits)))

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """``ids`` ``[batch, width + produced]``; True for the rows that are finished ``[batch]``."""
        produced = ids.shape[1] - self.width
        last = ids[:, -1].tolist()
        for row in sorted(self.running):
            said = last[row] in self.ends or self._stopped(ids[row], self.stops[row])
            if said or produced >= self.limits[row]:
                self.lengths[row], self.finish[row] = produced, "stop" if said else "length"
                self.running.discard(row)
        return torch.tensor([row not in self.running for row in range(len(last))], device=ids.device)

    def _stopped(self, ids: Tensor, stops: tuple[str, ...]) -> bool:
        if not stops:
            return False
        said = ids[self.width :]
        # A stop string is a few tokens long; decoding the whole answer at each step would be slow.
        tail = self.tokenizer.decode(said[-16:])
        if not any(stop in tail for stop in stops):
            return False
        text = self.tokenizer.decode(said).lstrip()  # blank lines before the first word end nothing
        return any(stop in text for stop in stops)


class Draw:
    """Temperature sampling by the Gumbel-max trick, from each request's own seed.

    ``argmax(scores / T + G)``, with ``G`` Gumbel noise, is a draw from ``softmax(scores / T)``; at ``T = 0``
    the scores stay as they are. Rows of different temperature share a batch, none depends on its neighbours.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.warm = {
            row: (r.temperature, torch.Generator().manual_seed(sampling_seed(r)))
            for row, r in enumerate(requests)
            if r.temperature > 0
        }

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """``scores`` ``[batch, vocabulary]``, noise added to the rows that sample."""
        if not self.warm:
            return scores
        scores = scores.clone()
        for row, (temperature, generator) in self.warm.items():
            exponential = torch.empty(scores.shape[1]).exponential_(generator=generator).to(scores.device)
            scores[row] = scores[row] / temperature - exponential.log()
        return scores


class Weigh:
    """`Draw`, noting how likely the token is that each row of a batch draws, for the rows that ask for it.

    Attributes:
        logprobs: ``{row: [natural-log probability of each token produced]}``, before temperature and noise; a row that
            has ended goes on being noted.
    """

    def __init__(self, requests: Sequence[Request], draw: Draw) -> None:
        self.draw = draw
        self.logprobs: dict[int, list[float]] = {row: [] for row, r in enumerate(requests) if r.logprobs}

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """``scores`` ``[batch, vocabulary]``, with the noise of `Draw`. Must be the last of the processors."""
        drawn = self.draw(ids, scores)
        if self.logprobs:
            rows = list(self.logprobs)
            token = drawn[rows].argmax(-1, keepdim=True)
            chosen = scores[rows].gather(1, token)[:, 0] - scores[rows].logsumexp(-1)
            for row, logprob in zip(rows, chosen.tolist(), strict=True):
                self.logprobs[row].append(logprob)
        return drawn
