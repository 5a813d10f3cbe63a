"""What generating costs beside the waiting: Magister, distilabel and curator on one and the same endpoint.

python benchmarks/generation.py [--distilabel PYTHON] [--curator PYTHON] [--rows 5000] [--latency 20] [--concurrency 64]
                                [--rounds 3]

5,000 requests to an endpoint (stub.py, a process of its own) that answers each after 20 ms, 64 at a time. The peers
are given the prompts ready made and keep them and the answers in their own way; Magister renders and keys its prompts,
sends the answers' schema, keeps its ledger and builds its corpus. A bare loop over httpx, which keeps nothing, is the
ceiling: with one client, and with eight, since httpx searches all connections of a client at every call. Contenders
take turns, and medians over the rounds are shown. Speed counts the call of each library, not its import; memory is
that of all its processes, with what they share counted once (PSS). On a machine that does other things too, look at
the rows a processor second.

The peers live in environments of their own:

    pip install "distilabel[openai]==1.5.3" requests beautifulsoup4     (requests: it imports it without asking for it)
    pip install "bespokelabs-curator==0.1.31"
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from magister.prompts.render import render
from magister.tasks import ner
from peers.run_magister import SCHEMA

HERE = Path(__file__).parent

#: No telemetry, no hub, no price list from afar; and at warnings distilabel does not print a line for every call.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TELEMETRY_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DISTILABEL_LOG_LEVEL": "WARNING",
    "NO_PROXY": "127.0.0.1",
}


def write_rows(path: Path, number: int) -> None:
    """Made-up posts, each with the names that the endpoint finds, and what the peers are to ask of them."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(3000)]
    with path.open("w") as file:
        for n in range(number):
            post = ner.Example(id=str(n), text=f"Ada Lovelace in Paris {' '.join(draw.choices(words, k=14))}")
            system, user = render("ner/zero_shot", "ner", post, SCHEMA).messages
            file.write(json.dumps({"id": post.id, "text": post.text, "system": system.text, "user": user.text}) + "\n")


@contextmanager
def endpoint(latency: float) -> Iterator[str]:
    """A fresh endpoint's base URL."""
    command = [sys.executable, str(HERE / "stub.py"), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def memory(process: psutil.Process) -> int:
    """Bytes of a process and all below it, pages they share counted once."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    except psutil.Error:  # one has just ended
        pass
    return total


def run(python: str, program: str, data: Path, latency: float, concurrency: int, *more: str) -> dict[str, Any]:
    """One contender's turn on a fresh endpoint: what it says of itself, its memory, and what the endpoint saw."""
    with tempfile.TemporaryDirectory() as folder, endpoint(latency) as url:
        command = [python, str(HERE / "peers" / program), str(data), url, f"{folder}/out", str(concurrency), *more]
        log, peak, started = Path(folder, "log"), 0, time.monotonic()
        with log.open("w") as file:
            environment = os.environ | ENVIRONMENT | {"HOME": folder}
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                peak = max(peak, memory(watched))
                time.sleep(0.25)
        said = log.read_text().splitlines()
        if process.returncode:
            raise SystemExit("\n".join([*said[-30:], f"{program} ended with {process.returncode}"]))
        with urllib.request.urlopen(f"{url}/count") as answer:
            seen = json.load(answer)
    found = json.loads(said[-1]) | {"memory": peak, "whole": time.monotonic() - started, "seen": seen}
    wanted = sum(1 for _ in data.open())
    if found["rows"] != wanted:
        raise SystemExit(f"{program}: {found['rows']} rows of {wanted}")
    return found


def show(name: str, turns: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> None:
    """A contender's line: medians over its turns, and of the ratios within each round."""

    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    rows = turns[0]["rows"]
    print(
        f"{name:<22}{median(rows / t['seconds'] for t in turns):9.0f}{median(rows / t['cpu'] for t in turns):12.0f}"
        f"{median(t['cpu'] for t in turns):8.1f}{median(t['memory'] / 2**20 for t in turns):8.0f}"
        f"{median(t['whole'] for t in turns):11.1f}{median(t['seen']['most_at_once'] for t in turns):9.0f}"
        f"{median(b['seconds'] / t['seconds'] for t, b in zip(turns, base, strict=True)):10.2f}"
        f"{median(b['cpu'] / t['cpu'] for t, b in zip(turns, base, strict=True)):10.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distilabel", metavar="PYTHON", help="the Python of an environment that has distilabel")
    parser.add_argument("--curator", metavar="PYTHON", help="the Python of an environment that has curator")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--latency", type=float, default=20, help="milliseconds before every answer")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    contenders = {
        "bare httpx, 1 client": (sys.executable, "run_httpx.py", "1"),
        "bare httpx, 8 clients": (sys.executable, "run_httpx.py", "8"),
        "magister": (sys.executable, "run_magister.py"),
    }
    for name in ("distilabel", "curator"):
        if python := getattr(asked, name):
            contenders[name] = (python, f"run_{name}.py")
        else:
            print(f"{name} is left out: no --{name} PYTHON was given")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "rows.jsonl")
        write_rows(data, asked.rows)
        alone = run(sys.executable, "run_sockets.py", data, 0, asked.concurrency)
        each = alone["seen"]["cpu"] / asked.rows * 1e6
        print(f"the endpoint alone: {asked.rows / alone['seconds']:,.0f} requests/s, {each:.0f} us CPU each")
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for number in range(asked.rounds):
            load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
            print(f"round {number + 1} of {asked.rounds}, load {load} on {os.cpu_count()} cores", flush=True)
            for name, (python, program, *more) in contenders.items():
                turns[name].append(run(python, program, data, asked.latency, asked.concurrency, *more))
    print(f"\n{asked.rows:,} requests, {asked.latency:g} ms, {asked.concurrency} at once; ratios: to the bare loop")
    print(f"{'':<22}{'rows/s':>9}{'rows/CPU s':>12}{'CPU s':>8}{'MiB':>8}{'process s':>11}{'at once':>9}", end="")
    print(f"{'x rows/s':>10}{'x CPU':>10}")
    for name, its in turns.items():
        show(name, its, turns["bare httpx, 1 client"])
    split = [turn["split"] for turn in turns["magister"]]
    steps = {step: [statistics.median(s[step][n] for s in split) for n in (0, 1)] for step in split[0]}
    said = (f"{step} {wall:.1f} s ({cpu:.1f} s CPU)" for step, (wall, cpu) in steps.items())
    print(f"magister, step by step: {', '.join(said)}")
    for name in ("distilabel", "curator"):
        if name in turns:
            pairs = list(zip(turns["magister"], turns[name], strict=True))
            speed = statistics.median(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)
            cpu = statistics.median(theirs["cpu"] / ours["cpu"] for ours, theirs in pairs)
            print(f"magister / {name}: {speed:.2f} x rows/s, {cpu:.2f} x rows per CPU second")


if __name__ == "__main__":
    main()
