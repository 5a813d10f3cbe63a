"""Speed of our CRF against pytorch-crf in one run: batch 32 x 64 words x 9 tags, one thread.

python benchmarks/crf.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torchcrf
from magister.students.heads.crf import CRF

BATCH, WORDS, TAGS, ROUNDS = 32, 64, 9, 15


def timed(step: Callable[[], object]) -> float:
    start = time.process_time()  # on one thread, another job on the machine does not count
    step()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    emissions = torch.randn(BATCH, WORDS, TAGS, requires_grad=True)
    tags = torch.randint(TAGS, (BATCH, WORDS))
    mask = torch.arange(WORDS) < torch.randint(1, WORDS + 1, (BATCH, 1)).clamp(min=WORDS // 2)
    ours, theirs = CRF(TAGS), torchcrf.CRF(TAGS, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    steps: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "loss and gradient": (
            lambda: ours.nll(emissions, tags, mask).mean().backward(),
            lambda: (-theirs(emissions, tags, mask, reduction="mean")).backward(),
        ),
        "decoding": (lambda: ours.viterbi(emissions, mask), lambda: theirs.decode(emissions, mask)),
    }
    for name, (mine, other) in steps.items():
        mine(), other()
        pairs = [(timed(mine), timed(other)) for _ in range(ROUNDS)]
        a, b = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
        print(f"{name}: ours {a:.2f} ms, pytorch-crf {b:.2f} ms, ratio {b / a:.1f}")

    def marginals() -> None:
        ours.marginals(emissions, mask).sum().backward()

    alone = statistics.median(timed(marginals) for _ in range(ROUNDS))
    print(f"marginals and gradient: ours {alone * 1e3:.2f} ms (pytorch-crf has none)")


if __name__ == "__main__":
    main()
