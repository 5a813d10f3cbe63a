"""The ledger: nothing that arrived is lost, nothing is asked twice, nothing else decides the key."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.prompts.messages import Message, Part, Prompt
from magister.tasks.images import Image, ImageFault
from magister.teachers.ledger.commit import Commit
from magister.teachers.ledger.key import EXCLUDED, request_key
from magister.teachers.ledger.ledger import Ledger, LedgerFull, read
from magister.teachers.ledger.lock import LedgerBusy, LedgerFault
from magister.teachers.ledger.row import _LINE, LINE_VERSION, Row, facts, of_line, of_row, to_line
from magister.teachers.teacher import Failure, Finish, Reply, Request, Usage

IDENTITY = {"model": "m", "revision": "r1"}


def request(text: str = "question", **fields) -> Request:
    prompt = Prompt(
        template=fields.pop("template", "ner/zero_shot.v1"),
        digest=fields.pop("digest", "d"),
        messages=(
            Message(role="system", parts=(Part(text=fields.pop("system", "be brief")),)),
            Message(role="user", parts=fields.pop("parts", (Part(text=text),))),
        ),
        answer_schema=fields.pop("schema", {"type": "object", "properties": {"b": {}, "a": {}}}),
        max_tokens=fields.pop("max_tokens", 10),
        stop=fields.pop("stop", ()),
    )
    made = Request(example=fields.pop("example", "e1"), prompt=prompt, **fields)
    return made.model_copy(update={"key": request_key(made, IDENTITY)})


def row(asked: Request, text: str = "answer", **fields) -> Row:
    return Row.of(asked, Reply(key=asked.key, text=text, usage=Usage(prompt_tokens=3), **fields), "fake", IDENTITY)


# --- the key ---


def test_key_is_stable():
    """A change of this value makes every ledger there is useless: raise KEY_VERSION with it."""
    schema = r'"{\"type\": \"object\", \"properties\": {\"b\": {}, \"a\": {}}}"'
    canonical = (
        '{"messages":[{"parts":[{"text":"be brief"}],"role":"system"},'
        '{"parts":[{"text":"question"}],"role":"user"}],'
        f'"sample":0,"schema":{schema},"seed":0,"stop":[],"teacher":{{"model":"m","revision":"r1"}},'
        '"temperature":0.0,"version":1}'
    )
    assert request().key == hashlib.sha256(canonical.encode()).hexdigest()
    assert request().key == "6cce4a8fcd402b73af75636eb22c9728aac6c18e452bc24c3ff518c7f011bda4"


def image_part(folder: Path, name: str, data: bytes) -> tuple[Part, ...]:
    path = folder / name
    path.write_bytes(data)
    return (Part(text="look "), Part(image=Image(source=str(path), example=name)), Part(text=" well"))


def test_what_decides_the_answer_is_in_the_key(tmp_path):
    picture = request(parts=image_part(tmp_path, "a.png", b"one"))
    others = [
        request(),
        picture,
        request(parts=image_part(tmp_path, "b.png", b"two")),
        request(parts=picture.prompt.messages[1].parts[::-1]),
        request("another question"),
        request(system="be long"),
        request(schema=None),
        request(schema={"type": "object", "properties": {"a": {}, "b": {}}}),  # a grammar makes it answer in order
        request(stop=("\n",)),
        request(temperature=0.5),
        request(seed=1),
        request(sample=1),
        request(parts=(Part(text="ques"), Part(text="tion"))),
    ]
    keys = [o.key for o in others] + [request_key(request(), IDENTITY | {"revision": "r2"})]
    assert len(set(keys)) == len(keys)


def test_the_exclusion_table_holds(tmp_path):
    """Everything that the published table says is left out, is."""
    assert {
        "max_tokens",
        "the example's id",
        "template name and digest",
        "a picture's path and type",
    } <= EXCLUDED.keys()
    first = request(parts=image_part(tmp_path, "a.png", b"one"))
    again = request(
        parts=image_part(tmp_path, "elsewhere.png", b"one"),
        example="e2",
        template="ner/other.v3",
        digest="other",
        max_tokens=999,
    )
    assert first.key == again.key
    assert request(temperature=0).key == request(temperature=0.0).key
    assert request_key(request(), dict(reversed(IDENTITY.items()))) == request().key
    data_url = Image.of_bytes(b"one")
    assert request(parts=(Part(text="look "), Part(image=data_url), Part(text=" well"))).key == first.key


def test_a_missing_picture_is_named():
    with pytest.raises(ImageFault, match=r"nowhere\.png"):
        request(parts=(Part(image=Image(source="nowhere.png")),))


def test_an_identity_that_is_not_json_is_refused():
    with pytest.raises(TypeError):
        request_key(request(), {"model": object()})


# --- rows ---


def test_rows_come_back_as_they_were_said(tmp_path):
    said = 'tabs\t, lines\n, "quotes", 汉字, \u2028, \x00 and half a character \ud83d'
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ledger.append(row(request(), said))
    with Ledger(tmp_path / "l.jsonl") as ledger:
        back = ledger.row(request().key)
        assert back is not None
        assert back.text == said
        assert back.usage.prompt_tokens == 3
        assert ledger.row("unknown") is None


def test_an_error_without_a_name_still_has_a_reason():
    assert row(request(), finish="error").failure == "transport"


def test_what_settles_a_request(tmp_path):
    whole, cut, failed, unasked = request("1"), request("2"), request("3"), request("4")
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ledger.append(row(whole))
        ledger.append(row(cut, finish="length"))
        ledger.append(row(failed, finish="error", failure="refused"))
        ledger.append(row(unasked, finish="error", failure="over_budget"))
        assert ledger.settled(whole)
        assert ledger.settled(request("1", max_tokens=5000))
        assert ledger.settled(cut)
        assert ledger.settled(request("2", max_tokens=9))
        assert not ledger.settled(request("2", max_tokens=11))
        assert ledger.settled(failed)
        assert not ledger.settled(failed, retry_failed=True)
        assert not ledger.settled(unasked)
        assert not ledger.settled(request("5"))


def test_the_best_row_of_a_key_counts(tmp_path):
    """A failed retry never hides an answer that was paid for; a later answer replaces an earlier failure."""
    with Ledger(tmp_path / "l.jsonl") as ledger:
        for text, fields in (
            ("", {"finish": "error", "failure": "transport"}),
            ("cut", {"finish": "length"}),
            ("whole", {}),
            ("", {"finish": "error", "failure": "transport"}),
        ):
            ledger.append(row(request(), text, **fields))
    with Ledger(tmp_path / "l.jsonl") as ledger:
        best = ledger.row(request().key)
        assert best is not None
        assert best.text == "whole"
        assert len(list(read(ledger.path))) == 4


# --- what can go wrong ---


def written(tmp_path: Path, count: int) -> tuple[Path, bytes]:
    path = tmp_path / "l.jsonl"
    path.unlink(missing_ok=True)
    with Ledger(path) as ledger:
        for number in range(count):
            ledger.append(row(request(str(number)), f"answer {number} 汉"))
    return path, path.read_bytes()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_cut_anywhere_every_whole_line_survives(data, tmp_path_factory):
    path, whole = written(tmp_path_factory.mktemp("cut"), 3)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    survive = sum(cut >= end - 1 for end in ends)  # only the line end may be missing
    with Ledger(path) as ledger:
        assert len(ledger) == ledger.opened.rows == survive
        assert ledger.opened.damaged == ()
        assert bool(ledger.opened.torn_bytes) == (cut not in [0, *ends, *(end - 1 for end in ends)])
        assert ("torn last line" in str(ledger.opened)) == bool(ledger.opened.torn_bytes)
        ledger.append(row(request("new"), "after"))
    assert [r.text for r in read(path)] == [f"answer {n} 汉" for n in range(survive)] + ["after"]
    with Ledger(path) as ledger:
        assert ledger.opened.torn_bytes == 0


def test_a_damaged_line_in_the_middle_is_counted_and_kept_in_the_file(tmp_path):
    path, whole = written(tmp_path, 3)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00" * 50 + b"\n" + lines[2])
    with Ledger(path) as ledger:
        assert ledger.opened.damaged == (2,)
        assert len(ledger) == 2
        assert "1 damaged lines were left out: 2" in str(ledger.opened)
    assert b"\x00" * 50 in path.read_bytes()


#: A line as the first Magister wrote it: other order, no reasoning, no cached tokens, no check sum.
VERSION_1 = (
    '{"v": 1, "key": "%s", "example": "e1", "template": "ner/zero_shot.v1", "digest": "d", "sample": 0, '
    '"temperature": 0.0, "seed": 0, "max_tokens": 10, "finish": "stop", "failure": null, "detail": "", '
    '"text": "old answer", "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "seconds": 0.0, "teacher": "fake", '
    '"identity": {"model": "m", "revision": "r1"}, "time": "2026-11-23T12:00:00.000+00:00"}\n'
)


def test_ledgers_of_version_1_stay_readable(tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text(VERSION_1 % request("1").key)
    with Ledger(path) as ledger:
        ledger.append(row(request("2"), reasoning="aloud"))
    with Ledger(path) as ledger:
        old, new = ledger.row(request("1").key), ledger.row(request("2").key)
        assert (old.text, old.reasoning, old.usage.cached_tokens, old.v) == ("old answer", "", 0, 1)
        assert (new.reasoning, new.v) == ("aloud", LINE_VERSION)
        assert ledger.settled(request("1"))
        assert (ledger.spent.prompt_tokens, ledger.spent.completion_tokens) == (6, 2)


def test_rows_of_another_form_are_refused_not_asked_again(tmp_path):
    path = tmp_path / "l.jsonl"
    good = VERSION_1 % request().key
    path.write_text(good.replace('"v": 1', '"v": 3'))
    with pytest.raises(LedgerFault, match="line 1 is a row of version 3, this Magister reads versions 1 and 2"):
        Ledger(path)
    path.write_text(good.replace('"sample": 0', '"sample": "x"'))
    with pytest.raises(LedgerFault, match="line 1 is no row of a ledger"):
        Ledger(path)
    path.write_text(good)
    Ledger(path).close()  # the refusals left no lock behind


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_one_changed_byte_is_found(data, tmp_path_factory):
    """Whatever byte of a line changes, its row is left out and counted; never read as something else."""
    path, whole = written(tmp_path_factory.mktemp("byte"), 3)
    begin, end = whole.index(b"\n") + 1, whole.index(b"\n", whole.index(b"\n") + 1)
    at, byte = data.draw(st.integers(begin, end - 1)), data.draw(st.integers(0, 255))
    path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
    if byte in (whole[at], 10):
        return
    if at < whole.index(b', "crc"', begin):
        with Ledger(path) as ledger:
            assert ledger.opened.damaged == (2,)
            assert [r.text for r in read(path)] == ["answer 0 汉", "answer 2 汉"]
    else:  # the check sum itself was hit: a damaged line, or, where its mark is gone and JSON is left, a named fault
        with suppress(LedgerFault), Ledger(path) as ledger:
            assert ledger.opened.damaged == (2,)


def test_the_quick_way_says_what_parsing_says(tmp_path):
    """Lines as they are written are not parsed at opening; the index must know the same of them."""
    for failure in (None, *get_args(Failure)):
        for finish in get_args(Finish):
            if failure == "pending":
                continue
            made = row(request("q"), 'a "text", \n{"crc": 1}, "crc": "00000000"}', finish=finish, failure=failure)
            line = to_line(made)
            assert _LINE.fullmatch(line), "the quick way does not know this line"
            assert facts(line) == of_row(made) == of_row(of_line(line))


def test_what_is_still_to_come_is_never_written():
    with pytest.raises(ValueError, match="e1 is pending"):
        row(request(), finish="error", failure="pending")


# --- group commit ---


def test_rows_that_are_ready_together_share_a_sync(tmp_path, monkeypatch):
    """All are told of in order and once, each only after its sync; and no row of a slow engine waits for the next."""
    syncs, told, real = [], [], os.fsync

    def slow(descriptor):
        time.sleep(0.02)
        real(descriptor)
        syncs.append(descriptor)

    with Ledger(tmp_path / "l.jsonl") as ledger:
        monkeypatch.setattr(os, "fsync", slow)
        with Commit(ledger, lambda rows: told.append((len(syncs), [r.text for r in rows]))) as commit:
            for number in range(500):
                commit.add(row(request(str(number)), str(number)))
            alone = time.monotonic()
            while sum(len(texts) for _, texts in told) < 500:
                time.sleep(0.002)
                assert time.monotonic() - alone < 5, "a row waits for the next one"
            commit.add(row(request("last"), "last"))
        assert [text for _, texts in told for text in texts] == [*map(str, range(500)), "last"]
        assert len(syncs) < 100
        assert [done for done, _ in told] == sorted({done for done, _ in told})  # each group after a sync of its own
        assert len(ledger) == 501
    assert len(list(read(ledger.path))) == 501


def test_a_disk_that_refuses_to_sync_loses_no_count(tmp_path, monkeypatch):
    path, _ = written(tmp_path, 2)
    size = path.stat().st_size

    def broken(descriptor):
        raise OSError(5, "Input/output error")

    with Ledger(path) as ledger:
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(LedgerFull, match=r"Input/output error.*the replies of 2 requests are saved"):
            ledger.append(row(request("more")))
        assert path.stat().st_size == size
        monkeypatch.undo()
        with pytest.raises(LedgerFull):  # a second sync would claim what the first one lost
            ledger.append(row(request("more")))
        told = []
        with pytest.raises(LedgerFull), Commit(ledger, told.append) as commit:
            commit.add(row(request("more")))
        assert told == []


def test_what_the_told_raise_ends_nothing_and_is_logged_once(tmp_path, caplog):
    told = []

    def tell(rows):
        told.extend(rows)
        raise BrokenPipeError("the printer is on fire")

    with Ledger(tmp_path / "l.jsonl") as ledger:
        with Commit(ledger, tell) as commit:
            for number in range(20):
                commit.add(row(request(str(number))))
                time.sleep(0.002)
        assert len(ledger) == len(told) == 20
    assert len(caplog.records) == 1
    assert "on fire" in caplog.text


def test_a_full_ledger_that_the_told_find_stops_but_what_came_is_written(tmp_path):
    def tell(rows):
        raise LedgerFull(tmp_path, "the other disk is full", "make room")

    def go():
        with Ledger(tmp_path / "l.jsonl") as ledger, Commit(ledger, tell) as commit:
            commit.add(row(request("1")))
            commit._thread.join(5)
            commit.add(row(request("2")))

    with pytest.raises(LedgerFull, match="other disk"):
        go()
    assert len(list(read(tmp_path / "l.jsonl"))) == 2


def test_of_answers_cut_by_length_the_one_that_was_allowed_more_counts(tmp_path):
    with Ledger(tmp_path / "l.jsonl") as ledger:
        for text, limit in (("long", 20), ("short", 10), ("long again", 20), ("shortest", 5)):
            ledger.append(row(request(max_tokens=limit), text, finish="length"))
    with Ledger(tmp_path / "l.jsonl") as ledger:
        assert ledger.row(request().key).text == "long again"
        assert ledger.settled(request(max_tokens=20))
        assert not ledger.settled(request(max_tokens=21))


def test_a_second_opening_is_refused_by_name(tmp_path):
    path, _ = written(tmp_path, 1)
    script = f"from magister.teachers.ledger.ledger import Ledger; Ledger({str(path)!r})"
    with Ledger(path), pytest.raises(LedgerBusy):
        Ledger(path)
    with Ledger(path):
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert other.returncode == 1
        assert f"in use by process {os.getpid()} on " in other.stderr
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


DISK_FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_ledger import Ledger, request, row
with Ledger(Path({path!r})) as ledger:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    for number in range(1000):
        ledger.append(row(request(str(number)), "x" * 100))
"""


def test_a_full_disk_says_what_is_saved(tmp_path):
    path = tmp_path / "l.jsonl"
    script = DISK_FULL.format(here=str(Path(__file__).parent), path=str(path), limit=20_000)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    saved = len(list(read(path)))
    assert saved > 10
    last = done.stderr.strip().splitlines()[-1]
    assert "LedgerFull" in last
    assert f"the replies of {saved} requests are saved" in last
    assert "could not be written" in last
    with Ledger(path) as ledger:
        assert ledger.opened.torn_bytes == 0  # the half line was taken back
        assert len(ledger) == saved


def test_a_failed_write_leaves_the_ledger_usable(tmp_path):
    path, _ = written(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(path) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
        try:
            with pytest.raises(LedgerFull, match="example e1"):
                ledger.append(row(request("more")))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not ledger.settled(request("more"))
        ledger.append(row(request("more")))
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2
