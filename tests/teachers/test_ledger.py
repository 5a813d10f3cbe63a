"""The ledger: nothing that arrived is lost, nothing is asked twice, nothing else decides the key."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.prompts.messages import Message, Part, Prompt
from magister.tasks.images import Image, ImageFault
from magister.teachers.ledger import Ledger, LedgerBusy, LedgerFault, LedgerFull, Row, read, request_key
from magister.teachers.teacher import Reply, Request, Usage

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
    """Everything that the docstring says is left out, is."""
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


def test_rows_of_another_form_are_refused_not_asked_again(tmp_path):
    path, whole = written(tmp_path, 2)
    path.write_bytes(whole.replace(b'"v": 1', b'"v": 2'))
    with pytest.raises(LedgerFault, match="line 1 is a row of version 2"):
        Ledger(path)
    path.write_bytes(whole.replace(b'"sample": 0', b'"sample": "x"'))
    with pytest.raises(LedgerFault, match="line 1 is no row of a ledger"):
        Ledger(path)
    path.write_bytes(whole)
    Ledger(path).close()  # the refusals left no lock behind


def test_a_second_opening_is_refused_by_name(tmp_path):
    path, _ = written(tmp_path, 1)
    script = f"from magister.teachers.ledger import Ledger; Ledger({str(path)!r})"
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
