"""What the visual prefix costs: MiniLM, batch 16 x 40 sub-tokens, EfficientNet-Lite0's pyramid, one thread.

python benchmarks/prefix.py
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable

import torch
from magister.models import packaged
from magister.students.encoders.text import load
from magister.students.fusion.prefix import VisualPrefix, attached

BATCH, LENGTH, ROUNDS = 16, 40, 15
LEVELS = [(4, 24), (4, 40), (4, 112), (4, 320), (1, 1280)]


def timed(step: Callable[[], object]) -> float:
    start = time.process_time()  # on one thread, another job on the machine does not count
    step()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    packaged.folder("minilm")
    encoder = load("minilm").eval()
    prefix = VisualPrefix(LEVELS, encoder.plain.config)
    ids = torch.randint(1000, 30000, (BATCH, LENGTH))
    mask = (torch.arange(LENGTH) < torch.randint(LENGTH // 2, LENGTH + 1, (BATCH, 1))).long()
    features, present = [torch.randn(BATCH, *level) for level in LEVELS], torch.ones(BATCH, dtype=torch.bool)

    def plain() -> torch.Tensor:
        return encoder(ids, mask)

    def worn() -> torch.Tensor:
        with attached(encoder, prefix(features, present)):
            return encoder(ids, mask)

    for precision in ("fp32", "bf16"):
        for name, learn in (("forward", False), ("training step", True)):
            cast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()

            def run(
                of: Callable[[], torch.Tensor],
                cast: contextlib.AbstractContextManager[object] = cast,
                learn: bool = learn,
            ) -> None:
                with torch.set_grad_enabled(learn), cast:
                    states = of()
                if learn:
                    states.float().sum().backward()

            pairs = [(timed(lambda: run(plain)), timed(lambda: run(worn))) for _ in range(ROUNDS + 1)][1:]
            a, b = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
            print(f"{precision} {name}: plain {a:.0f} ms, with the prefix {b:.0f} ms ({b / a - 1:+.1%})")


if __name__ == "__main__":
    main()
