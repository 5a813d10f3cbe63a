"""What every engine must do, on every engine: one list of behaviours.

A new engine needs one line in `ENGINES`: a function that gives an `Engine`, or skips with a reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from magister.tasks.images import Image, ImageFault
from magister.teachers.engines import wire
from magister.teachers.ledger.key import request_key
from magister.teachers.teacher import Reply, sampling_seed

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_llms
from asking import few_shot, picture, request, with_schema
from fake_teacher import FakeTeacher
from stub_server import StubServer, model

SECRET = "sk-contract-secret"


@dataclass
class Engine:
    """An engine under test.

    Attributes:
        teacher: it.
        answer: called between a first and a second `generate` where answers are to come later (`batch`).
        sees, constrains: whether it is given pictures, and holds answers to a schema.
    """

    teacher: Any
    answer: Callable[[], None] | None = None
    sees: bool = True
    constrains: bool = True

    def ask(self, *requests) -> dict[str, Reply]:
        """Every reply by its key; each request has exactly one."""
        replies = list(self.teacher.generate(requests))
        assert sorted(r.key for r in replies) == sorted(r.key for r in requests)
        if self.answer is not None and any(r.failure == "pending" for r in replies):
            self.answer()
            replies = list(self.teacher.generate(requests))
            assert sorted(r.key for r in replies) == sorted(r.key for r in requests)
        return {r.key: r for r in replies}


@contextmanager
def openai(folder: Path) -> Iterator[Engine]:
    from magister.teachers.engines.openai import OpenAITeacher

    with StubServer() as stub:
        yield Engine(OpenAITeacher("m", stub.url.replace("//", f"//me:{SECRET}@"), concurrency=4))


@contextmanager
def batch(folder: Path) -> Iterator[Engine]:
    from magister.teachers.engines.batch import BatchTeacher, request_files

    def answer() -> None:
        """Answer every request file whole, last line first."""
        for path in request_files(folder):
            answers = []
            for line in map(json.loads, path.read_text().splitlines()):
                status, body = model(line["body"])
                answers.append({"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}})
            (folder / "answers" / path.name).write_text("".join(json.dumps(a) + "\n" for a in reversed(answers)))

    yield Engine(BatchTeacher(folder, "m"), answer)


@contextmanager
def transformers_text(folder: Path) -> Iterator[Engine]:
    from magister.teachers.engines.transformers import TransformersTeacher

    teacher = TransformersTeacher(tiny_llms.text_llm(folder), dtype="float32", batch_size=4)
    yield Engine(teacher, sees=False, constrains=teacher.constrains)


@contextmanager
def transformers_vision(folder: Path) -> Iterator[Engine]:
    from magister.teachers.engines.transformers import TransformersTeacher

    teacher = TransformersTeacher(tiny_llms.vision_llm(folder), dtype="float32", batch_size=4)
    yield Engine(teacher, constrains=teacher.constrains)


@contextmanager
def vllm_text(folder: Path) -> Iterator[Engine]:
    if find_spec("vllm") is None:
        pytest.skip("vllm is not installed (make test-vllm)")
    from magister.teachers.engines.vllm import VLLMTeacher

    yield Engine(VLLMTeacher(tiny_llms.text_llm(folder), dtype="float32"), sees=False)


@contextmanager
def vllm_vision(folder: Path) -> Iterator[Engine]:
    if find_spec("vllm") is None:
        pytest.skip("vllm is not installed (make test-vllm)")
    from magister.teachers.engines.vllm import VLLMTeacher

    yield Engine(VLLMTeacher(tiny_llms.vision_llm(folder), dtype="float32"))


@contextmanager
def fake(folder: Path) -> Iterator[Engine]:
    """The tests' own stand-in must not promise what no engine does."""

    def says(asked) -> Reply:
        body = {"messages": [{"role": "user", "content": asked.prompt.messages[-1].text}], "seed": sampling_seed(asked)}
        schema = asked.prompt.answer_schema
        form = {"type": "json_schema", "json_schema": {"schema": schema}} if schema else {}
        body |= {"temperature": asked.temperature, "max_tokens": asked.prompt.max_tokens, "response_format": form}
        try:
            for image in (i for m in asked.prompt.messages for i in m.images):
                image.open()
        except ImageFault as fault:
            return Reply(key=asked.key, finish="error", failure="image", detail=str(fault))
        status, answer = model(body)
        if status != 200:
            return Reply(key=asked.key, finish="error", failure="too_long", detail=wire.problem(status, answer))
        return wire.completion(asked.key, answer)

    yield Engine(FakeTeacher(says))


ENGINES = {
    "openai": openai,
    "batch": batch,
    "transformers": transformers_text,
    "transformers-vision": transformers_vision,
    "vllm": vllm_text,
    "vllm-vision": vllm_vision,
    "fake": fake,
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, tmp_path_factory):
    with ENGINES[request.param](tmp_path_factory.mktemp("engine")) as made:
        yield made
        made.teacher.close()
        made.teacher.close()


def test_each_request_has_one_reply_with_its_key(engine):
    keys = [f"one {i}" for i in range(9)]
    replies = engine.ask(*(few_shot(key, key=key) for key in keys))
    assert replies.keys() == set(keys)
    assert {r.failure for r in replies.values()} == {None}
    assert all(r.finish in ("stop", "length") for r in replies.values())


def test_no_request_is_no_reply(engine):
    assert engine.ask() == {}


def test_a_prompt_that_is_too_long_fails_alone_and_by_name(engine):
    replies = engine.ask(few_shot("Bo", key="l1"), request("word " * 3000, key="long"), few_shot("Anna", key="l2"))
    assert (replies["long"].failure, replies["long"].finish) == ("too_long", "error")
    assert replies["long"].detail
    assert replies["l1"].failure is replies["l2"].failure is None


def test_a_broken_picture_fails_alone_and_by_name(engine, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    asked = [request("a ", Image(source=str(bad), example="e3"), key="bad"), request("a b", key="words")]
    if engine.sees:
        asked.append(request("a ", picture("red"), key="good"))
    replies = engine.ask(*asked)
    assert (replies.pop("bad").failure) == "image"
    assert {r.failure for r in replies.values()} == {None}


def test_a_broken_picture_is_named_with_its_example(engine, tmp_path):
    if not engine.sees:
        pytest.skip("it opens no pictures")
    missing = Image(source=str(tmp_path / "none.jpg"), example="e3")
    detail = engine.ask(request("a ", missing, key="missing"))["missing"].detail
    assert "e3" in detail
    assert "none.jpg" in detail


def test_an_answer_cut_by_its_limit_says_so(engine):
    reply = engine.ask(few_shot("Anna", max_tokens=2, key="cut"))["cut"]
    assert (reply.finish, reply.failure) == ("length", None)
    assert 0 < reply.usage.completion_tokens <= 2


def test_tokens_and_seconds_are_counted(engine):
    replies = engine.ask(few_shot("Anna", key="u1"), request("Anna", key="u2"))
    assert replies["u1"].usage.prompt_tokens > replies["u2"].usage.prompt_tokens > 0
    assert replies["u1"].usage.completion_tokens > 0
    assert all(r.seconds >= 0 for r in replies.values())


def test_seeds_reproduce_and_samples_differ(engine):
    warm = [few_shot("Anna", key=f"s{i}", temperature=1.0, sample=i % 4, seed=3) for i in range(8)]
    texts = {key: reply.text for key, reply in engine.ask(*warm).items()}
    assert [texts[f"s{i}"] for i in range(4)] == [texts[f"s{i}"] for i in range(4, 8)]
    assert len({texts[f"s{i}"] for i in range(4)}) > 1


def test_a_greedy_answer_is_the_same_again(engine):
    replies = engine.ask(*(few_shot("Bo", key=f"g{i}") for i in range(3)))
    assert len({r.text for r in replies.values()}) == 1


def test_answers_held_to_a_schema_parse(engine):
    if not engine.constrains:
        pytest.skip("it holds no answer to its schema here")
    posts = ("Anna", "Bo", "x y", "in Rome", "Oslo!", "a")
    replies = engine.ask(*(with_schema(few_shot(p, max_tokens=120, key=f"j{p}")) for p in posts))
    whole = [json.loads(r.text) for r in replies.values() if r.finish == "stop"]
    assert whole, "tiny random LLMs write whole answers, too, if they are held to it"
    assert all(list(answer) == ["entities"] for answer in whole)
    assert {r.failure for r in replies.values()} == {None}


def test_the_identity_is_json_and_holds_no_secret(engine):
    identity = engine.teacher.identity()
    assert identity == json.loads(json.dumps(identity)) == engine.teacher.identity()
    assert SECRET not in json.dumps([identity, engine.teacher.spec])
    assert len(request_key(few_shot("Bo"), identity)) == 64


def test_an_abandoned_run_can_be_followed_by_another(engine):
    replies = iter(engine.teacher.generate([few_shot(f"w{i}", key=f"w{i}") for i in range(6)]))
    next(replies)
    replies.close()
    assert engine.ask(few_shot("Bo", key="after"))["after"].failure is None
