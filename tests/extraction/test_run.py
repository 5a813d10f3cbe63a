"""Catalogues into files: resumable whatever stops the run, nothing asked twice, the rows of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from magister.extraction import Product, extract, extract_to, run
from magister.tasks.attributes import Answer, Attribute, Schema
from magister.tasks.task import DataFault
from magister.teachers.generation.collect import Interrupted, Stopped
from magister.teachers.ledger.lock import LedgerBusy
from magister.teachers.teacher import Reply, Request, failed

PRODUCTS = [Product(id=f"p{n}", title=f"Acme mug no {n}", table={"Color": "red"}) for n in range(200)]


class Clerk:
    """Answers at once; breaks down, or is stopped, after so many answers; some answers are to come, or fail."""

    spec, sees_images = "clerk", True

    def __init__(self, stop: int = 10**9, by: type[BaseException] = KeyboardInterrupt, model: str = "clerk") -> None:
        self.stop, self.by, self.model = stop, by, model
        self.asked: list[str] = []
        self.failure: str | None = None

    def identity(self) -> dict[str, Any]:
        return {"model": self.model}

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            if len(self.asked) == self.stop:
                raise self.by("enough")
            self.asked.append(request.example)
            if self.failure and request.example in ("p7", "p103"):
                yield failed(request, self.failure, "not now")  # type: ignore[arg-type]
                continue
            yield Reply(key=request.key, text='{"brand": "acme", "color": "RED", "size": null}')

    def close(self) -> None:
        pass


def go(out: Path, teacher: Clerk, products: Iterable[Any] = PRODUCTS, **options: Any) -> Any:
    asked = [Attribute(name="brand"), Attribute(name="color"), Attribute(name="size")]
    return extract_to(out, products, asked, teacher=teacher, prompt="zero_shot", **options)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CHUNK", 64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "rows.jsonl"
    assert go(out, Clerk()).done == len(PRODUCTS)
    return out


def test_the_rows_are_those_of_extract(whole: Path) -> None:
    asked = [Attribute(name="brand"), Attribute(name="color"), Attribute(name="size")]
    rows = list(extract(PRODUCTS[:100], asked, teacher=Clerk(), prompt="zero_shot"))
    assert [json.loads(line) for line in whole.read_text().splitlines()[:100]] == rows
    assert rows[3]["found"]["color"]["values"][0] == {
        "value": "red", "start": 0, "end": 3, "where": "table.Color", "confidence": None, "normalised": None,
    }  # fmt: skip


@pytest.mark.parametrize(("by", "raised"), [(KeyboardInterrupt, Interrupted), (RuntimeError, Stopped)])
def test_stopped_and_gone_on(tmp_path: Path, whole: Path, by: type[BaseException], raised: type[BaseException]) -> None:
    out, asked = tmp_path / "rows.jsonl", []
    for stop in (5, 80, 20):
        teacher = Clerk(stop, by)
        with pytest.raises(raised, match=r"[\d,]+ rows are in .*rows\.jsonl.*the same command goes on"):
            go(out, teacher)
        asked += teacher.asked
    last = Clerk()
    counts = go(out, last)
    assert sorted(asked + last.asked) == sorted(p.id for p in PRODUCTS)  # each once
    assert out.read_bytes() == whole.read_bytes()
    assert (counts.products, counts.done, counts.values, counts.absent) == (200, 200, 400, 200)
    again = Clerk()
    assert str(go(out, again)) == str(counts)
    assert again.asked == []


def test_a_catalogue_may_grow_and_must_not_change(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"
    go(out, Clerk(), PRODUCTS[:150])
    teacher = Clerk()
    assert go(out, teacher).products == 200
    assert teacher.asked == [p.id for p in PRODUCTS[150:]]
    assert (out / "rows.jsonl").read_bytes() == whole.read_bytes()
    with pytest.raises(DataFault, match=r"the first 200 are others.*may grow at its end"):
        go(out, Clerk(), [Product(id="new", text="x"), *PRODUCTS[1:]])
    with pytest.raises(DataFault, match=r"there were 200, now 3"):
        go(out, Clerk(), PRODUCTS[:3])
    with pytest.raises(DataFault, match=r"other settings: strict was false, is true; teacher was .*other"):
        go(out, Clerk(model="other"), strict=True)


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("mine")
    with pytest.raises(DataFault, match=r"mine\.jsonl: is there and is no extraction's"):
        go(tmp_path / "mine.jsonl", Clerk())
    assert (tmp_path / "mine.jsonl").read_text() == "mine"
    with pytest.raises(DataFault, match="no extraction's"):
        go(tmp_path, Clerk())
    with pytest.raises(DataFault, match=r"end it in \.jsonl or \.parquet, or in nothing"):
        go(tmp_path / "rows.xlsx", Clerk())


def test_rows_that_were_cut_are_made_again(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "rows.jsonl"
    go(out, Clerk())
    with out.open("ab") as file:
        file.write(b'{"id": "torn')  # a kill between the rows and the state
    go(out, Clerk())
    assert out.read_bytes() == whole.read_bytes()
    out.write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(DataFault, match=r"is shorter than it was .*--retry-failed"):
        go(out, Clerk())
    teacher = Clerk()
    go(out, teacher, retry_failed=True)
    assert (teacher.asked, out.read_bytes()) == ([], whole.read_bytes())


def test_failures_are_settled_until_they_are_retried(tmp_path: Path, whole: Path) -> None:
    out, teacher = tmp_path / "rows.jsonl", Clerk()
    teacher.failure = "transport"
    assert dict(go(out, teacher).failed) == {"transport": 2}
    again = Clerk()
    assert dict(go(out, again).failed) == {"transport": 2}
    counts = go(out, again, retry_failed=True)
    assert (again.asked, dict(counts.failed), counts.done) == (["p7", "p103"], {}, 200)
    assert out.read_bytes() == whole.read_bytes()


def test_replies_that_come_later_are_waited_for(tmp_path: Path, whole: Path) -> None:
    out, teacher, said = tmp_path / "rows.jsonl", Clerk(), []
    teacher.failure = "pending"
    counts = go(out, teacher, say=said.append)
    assert dict(counts.failed) == {"pending": 2}
    assert "2 products wait for replies" in said[-1]
    assert out.read_bytes() == b""  # the first chunk has one
    teacher = Clerk()
    go(out, teacher)
    assert teacher.asked == ["p7", "p103"]
    assert out.read_bytes() == whole.read_bytes()


def test_parquet_and_blocks_of_ledgers(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(run, "BLOCK", run.CHUNK)
    out = tmp_path / "rows.parquet"
    teacher = Clerk(100)
    with pytest.raises(Interrupted):
        go(out, teacher)
    assert not out.exists()
    teacher.stop = 10**9
    go(out, teacher)
    assert sorted(teacher.asked) == sorted(p.id for p in PRODUCTS)
    assert len(list((tmp_path / "rows.parquet.run").glob("ledger-*.jsonl"))) == 4
    rows = parquet.read_table(out).to_pylist()
    nested = [{n: v if n in ("id", "fault") else json.loads(v) for n, v in row.items()} for row in rows]
    assert nested == [json.loads(line) for line in whole.read_text().splitlines()]


class Trained:
    """A student that is stopped."""

    def __init__(self, stop: int = 10**9) -> None:
        self.schemas = {"attributes": Schema(attributes=(Attribute(name="brand"),))}
        self.stop, self.seen = stop, 0

    def predict(self, examples: Any, return_scores: bool = False) -> Any:
        self.seen += len(examples)
        if self.seen > self.stop:
            raise KeyboardInterrupt
        return [(Answer(values={"brand": ("Acme",)}), {"brand": 0.5}) for _ in examples]


def test_a_student_goes_on_from_its_last_rows(tmp_path: Path) -> None:
    extract_to(tmp_path / "whole.jsonl", PRODUCTS, student=Trained())
    with pytest.raises(Interrupted, match="64 rows are in"):
        extract_to(tmp_path / "rows.jsonl", PRODUCTS, student=Trained(100))
    student = Trained()
    counts = extract_to(tmp_path / "rows.jsonl", PRODUCTS, student=student)
    assert (student.seen, counts.done) == (200 - 64, 200)
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
import magister.extraction.run as run
run.CHUNK, run.BLOCK = 16, 64
import test_run
class Slow(test_run.Clerk):
    def generate(self, requests):
        for reply in super().generate(requests):
            time.sleep(0.004)
            with open({log!r}, "a") as log: log.write(self.asked[-1] + chr(10))
            yield reply
test_run.go(Path({out!r}), Slow(), test_run.PRODUCTS)
"""


def test_kill_9_at_any_place(tmp_path: Path, whole: Path) -> None:
    out, log = tmp_path / "rows.jsonl", tmp_path / "asked.txt"
    code = KILLED.format(here=str(Path(__file__).parent), log=str(log), out=str(out))
    draw, kills, ended = random.Random(1), 0, False
    while not ended and kills < 6:
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        before = log.read_text().count("\n") if log.exists() else 0
        while process.poll() is None:
            time.sleep(0.005)
            now = log.read_text().count("\n") if log.exists() else 0
            if kills < 3 and now >= before + 1:
                time.sleep(draw.uniform(0, 0.1))
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
        ended = process.returncode == 0
        kills += not ended
        assert ended or process.returncode == -signal.SIGKILL, process.stderr.read().decode()  # type: ignore[union-attr]
        if process.stderr:
            process.stderr.close()
    assert ended
    assert kills >= 2
    assert out.read_bytes() == whole.read_bytes()
    asked = log.read_text().split()
    assert len(set(asked)) == 200
    assert len(asked) - 200 <= kills  # a kill costs at most the reply in hand


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    def nested() -> Iterator[Product]:
        with pytest.raises(LedgerBusy, match="in use by"):
            go(tmp_path / "rows.jsonl", Clerk())
        yield PRODUCTS[0]

    assert go(tmp_path / "rows.jsonl", Clerk(), nested()).done == 1
