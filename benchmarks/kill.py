"""kill -9 at random moments while a corpus is made: nothing saved is lost, nothing saved is asked again.

python benchmarks/kill.py [KILLS] [endpoint|transformers|both]

A child process asks, is killed, and started again, until the corpus is done; then another corpus is begun, until there
were as many kills as wanted. After each kill the ledger must hold, byte for byte, every whole line that it held before,
and no key twice; what the next child asks for must not be among the saved. Each corpus, when done, must be the one that
an undisturbed run makes, but for the times of arrival and what the engine had cached.
"""

from __future__ import annotations

import http.server
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from magister.tasks.ner import TASK
from magister.teachers.generation.generate import Summary, generate
from magister.teachers.knowledge import corpus
from magister.teachers.ledger import ledger
from magister.teachers.teacher import Reply, Request

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "teachers")]
from fake_teacher import SCHEMA, example  # noqa: E402

#: Questions of a corpus by engine, and how many the endpoint is asked at once.
COUNT = {"endpoint": 120, "transformers": 24}
CONCURRENCY = 8
#: Seconds that the endpoint takes for an answer: at least, and at most.
LATENCY = (0.002, 0.03)
#: Columns that say how a reply came, not what it says.
NOT_COMPARED = ("time", "cached_tokens")


class Logged:
    """A teacher that writes down, in a file, the key of every request it draws."""

    def __init__(self, teacher: Any, log: Path) -> None:
        self.teacher, self.log = teacher, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self.teacher, name)

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        def drawn() -> Iterator[Request]:
            with open(self.log, "ab", buffering=0) as file:
                for request in requests:
                    file.write(f"{request.key}\n".encode())
                    yield request

        return self.teacher.generate(drawn())


def make(engine: str, where: str, out: Path, log: Path) -> Summary:
    """One life: make (or go on with) the corpus."""
    if engine == "endpoint":
        from magister.teachers.engines.openai import OpenAITeacher

        teacher: Any = OpenAITeacher("stub", where, name="stub", concurrency=CONCURRENCY)
    else:
        import torch
        from magister.teachers.engines.transformers import TransformersTeacher

        torch.set_num_threads(1)
        teacher = TransformersTeacher(where, batch_size=2, dtype="float32")
    examples = [example(n) for n in range(COUNT[engine])]
    return generate(TASK, examples, SCHEMA, Logged(teacher, log), ["zero_shot"], out, max_tokens=6)


def nursery(pipe: Any, engine: str, where: str, folder: Path) -> None:
    """Make a corpus undisturbed, and so import and compile everything once; then fork a child for each order.

    Of each child it tells the process id, and in the end the exit code.
    """
    make(engine, where, folder / "undisturbed", folder / "undisturbed.asked")
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        if not (process := os.fork()):
            try:
                make(engine, where, *order)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        pipe.send(process)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


@contextmanager
def endpoint() -> Iterator[tuple[str, Counter[str]]]:
    """An OpenAI-compatible endpoint that answers each question always the same; its address, and what it answered."""
    answered: Counter[str] = Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked = self.rfile.read(length).decode()
            if len(asked) < length:  # the client was killed
                self.close_connection = True
                return
            name = re.findall(r"Ann\d+", asked)[-1]
            time.sleep(random.uniform(*LATENCY))
            answered[name] += 1
            text = json.dumps({"entities": [{"text": name, "type": "PER"}, {"text": "Rome", "type": "LOC"}]})
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            usage = {"prompt_tokens": len(asked) // 4, "completion_tokens": 20}
            body = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            with suppress(OSError):  # the client was killed
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", answered
    finally:
        server.shutdown()
        server.server_close()


class Harm(AssertionError):
    """Something was lost, or asked twice."""


class Killer:
    """Makes corpora with child processes that it kills, and counts. Use as a context manager.

    Args:
        where: the endpoint's address, or the model's folder.
        folder: for the corpora.
    """

    def __init__(self, engine: str, where: str, folder: Path, seed: int = 0) -> None:
        self.folder, self.count, self.random = folder, COUNT[engine], random.Random(seed)
        self.kills = self.corpora = self.torn = self.saved_replies = 0
        self.moments: Counter[str] = Counter()
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.nursery = context.Process(target=nursery, args=(other, engine, where, folder))
        self.nursery.start()
        other.close()

    def __enter__(self) -> Killer:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.pipe.send(None)
        self.nursery.join()

    def run(self, kills: int) -> None:
        """Kill so many times; raises `Harm`."""
        if self.pipe.recv() != "ready":
            raise Harm("the undisturbed run failed")
        expected = self._rows(self.folder / "undisturbed")
        while self.kills < kills:
            out = self.folder / f"corpus-{self.corpora}"
            while not self._life(out, self.kills < kills):
                pass
            if self._rows(out) != expected:
                raise Harm(f"{out} is not the corpus of an undisturbed run")
            self.corpora += 1
            shutil.rmtree(out)

    def _life(self, out: Path, kill: bool) -> bool:
        """One child, killed or not; whether it finished the corpus."""
        file, log = out / "ledger.jsonl", out.with_suffix(".asked")
        before = _whole_lines(file)
        saved = {json.loads(line)["key"] for line in before.splitlines()}
        asked_before = len(_lines(log))
        self.pipe.send((out, log))
        process = self.pipe.recv()
        if kill:
            self._wait(file, len(saved))
            with suppress(ProcessLookupError):  # it may have finished just now
                os.kill(process, signal.SIGKILL)
        code = self.pipe.recv()
        if code not in (0, -signal.SIGKILL):
            raise Harm(f"the child ended by itself with {code}")
        self._check(file, before, saved, _lines(log)[asked_before:])
        if code:
            now = _whole_lines(file)
            self.kills += 1
            self.torn += file.exists() and file.stat().st_size > len(now)
            saved_now = now.count(b"\n")
            self.moments[
                "before the first reply" if not saved_now else "asking" if saved_now < self.count else "building"
            ] += 1
        return code == 0

    def _wait(self, file: Path, lines: int) -> None:
        """Until a random moment: mostly so many replies later, sometimes so much time later."""
        if self.random.random() < 0.2:
            self.pipe.poll(self.random.uniform(0, 0.5))
            return
        target = min(lines + self.random.randint(1, self.count // 8), self.count)
        while not self.pipe.poll(0.001) and _whole_lines(file).count(b"\n") < target:
            pass
        self.pipe.poll(self.random.uniform(0, 0.02))

    def _check(self, file: Path, before: bytes, saved: set[str], asked: list[str]) -> None:
        now = _whole_lines(file)
        if not now.startswith(before):
            raise Harm(f"{file}: lines that were there before the kill are gone")
        keys = [row.key for row in ledger.read(file)] if file.exists() else []
        if len(keys) != len(set(keys)):
            raise Harm(f"{file}: a reply was paid for and saved twice")
        if again := saved.intersection(asked):
            raise Harm(f"{file}: {len(again)} saved replies were asked for again")
        self.saved_replies += len(keys) - len(saved)

    def _rows(self, out: Path) -> list[dict[str, Any]]:
        """What a finished corpus says."""
        kept = [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in corpus.rows(out)]
        if len(kept) != self.count:
            raise Harm(f"{out} has {len(kept)} rows")
        return kept


def _whole_lines(file: Path) -> bytes:
    data = file.read_bytes() if file.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    which = sys.argv[2] if len(sys.argv) > 2 else "both"
    for engine in ("endpoint", "transformers") if which == "both" else (which,):
        with tempfile.TemporaryDirectory() as folder, endpoint() as (url, answered):
            started = time.monotonic()
            where = url if engine == "endpoint" else model(Path(folder))
            with Killer(engine, where, Path(folder), seed=1) as killer:
                killer.run(kills)
            moments = ", ".join(f"{n} {when}" for when, n in killer.moments.most_common())
            print(
                f"{engine}: {killer.kills} kills ({moments}; {killer.torn} left a torn line), "
                f"{killer.corpora} corpora of {killer.count} rows, each identical to the undisturbed one; "
                f"{killer.saved_replies} replies saved, none lost, none of them asked again"
            )
            if engine == "endpoint":
                lost = sum(answered.values()) - killer.saved_replies - killer.count
                print(f"  the endpoint answered {sum(answered.values())}: {lost / kills:.1f} a kill were under way")
            print(f"  {time.monotonic() - started:.0f} s")


def model(folder: Path) -> str:
    """A tiny random LLM."""
    from tiny_llms import text_llm

    return text_llm(folder / "llm", context=2048)


if __name__ == "__main__":
    main()
