"""The ledger's two figures: durable rows a second, and the opening of a large one. One process; two threads at most.

python benchmarks/ledger.py [ROWS_TO_OPEN]

The rows are of the size of a real rationale (about 1 KB). "Together" is what a run does (`commit`): replies that are
ready at once share a sync. Times are given by the clock and in processor seconds; on a busy machine only the latter say
what the ledger takes.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from magister.prompts.messages import Message, Part, Prompt
from magister.teachers.ledger.commit import Commit
from magister.teachers.ledger.ledger import Ledger
from magister.teachers.ledger.row import Row, to_line
from magister.teachers.teacher import Reply, Request, Usage

IDENTITY = {"engine": "openai", "model": "qwen3-vl-8b", "endpoint": "localhost:8000/v1"}
TEXT = "Rome is the capital of Italy; in this post it is the place that she visits. " * 5


def row(number: int) -> Row:
    """The row of a reply, as a run makes it."""
    message = Message(role="user", parts=(Part(text="question"),))
    prompt = Prompt(template="ner/rationale.noun.v1", digest="d" * 64, messages=(message,))
    request = Request(example=f"tweet-{number}", prompt=prompt, key=f"{number:064x}")
    usage = Usage(prompt_tokens=312, completion_tokens=88, cached_tokens=256)
    return Row.of(request, Reply(key=request.key, text=TEXT, usage=usage, seconds=0.3), "openai:m@u", IDENTITY)


def durable(folder: Path, seconds: float = 5.0) -> None:
    """Rows a second that are surely on the disk: one sync each, and together."""
    print(f"a row is {len(to_line(row(0))):,} bytes")
    rates = {}
    for name in ("one by one", "together"):
        path = folder / f"{name}.jsonl"
        count, syncs = 0, 0
        with Ledger(path) as ledger:
            started, cpu = time.perf_counter(), time.process_time()
            if name == "one by one":
                while time.perf_counter() - started < seconds:
                    ledger.append(row(count))
                    count += 1
                syncs = count
            else:
                told: list[int] = []
                with Commit(ledger, lambda rows, told=told: told.append(len(rows))) as commit:
                    while time.perf_counter() - started < seconds:
                        commit.add(row(count))
                        count += 1
                syncs = len(told)
                assert sum(told) == count == len(ledger)
            clock, cpu = time.perf_counter() - started, time.process_time() - cpu
        rates[name] = count / clock
        print(
            f"durable, {name}: {count / clock:,.0f} rows/s by the clock, {count / cpu:,.0f} a processor second"
            f" ({count:,} rows, {syncs:,} syncs)"
        )
    print(f"together / one by one: {rates['together'] / rates['one by one']:.1f} x")


def opening(path: Path) -> None:
    """Open a ledger in a process of its own: seconds, and memory a row."""
    gc.collect()
    before = _resident()
    started, cpu = time.perf_counter(), time.process_time()
    with Ledger(path) as ledger:
        clock, cpu = time.perf_counter() - started, time.process_time() - cpu
        memory = (_resident() - before) / max(len(ledger), 1)
        print(
            f"open {len(ledger):,} rows ({path.stat().st_size / 1e6:,.0f} MB): {clock:.1f} s by the clock,"
            f" {cpu:.1f} processor seconds; {memory:.0f} bytes of memory a row"
        )


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    if sys.argv[1:2] == ["--open"]:
        return opening(Path(sys.argv[2]))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        durable(Path(folder))
        path = Path(folder) / "large.jsonl"
        with open(path, "wb", buffering=1 << 20) as file:
            for number in range(count):
                file.write(to_line(row(number)))
        subprocess.run([sys.executable, __file__, "--open", str(path)], check=True)


if __name__ == "__main__":
    main()
