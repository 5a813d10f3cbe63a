"""The OpenAI-compatible teacher against a server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from magister.prompts.messages import Message, Part, Prompt
from magister.tasks.images import Image
from magister.teachers.openai import OpenAITeacher
from magister.teachers.teacher import Reply, Request
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))
from stub_server import StubServer


@pytest.fixture
def server():
    with StubServer() as stub:
        yield stub


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    monkeypatch.delenv("MAGISTER_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def request(*parts: str | Image, key: str = "k", **prompt) -> Request:
    made = tuple(Part(text=p) if isinstance(p, str) else Part(image=p) for p in parts)
    message = Message(role="user", parts=made)
    return Request(
        example="e",
        key=key,
        prompt=Prompt(template="t", digest="d", messages=(message,), max_tokens=9, **prompt),
    )


def ask(server: StubServer, *texts: str, **options) -> dict[str, Reply]:
    teacher = OpenAITeacher("m", server.url, **options)
    replies = list(teacher.generate(request(t, key=t) for t in texts))
    assert sorted(r.key for r in replies) == sorted(texts)
    return {r.key: r for r in replies}


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_answers_and_counts(server):
    reply = ask(server, "hello")["hello"]
    assert (reply.text, reply.finish, reply.failure) == ("echo: hello", "stop", None)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 3)
    assert reply.seconds > 0
    assert server.bodies[0]["max_tokens"] == 9
    assert server.bodies[0]["temperature"] == 0


@pytest.mark.parametrize("fault", ["[500-once]", "[truncated-once]", "[drop-once]"])
def test_what_passes_by_itself_is_asked_again(server, fault):
    reply = ask(server, fault)[fault]
    assert reply.text == f"echo: {fault}"
    assert server.asked[fault] == 2


def test_a_timeout_is_asked_again(server):
    assert ask(server, "[slow-once]", timeout=0.5)["[slow-once]"].text == "echo: [slow-once]"


def test_retries_end(server):
    reply = ask(server, "[500-always]", attempts=2)["[500-always]"]
    assert (reply.failure, reply.finish) == ("transport", "error")
    assert "HTTP 503" in reply.detail
    assert "overloaded" in reply.detail
    assert "2 tries" in reply.detail
    assert server.asked["[500-always]"] == 2


def test_retry_after_is_obeyed_and_makes_the_others_wait(server):
    started = time.monotonic()
    teacher = OpenAITeacher("m", server.url, concurrency=1)
    replies = [
        (r, time.monotonic() - started) for r in teacher.generate(request(t, key=t) for t in ["[429-once]", "b"])
    ]
    assert [r.failure for r, _ in replies] == [None, None]
    assert replies[0][1] >= 0.3
    paused = OpenAITeacher("m", server.url)
    paused._paused_until = time.monotonic() + 0.3
    started = time.monotonic()
    list(paused.generate([request("c")]))
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("fault", ["[429-late]", "[429-silent]"])
def test_a_429_is_not_asked_again_blindly(server, fault):
    assert ask(server, fault)[fault].failure == "rate_limit"
    assert server.asked[fault] == 1


@pytest.mark.parametrize(
    ("fault", "failure", "word"),
    [
        ("[refusal]", "refused", "cannot help"),
        ("[filter]", "refused", "filter"),
        ("[too-long]", "too_long", "maximum context"),
        ("[bad-image]", "image", "identify image"),
        ("[html]", "transport", "HTTP 404"),
    ],
)
def test_failures_have_names_and_are_not_asked_again(server, fault, failure, word):
    reply = ask(server, fault)[fault]
    assert (reply.finish, reply.failure) == ("error", failure)
    assert word in reply.detail
    assert server.asked[fault] == 1


def test_length_and_thoughts(server):
    replies = ask(server, "[length]", "[thinks]")
    assert (replies["[length]"].finish, replies["[length]"].text) == ("length", '{"entities": [')
    assert (replies["[thinks]"].text, replies["[thinks]"].detail) == ("42", "six times seven")


def test_one_bad_request_never_stops_the_others(server):
    faults = [
        "[500-always]",
        "[429-silent]",
        "[refusal]",
        "[too-long]",
        "[html]",
        "[truncated-once]",
        "[length]",
    ]
    texts = faults + [f"good {i}" for i in range(30)]
    replies = ask(server, *texts, attempts=2, concurrency=8)
    assert sum(r.failure is None for r in replies.values()) == 32
    assert sum(r.failure is not None for r in replies.values()) == 5


def test_a_dead_endpoint_fails_each_request_by_name():
    with StubServer() as stub:
        url = stub.url
    replies = list(OpenAITeacher("m", url, attempts=1).generate([request("a", key="a"), request("b", key="b")]))
    assert {r.failure for r in replies} == {"transport"}


def test_concurrency_is_bounded_and_requests_are_drawn_lazily(server):
    drawn = itertools.count()
    teacher = OpenAITeacher("m", server.url, concurrency=3)
    replies = teacher.generate(request(str(next(drawn)), key=str(i)) for i in itertools.count())
    for _ in range(20):
        next(replies)
    assert next(drawn) <= 24
    replies.close()
    assert 1 < server.most_under_way <= 3
    assert not [t for t in threading.enumerate() if "run_forever" in repr(t)]


def test_pictures_stand_in_their_place_and_broken_ones_fail_alone(server, tmp_path):
    red, blue = Image.of_bytes(png("red")), tmp_path / "blue.jpg"
    Pillow.new("RGB", (4, 4), "blue").save(blue)
    teacher = OpenAITeacher("m", server.url)
    broken = Image(source=str(tmp_path / "none.jpg"), example="e7")
    replies = {
        r.key: r
        for r in teacher.generate(
            [
                request("first ", red, " then ", Image(source=str(blue)), key="good"),
                request("look ", broken, key="bad"),
            ]
        )
    }
    assert replies["bad"].failure == "image"
    assert "e7" in replies["bad"].detail
    assert "none.jpg" in replies["bad"].detail
    (body,) = server.bodies
    content = body["messages"][0]["content"]
    assert [p["type"] for p in content] == ["text", "image_url", "text", "image_url"]
    assert base64.b64decode(content[1]["image_url"]["url"].partition(",")[2]) == png("red")
    assert content[3]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_a_schema_is_sent_along_and_samples_draw_differently(server):
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    teacher = OpenAITeacher("m", server.url)
    one = request("x", answer_schema=schema)
    list(teacher.generate([one, one.model_copy(update={"sample": 1, "temperature": 0.7})]))
    sent = {b["seed"]: b for b in server.bodies}
    assert len(sent) == 2
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == schema
    list(teacher.generate([request("y")]))
    assert not server.bodies[-1].keys() & {"response_format", "stop"}
    list(teacher.generate([request("y", stop=("\nText:",))]))
    assert server.bodies[-1]["stop"] == ["\nText:"]


def test_the_key_is_sent_and_shown_nowhere(server, monkeypatch):
    monkeypatch.setenv("MAGISTER_API_KEY", "sk-secret-1")
    teacher = OpenAITeacher("m", server.url)
    (reply,) = teacher.generate([request("[no-key]")])
    assert server.headers[0]["Authorization"] == "Bearer sk-secret-1"
    assert reply.failure == "transport"
    assert "HTTP 401" in reply.detail
    assert "sk-secret" not in json.dumps([reply.model_dump(), teacher.identity(), teacher.spec, str(vars(teacher))])


def test_credentials_of_the_url_are_used_and_shown_nowhere(server):
    spec = f"openai:a/b@{server.url.replace('//', '//me:hush@')}"
    teacher = OpenAITeacher.of_spec(spec)
    (reply,) = teacher.generate([request("[no-key]")])
    assert server.headers[0]["Authorization"] == "Basic " + base64.b64encode(b"me:hush").decode()
    assert "hush" not in json.dumps([reply.model_dump(), teacher.identity(), teacher.spec])
    assert teacher.spec == f"openai:a/b@{server.url}"
    with pytest.raises(ValueError, match="has a query") as error:
        OpenAITeacher("m", "http://host/v1?key=hush")
    assert "hush" not in str(error.value)


def test_identity_tells_endpoints_apart_unless_they_are_named():
    here, there = (OpenAITeacher.of_spec(f"openai:m@http://{host}/v1").identity() for host in ("a:1", "b:1"))
    assert here != there
    here, there = (OpenAITeacher.of_spec(f"openai:m@http://{host}/v1#lab").identity() for host in ("a:1", "b:1"))
    assert here == there


def test_works_inside_a_running_event_loop(server):
    async def notebook_cell() -> list[Reply]:
        return list(OpenAITeacher("m", server.url).generate([request("hi")]))

    assert asyncio.run(notebook_cell())[0].text == "echo: hi"


def test_it_imports_nothing_heavy():
    heavy = "'torch', 'transformers', 'datasets'"
    imports = "import sys, magister.teachers.openai, magister.teachers.spec"
    code = f"{imports}; print(sys.modules.keys() & {{{heavy}}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
