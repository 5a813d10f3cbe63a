"""Batch files: out once, in whatever state they come back, counted."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.prompts.messages import Message, Part, Prompt
from magister.tasks.images import Image
from magister.teachers.engines import batch
from magister.teachers.engines.batch import BatchTeacher, FolderBusy
from magister.teachers.teacher import Request
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))
from stub_server import completion, error, model


def request(text: str, *more: Image, key: str = "", max_tokens: int = 9, **prompt) -> Request:
    parts = (Part(text=text), *(Part(image=image) for image in more))
    made = Prompt(
        template="t", digest="d", messages=(Message(role="user", parts=parts),), max_tokens=max_tokens, **prompt
    )
    return Request(example="e", key=key or text, prompt=made)


REQUESTS = [request(f"q{i}") for i in range(7)]


def run(folder: Path, requests=REQUESTS, **options) -> dict:
    teacher = BatchTeacher(folder, "m", **options)
    replies = list(teacher.generate(requests))
    assert sorted(r.key for r in replies) == sorted(r.key for r in requests)
    return {r.key: r for r in replies} | {"notes": dict(teacher.notes), "advice": teacher.advice}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(folder: Path) -> list[dict]:
    return [line for path in sorted(folder.glob("requests-*.jsonl")) for line in lines(path)]


def answer(line: dict) -> dict:
    status, body = model(line["body"])
    return {
        "id": "b",
        "custom_id": line["custom_id"],
        "response": {"status_code": status, "request_id": "r", "body": body},
        "error": None,
    }


def put(folder: Path, name: str, *answers: dict | bytes) -> None:
    data = b"".join(a if isinstance(a, bytes) else json.dumps(a).encode() + b"\n" for a in answers)
    (folder / "answers" / name).write_bytes(data)


def state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_first_run_writes_and_says_what_to_do(tmp_path, caplog):
    found = run(tmp_path / "b")
    assert {found[r.key].failure for r in REQUESTS} == {"pending"}
    (first, *_) = asked(tmp_path / "b")
    assert first == {
        "custom_id": "q0",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "m",
            "messages": [{"role": "user", "content": "q0"}],
            "max_tokens": 9,
            "temperature": 0.0,
            "seed": 0,
        },
    }
    for said in (found["advice"], found["q3"].detail, caplog.text):
        assert "7 requests wait" in said
        assert "requests-00001.jsonl" in said
        assert "answers" in said
        assert "same command" in said


def test_the_same_run_twice_writes_the_same_files(tmp_path):
    run(tmp_path / "one")
    before = state(tmp_path / "one")
    run(tmp_path / "one")
    assert state(tmp_path / "one") == before
    run(tmp_path / "two")
    assert state(tmp_path / "two") == before
    put(tmp_path / "one", "a.jsonl", answer(asked(tmp_path / "one")[2]))
    before = state(tmp_path / "one")
    found = run(tmp_path / "one")
    assert found["q2"].text == "echo: q2"
    assert state(tmp_path / "one") == before


def test_answers_in_any_order_and_number_and_later_requests_in_a_further_file(tmp_path):
    run(tmp_path)
    wanted = asked(tmp_path)
    put(tmp_path, "z.jsonl", *(answer(line) for line in wanted[5:2:-1]))
    found = run(tmp_path)
    assert [found[r.key].failure for r in REQUESTS] == ["pending"] * 3 + [None] * 3 + ["pending"]
    assert found["q4"].usage.completion_tokens == 2
    put(tmp_path, "a.jsonl", *(answer(line) for line in wanted))
    found = run(tmp_path, [*REQUESTS, request("new")])
    assert [found[r.key].failure for r in REQUESTS] == [None] * 7
    assert found["new"].failure == "pending"
    assert found["notes"] == {"answers_that_came_twice": 3}
    assert [line["custom_id"] for line in lines(tmp_path / "requests-00002.jsonl")] == ["new"]


def test_files_are_parted_by_number_and_by_bytes(tmp_path):
    run(tmp_path / "n", file_requests=3)
    assert [len(lines(p)) for p in batch.request_files(tmp_path / "n")] == [3, 3, 1]
    size = len(json.dumps(asked(tmp_path / "n")[0])) + 1
    found = run(tmp_path / "b", [*REQUESTS, request("long " * 100)], file_bytes=2 * size)
    assert [len(lines(p)) for p in batch.request_files(tmp_path / "b")] == [2, 2, 2, 1]
    assert found["long " * 100].failure == "too_long"


def test_whatever_comes_back_is_taken_or_counted(tmp_path):
    run(tmp_path)
    wanted = asked(tmp_path)
    whole, text_body, bare, refused, too_long, cut, _ = wanted
    put(
        tmp_path,
        "out.jsonl",
        answer(whole),
        {"custom_id": text_body["custom_id"], "response": {"status_code": 200, "body": json.dumps(completion("t"))}},
        {"custom_id": bare["custom_id"], "response": completion("b"), "error": None},
        {"custom_id": refused["custom_id"], "response": {"body": completion(None, refusal="no")}},
        {"custom_id": "stranger", "response": {"status_code": 200, "body": completion("?")}},
        b'{"custom_id": "q6", "response": {"status_c\n',
        b"[]\n\n\xff\xfe\n",
        wanted[0],  # a request among the answers
    )
    put(
        tmp_path,
        "errors.jsonl",
        {"custom_id": too_long["custom_id"], "response": {"status_code": 400, "body": error("maximum context length")}},
        {"custom_id": cut["custom_id"], "response": {"status_code": 400, "body": error("temperature is wrong")}},
        json.dumps(answer(wanted[6])).encode()[:-9],
    )
    (tmp_path / "answers" / "readme.txt").write_text("x")
    found = run(tmp_path)
    assert [found[f"q{i}"].text for i in range(3)] == ["echo: q0", "t", "b"]
    assert [found[f"q{i}"].failure for i in range(3, 7)] == ["refused", "too_long", "rejected", "pending"]
    assert found["notes"] == {
        "files_in_answers_that_are_not_jsonl": 1,
        "lines_that_are_no_answer_(torn_or_of_another_form)": 5,
        "answers_with_an_error_(refused)": 1,
        "answers_with_an_error_(too_long)": 1,
        "answers_with_an_error_(rejected)": 1,
        "answers_to_requests_that_were_never_asked": 1,
    }


@pytest.mark.parametrize(
    "came",
    [
        {"response": None, "error": {"code": "batch_expired", "message": "not executed before the window expired"}},
        {"response": {"status_code": 500, "body": error("oops")}, "error": None},
        {"response": {"status_code": 429, "body": error("slow down")}, "error": None},
        {"response": {"status_code": 401, "body": error("wrong key")}, "error": None},
        {"response": {"status_code": 200, "body": {"choices": []}}, "error": None},
    ],
)
def test_what_was_not_answered_is_asked_again_once(tmp_path, came):
    (one,) = [request("q")]
    run(tmp_path, [one])
    put(tmp_path, "errors.jsonl", {"custom_id": "q", **came})
    found = run(tmp_path, [one])
    assert found["q"].failure == "pending"
    assert found["notes"]["requests_written_again"] == 1
    before = state(tmp_path)
    run(tmp_path, [one])
    assert state(tmp_path) == before
    again = lines(tmp_path / "requests-00002.jsonl")
    assert [line["custom_id"] for line in again] == ["q.try2"]
    put(tmp_path, "second.jsonl", answer(again[0]))
    assert run(tmp_path, [one])["q"].text == "echo: q"


def refused(line: dict, status: int, message: str) -> dict:
    return {"custom_id": line["custom_id"], "response": {"status_code": status, "body": error(message)}, "error": None}


def test_a_403_by_moderation_is_a_refusal_and_final(tmp_path):
    run(tmp_path, REQUESTS[:1])
    put(tmp_path, "a.jsonl", refused(asked(tmp_path)[0], 403, "Your input was flagged by moderation"))
    assert run(tmp_path, REQUESTS[:1])["q0"].failure == "refused"
    assert len(asked(tmp_path)) == 1


def test_a_request_file_that_is_there_twice_counts_once(tmp_path):
    run(tmp_path, REQUESTS[:1])
    (tmp_path / "requests-00002.jsonl").write_bytes((tmp_path / "requests-00001.jsonl").read_bytes())
    put(tmp_path, "a.jsonl", refused(asked(tmp_path)[0], 500, "oops"))
    run(tmp_path, REQUESTS[:1])
    assert [line["custom_id"] for line in asked(tmp_path)] == ["q0", "q0", "q0.try2"]


def test_two_runs_on_one_folder_are_refused_by_name(tmp_path):
    def during():
        yield REQUESTS[0]
        with pytest.raises(FolderBusy, match="another run"):
            run(tmp_path)
        yield REQUESTS[1]

    assert len(list(BatchTeacher(tmp_path, "m").generate(during()))) == 2
    assert [line["custom_id"] for line in asked(tmp_path)] == ["q0", "q1"]
    run(tmp_path)


def test_a_refused_form_is_asked_again_in_the_form_that_is_taken(tmp_path):
    wanted = [request("q", answer_schema={"type": "object"})]
    run(tmp_path, wanted)
    put(tmp_path, "1.jsonl", refused(asked(tmp_path)[0], 400, "Use 'max_completion_tokens' instead"))
    assert run(tmp_path, wanted)["q"].failure == "pending"
    second = asked(tmp_path)[1]
    assert (second["custom_id"], second["body"]["max_completion_tokens"]) == ("q.try2", 9)
    assert second["body"]["response_format"]["type"] == "json_schema"
    put(tmp_path, "2.jsonl", refused(second, 400, "json_schema is not supported"))
    assert run(tmp_path, wanted)["q"].failure == "pending"
    third = asked(tmp_path)[2]
    assert third["body"]["response_format"] == {"type": "json_object"}
    assert "max_tokens" not in third["body"]
    put(tmp_path, "3.jsonl", refused(third, 400, "temperature: must be at least 1"))
    assert run(tmp_path, wanted)["q"].failure == "rejected"
    assert len(asked(tmp_path)) == 3


def test_foreign_identifiers_and_folders_among_the_answers_are_counted(tmp_path):
    run(tmp_path)
    put(tmp_path, "a.jsonl", answer(asked(tmp_path)[0] | {"custom_id": "q0.try" + "9" * 5000}))
    (tmp_path / "answers" / "z.jsonl").mkdir()
    notes = run(tmp_path)["notes"]
    assert notes["answers_to_requests_that_were_never_asked"] == 1
    assert notes["files_in_answers_that_are_not_jsonl"] == 1


def test_a_raised_limit_asks_again_only_what_was_cut(tmp_path):
    short = [request("one", max_tokens=3), request("one two three four", max_tokens=3)]
    run(tmp_path, short)
    put(tmp_path, "a.jsonl", *map(answer, asked(tmp_path)))
    found = run(tmp_path, short)
    assert [found[r.key].finish for r in short] == ["stop", "length"]
    raised = [r.model_copy(update={"prompt": r.prompt.model_copy(update={"max_tokens": 9})}) for r in short]
    found = run(tmp_path, raised)
    assert [found[r.key].failure for r in raised] == [None, "pending"]
    assert [line["body"]["max_tokens"] for line in asked(tmp_path)] == [3, 3, 9]
    found = run(tmp_path, raised)
    assert found["one two three four"].failure == "pending"
    put(tmp_path, "b.jsonl", answer(asked(tmp_path)[-1]))
    found = run(tmp_path, raised)
    assert found["one two three four"].text == "echo: one two three four"


def test_pictures_as_data_and_as_paths(tmp_path):
    path = tmp_path / "red cat.png"
    Pillow.new("RGB", (4, 4), "red").save(path)
    with_data = Image.of_bytes(path.read_bytes())
    broken = Image(source=str(tmp_path / "none.png"), example="e7")
    requests = [request("a", Image(source=str(path)), with_data, key="a"), request("b", broken, key="b")]
    for images in ("data", "paths"):
        found = run(tmp_path / images, requests, images=images)
        assert (found["a"].failure, found["b"].failure) == ("pending", "image")
        assert "e7" in found["b"].detail
        ((line),) = asked(tmp_path / images)
        urls = [part["image_url"]["url"] for part in line["body"]["messages"][0]["content"][1:]]
        assert urls[1] == with_data.source
        assert urls[0] == (with_data.source if images == "data" else path.resolve().as_uri())


def test_a_run_that_breaks_off_leaves_no_half_file(tmp_path):
    def some():
        yield from REQUESTS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(BatchTeacher(tmp_path, "m").generate(some()))
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["batch.lock"]
    (tmp_path / "requests-00001.jsonl.part").write_bytes(b"left by a kill -9")
    run(tmp_path)
    assert len(asked(tmp_path)) == 7
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_request_file_is_named(tmp_path):
    run(tmp_path)
    path = tmp_path / "requests-00001.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"requests-00001\.jsonl line 7"):
        run(tmp_path)


def test_specs(tmp_path):
    made = BatchTeacher.of_spec(f"batch:{tmp_path}/x?model=org/m:1&name=lab&images=paths&limit=max_completion_tokens")
    assert (made.model, made.images, made.limit, made.sees_images) == (
        "org/m:1",
        "paths",
        "max_completion_tokens",
        True,
    )
    assert made.identity() == {"engine": "batch", "model": "org/m:1", "endpoint": "lab"}
    assert not BatchTeacher.of_spec("batch:x?model=m&text_only=1").sees_images
    for bad in ("batch:x", "batch:x?model=", "batch:x?model=m&colour=red", "batch:x?model=m&images=none", "batch:x?m"):
        with pytest.raises(ValueError, match=r"model|there are|data or paths"):
            BatchTeacher.of_spec(bad)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.binary(max_size=40), max_size=5))
def test_damage_of_any_kind_loses_only_what_it_hit(tmp_path_factory, rng: random.Random, noise):
    folder = tmp_path_factory.mktemp("b")
    run(folder)
    answers = [json.dumps(answer(line)).encode() for line in asked(folder)]
    rng.shuffle(answers)
    torn = rng.randrange(len(answers))
    kept = answers[:torn] + [a for a in noise if b"\n" not in a] + answers[torn + 1 :]
    data = b"\n".join(kept) + b"\n" + answers[torn][: rng.randrange(len(answers[torn]))]
    put(folder, "a.jsonl", data)
    found = run(folder)
    lost = json.loads(answers[torn])["custom_id"]
    assert {r.key: found[r.key].failure for r in REQUESTS} == {
        r.key: "pending" if r.key == lost else None for r in REQUESTS
    }


NAMES = "custom_id response body error status_code choices message content finish_reason usage x".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_any_line_is_an_answer_or_none(data):
    line = json.dumps(data if not isinstance(data, dict) else {"custom_id": "k", **data}).encode()
    read = batch._answer(line)
    assert read is None or read[1] in (0, 1, 2, 3)
