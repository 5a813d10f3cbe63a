"""Several workers: nothing lost in the merge, nothing asked twice, the same corpus, the budget kept."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.tasks.ner import TASK
from magister.tasks.task import DataFault
from magister.teachers import spec
from magister.teachers.generation.budget import Budget
from magister.teachers.generation.generate import Interrupted, Stopped, generate
from magister.teachers.generation.ray_data import scaled
from magister.teachers.generation.scale import SMALLEST, Scaled, share
from magister.teachers.generation.worker import Block, Worker
from magister.teachers.knowledge import corpus
from magister.teachers.ledger import merge as merging
from magister.teachers.ledger.ledger import Ledger, read
from magister.teachers.ledger.lock import LedgerBusy
from magister.teachers.ledger.merge import merge
from magister.teachers.ledger.row import Row, to_line
from magister.teachers.teacher import Reply, Usage

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from fake_teacher import SCHEMA, FakeTeacher, example, right  # noqa: E402
from stub_server import StubServer  # noqa: E402

EXAMPLES = [example(i) for i in range(100)]


def row(name: str, text: str = "yes", failure: str | None = None) -> Row:
    return Row(
        key=name.encode().hex().rjust(64, "0"), finish="error" if failure else "stop", failure=failure, max_tokens=9,
        usage=Usage(), example=name, template="t", digest="d", sample=0, temperature=0, seed=0, detail="", text=text,
        seconds=0.1, teacher="fake", identity={}, time="2026-01-01T00:00:00.000+00:00",
    )  # fmt: skip


def part(path: Path, *rows: Row) -> Path:
    with Ledger(path) as made:
        made.append(*rows)
    return path


def threads(teachers: list[FakeTeacher]):
    """A pool of one thread a teacher, each taking the next block, as JSON, as it would come over Ray."""

    def pool(blocks: list[Block]) -> Iterator:
        todo, told = SimpleQueue[str](), SimpleQueue()
        for block in blocks:
            todo.put(block.model_dump_json())

        def work(teacher: FakeTeacher) -> None:
            worker = Worker.__new__(Worker)
            worker.teacher, worker.name = teacher, f"w{teachers.index(teacher)}"
            while not todo.empty():
                told.put(worker.ask(Block.model_validate_json(todo.get())))

        for teacher in teachers:
            threading.Thread(target=work, args=(teacher,), daemon=True).start()
        for _ in blocks:
            yield told.get()

    return pool


def run(out: Path, pool=None, workers: int = 2, teacher: FakeTeacher | None = None, **options):
    asking = {} if pool is None else {"asking": Scaled(pool, workers)}
    return generate(TASK, EXAMPLES, SCHEMA, teacher or FakeTeacher(), ["zero_shot"], out, **asking, **options)


def said(out: Path) -> list[dict]:
    return [{k: v for k, v in r.items() if k != "time"} for r in corpus.rows(out)]


# --- the merge ---


def test_parts_become_the_ledger_and_are_gone(tmp_path):
    a, b = row("a"), row("b")
    parts = [part(tmp_path / "parts" / "1.jsonl", a), part(tmp_path / "parts" / "2.jsonl", b)]
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        merged = merge(ledger, parts)
        assert (merged.rows, merged.repeated) == ([a, b], 0)
        assert ledger.row(b.key) == b
    assert list((tmp_path / "parts").iterdir()) == []


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["yes", "no"]), st.booleans()), unique=True),
    already=st.integers(0, 12),
)
def test_a_merge_that_was_stopped_adds_nothing_twice(tmp_path_factory, rows, already):
    """Against a plain list: whatever was appended before the stop, each line stands once in the end."""
    folder = tmp_path_factory.mktemp("m")
    made = [row(name, text, "transport" if failed else None) for name, text, failed in rows]
    part(folder / "p.jsonl", *made)
    with Ledger(folder / "ledger.jsonl") as ledger:
        ledger.append(row("before"))
        for one in made[:already]:
            ledger.append(one)
        merged = merge(ledger, [folder / "p.jsonl"])
    assert list(read(folder / "ledger.jsonl")) == [row("before"), *made]
    assert merged.repeated == min(already, len(made))


def test_another_reply_to_a_known_key_is_kept(tmp_path):
    failed, answered = row("a", failure="transport"), row("a")
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append(failed)
        merge(ledger, [part(tmp_path / "p.jsonl", answered)])
        assert ledger.row(answered.key) == answered
    assert list(read(tmp_path / "ledger.jsonl")) == [failed, answered]


def test_torn_and_damaged_lines_of_a_part_are_counted(tmp_path):
    lines = to_line(row("a")), to_line(row("b")).replace(b"yes", b"no!"), to_line(row("c"))[:50]
    (tmp_path / "p.jsonl").write_bytes(b"".join(lines))
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        merged = merge(ledger, [tmp_path / "p.jsonl"])
    assert (merged.rows, merged.torn, merged.damaged) == ([row("a")], 1, 1)


def test_a_part_stays_until_its_rows_are_on_the_disk(tmp_path, monkeypatch):
    path = part(tmp_path / "p.jsonl", row("a"))

    def no_sync(_: int) -> None:
        raise OSError(28, "No space left on device")

    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        opened = merging._opened(path)
        monkeypatch.setattr(merging, "_opened", lambda _: opened)
        monkeypatch.setattr(os, "fsync", no_sync)
        with pytest.raises(RuntimeError, match="No space left"):
            merge(ledger, [path])
    assert list(read(path)) == [row("a")]


def test_a_part_that_is_written_to_is_waited_for_then_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "PATIENCE", 0.2)
    with Ledger(tmp_path / "p.jsonl") as busy, Ledger(tmp_path / "ledger.jsonl") as ledger:
        busy.append(row("a"))
        with pytest.raises(LedgerBusy, match="in use by process"):
            merge(ledger, [tmp_path / "p.jsonl"])
    assert (tmp_path / "p.jsonl").exists()


# --- workers without Ray ---


def test_workers_make_the_corpus_of_a_plain_run(tmp_path):
    plain, progress = run(tmp_path / "plain"), []
    teachers = [FakeTeacher(), FakeTeacher()]
    out = tmp_path / "scaled"
    summary = run(out, threads(teachers), progress=lambda done, total, row: progress.append((done, total)))
    assert said(out) == said(tmp_path / "plain")
    assert summary.as_dict() | {"seconds": 0, "tokens_per_second": 0} == plain.as_dict() | {
        "seconds": 0, "tokens_per_second": 0,
    }  # fmt: skip
    asked = [request.key for teacher in teachers for request in teacher.asked]
    assert len(asked) == len(set(asked)) == 100
    assert progress == [(n, 100) for n in range(1, 101)]
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "plain").iterdir())
    assert run(out, threads(teachers)).to_ask == 0


def test_blocks_follow_the_order_of_asking(tmp_path):
    seen: list[Block] = []

    def pool(blocks):
        seen.extend(blocks)
        yield from threads([FakeTeacher()])(blocks)

    plain = FakeTeacher()
    run(tmp_path / "plain", teacher=plain)
    run(tmp_path / "c", pool)
    assert [r for block in seen for r in block.requests] == plain.asked
    assert [len(block.requests) for block in seen] == [SMALLEST] * 6 + [4]
    assert len({block.part for block in seen}) == 7


def test_a_block_that_was_lost_is_no_reply_and_asked_next_time(tmp_path):
    def pool(blocks):
        yield from threads([FakeTeacher()])(blocks[:-2])

    first = run(tmp_path / "c", pool)
    assert (first.kept, first.failed) == (80, {"no_reply": 20})
    teacher = FakeTeacher()
    assert run(tmp_path / "c", threads([teacher])).kept == 100
    assert len(teacher.asked) == 20


def test_a_block_given_up_costs_only_itself(tmp_path, caplog):
    def says(request):
        if request.example == "e20":
            raise RuntimeError("the engine broke")
        return right(request)

    summary = run(tmp_path / "c", threads([FakeTeacher(says)]))
    assert (summary.kept, summary.failed) == (100 - 12, {"no_reply": 12})  # e16 to e19 were saved
    assert summary.notes == {"blocks_that_a_worker_gave_up": 1}
    assert "the engine broke" in caplog.text


def test_when_all_give_up_the_run_stops(tmp_path):
    def says(request):
        raise RuntimeError("down")

    teachers = [FakeTeacher(says)]
    with pytest.raises(Stopped, match=r"down.* 0 of 100 answers are saved in .*; the same command goes on"):
        run(tmp_path / "c", threads(teachers))


def test_another_teacher_on_the_workers_is_refused(tmp_path):
    with pytest.raises(Stopped, match="OtherTeacher"):
        run(tmp_path / "c", threads([FakeTeacher(name="other")]))


def test_what_a_killed_run_left_is_merged_first(tmp_path):
    """Ctrl-C merges at once; after kill -9 the next run does, even a plain one."""
    held: list[Block] = []

    def interrupted(blocks):
        yield from threads([FakeTeacher()])(blocks[:1])
        held.extend(blocks)
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="16 of 100 answers are saved"):
        run(tmp_path / "c", interrupted)
    worker = Worker.__new__(Worker)
    worker.teacher, worker.name = FakeTeacher(), "orphan"
    worker.ask(held[1])
    assert held[1].part.exists()
    teacher = FakeTeacher()
    summary = run(tmp_path / "c", teacher=teacher)
    assert (summary.kept, len(teacher.asked)) == (100, 68)
    assert summary.notes["replies_merged_from_workers_of_a_run_that_was_killed"] == 16
    assert not held[1].part.exists()


CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from fake_teacher import FakeTeacher, right
from magister.teachers.generation.worker import Block, Worker
calls = 0
def says(request):
    global calls
    calls += 1
    if calls == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return right(request)
worker = Worker.__new__(Worker)
worker.teacher, worker.name = FakeTeacher(says), "child"
worker.ask(Block.model_validate_json(sys.stdin.read()))
"""


def test_a_worker_killed_over_its_block_is_succeeded(tmp_path):
    """A process dies by kill -9 at its ninth request; its successor asks that one, and the rest."""
    teacher = FakeTeacher()

    def pool(blocks):
        child = [sys.executable, "-c", CHILD, str(HERE)]
        done = subprocess.run(child, input=blocks[0].model_dump_json(), text=True, check=False)
        assert done.returncode == -signal.SIGKILL
        yield from threads([teacher])(blocks)

    summary = run(tmp_path / "c", pool)
    assert summary.kept == 100
    assert len(teacher.asked) == 100 - 8
    assert summary.notes == {"blocks_taken_over_from_a_worker_that_died": 1}
    run(tmp_path / "plain")
    assert said(tmp_path / "c") == said(tmp_path / "plain")


# --- the budget ---


@given(
    st.integers(0, 10**9),
    st.decimals(0, 1000, places=6),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=200),
)
def test_shares_never_exceed_what_is_left(tokens, usd, weights):
    left = Budget(tokens=tokens, usd=usd, price_in=1, price_out=1)
    shares = [share(left, weight, sum(weights)) for weight in weights if sum(weights)]
    assert sum(s.tokens for s in shares) <= tokens
    assert sum(s.usd for s in shares) <= usd


@pytest.mark.parametrize("used", [5, 100])
def test_the_budget_is_kept_and_used_up(tmp_path, used):
    """Prompts are estimated as they are, answers at 512 tokens, of which they use ``used``."""
    reads = 100

    class Counting(FakeTeacher):
        def count_tokens(self, request):
            return reads

    def says(request):
        usage = Usage(prompt_tokens=reads, completion_tokens=used)
        return Reply(key=request.key, text=right(request), usage=usage)

    budget = Budget(tokens=7_000)
    rounds = []

    def pool(blocks):
        rounds.append(len(blocks))
        yield from threads([Counting(says), Counting(says)])(blocks)

    plain = run(tmp_path / "plain", teacher=Counting(says), budget=budget)
    summary = run(tmp_path / "c", pool, teacher=Counting(says), budget=budget)
    assert (summary.kept, summary.failed) == (plain.kept, plain.failed)
    assert summary.prompt_tokens + summary.completion_tokens <= 7_000
    assert len(rounds) <= 4


# --- over Ray ---


def test_what_several_cannot_ask_is_refused(tmp_path):
    with pytest.raises(DataFault, match="batch: teacher is answered later"):
        scaled("batch:d?model=m", {}, 2, FakeTeacher())


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_says_what_to_install():
    with pytest.raises(DataFault, match=r"pip install 'magister\[ray\]'"):
        scaled("openai:m@http://127.0.0.1:9/v1", {}, 2, FakeTeacher())


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'magister[ray]'")
def test_two_workers_over_ray(tmp_path, monkeypatch):
    """Both work, and one of them is killed half-way by the endpoint's own count."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with StubServer(latency=0.03) as stub:
        name, limits = f"openai:m@{stub.url}#stub", {"concurrency": 8}
        run(tmp_path / "plain", teacher=spec.teacher(name, **limits))
        stub.asked.clear()
        teacher, told = spec.teacher(name, **limits), []
        over = scaled(name, limits, 2, teacher)

        def watched(blocks):
            for block in over.pool(blocks):
                told.append(block.worker)
                if len(told) == 2:
                    os.kill(int(block.worker.partition(":")[2]), signal.SIGKILL)
                yield block

        summary = run(tmp_path / "c", watched, teacher=teacher)
        assert summary.kept == 100 - sum(summary.quarantined.values())
        assert said(tmp_path / "c") == said(tmp_path / "plain")
        assert len(set(told)) >= 2
        assert len(stub.asked) == 100
        assert sum(stub.asked.values()) <= 100 + 4  # what one worker may have under way
