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
from pathlib import Path

import pytest
from magister.prompts.messages import Message, Part, Prompt
from magister.tasks.images import Image
from magister.teachers.engines import limits, openai, wire
from magister.teachers.engines.limits import EndpointDown
from magister.teachers.engines.openai import OpenAITeacher
from magister.teachers.teacher import Reply, Request
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))
from stub_server import StubServer, completion


@pytest.fixture
def server():
    with StubServer() as stub:
        yield stub


@pytest.fixture(autouse=True)
def _no_keys_and_short_pauses(monkeypatch):
    monkeypatch.setattr(openai, "backoff", lambda failed: min(limits.backoff(failed), 0.05))
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
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (1, 2)
    assert reply.seconds > 0
    assert server.bodies[0]["max_tokens"] == 9
    assert server.bodies[0]["temperature"] == 0


@pytest.mark.parametrize(
    "fault",
    [
        "[500-once]", "[502-once]", "[504-once]", "[error-200-once]", "[truncated-once]", "[short-once]", "[drop-once]",
        "[no-choices-once]", "[nested-once]",
    ],
)  # fmt: skip
def test_what_passes_by_itself_is_asked_again(server, fault):
    reply = ask(server, fault)[fault]
    assert reply.text == f"echo: {fault}"
    assert server.asked[fault] == 2


def test_a_hanging_call_is_asked_again(server):
    assert ask(server, "[hang-once]", timeout=0.5)["[hang-once]"].text == "echo: [hang-once]"
    assert server.asked["[hang-once]"] == 2


def test_retries_end(server):
    reply = ask(server, "[500-always]", attempts=2)["[500-always]"]
    assert (reply.failure, reply.finish) == ("transport", "error")
    assert "HTTP 503" in reply.detail
    assert "overloaded" in reply.detail
    assert "2 tries" in reply.detail
    assert server.asked["[500-always]"] == 2


@pytest.mark.parametrize(("fault", "least"), [("[429-once]", 0.3), ("[503-once]", 0.3), ("[429-date-once]", 0.9)])
def test_retry_after_is_obeyed_and_makes_the_others_wait(server, fault, least):
    replies = ask(server, fault, *"abcdef", concurrency=1)
    assert {r.failure for r in replies.values()} == {None}
    assert server.asked[fault] == 2
    assert server.times[1] - server.times[0] >= least
    assert server.asked.total() == 8


def test_a_429_without_retry_after_is_not_asked_again_at_once(server):
    assert ask(server, "[429-silent-once]")["[429-silent-once]"].failure is None
    assert server.times[1] - server.times[0] >= 0.45


def test_concurrency_finds_what_the_endpoint_bears(server, monkeypatch, caplog):
    server.capacity = 6
    monkeypatch.setattr(limits.random, "uniform", lambda low, high: 0.03)
    teacher = OpenAITeacher("m", server.url, concurrency=64)
    replies = list(teacher.generate(request(str(i), key=str(i)) for i in range(300)))
    assert [r.failure for r in replies].count(None) == 300
    assert 1 <= teacher.limits.width.now <= 12
    assert 1 <= teacher.limits.width.cuts <= 15
    assert len([r for r in caplog.records if "says 429" in r.message]) == teacher.limits.width.cuts
    # Each burst costs at most what was under way when it began: far from one 429 a request.
    assert server.asked.total() - 300 < 100


def test_a_request_that_only_ever_meets_429_fails_alone(server, monkeypatch):
    monkeypatch.setattr(limits.random, "uniform", lambda low, high: 0.001)
    monkeypatch.setattr(openai, "TURNED_AWAY", 3)
    replies = ask(server, "[429-zero]", "a", "b")
    assert replies["[429-zero]"].failure == "rate_limit"
    assert "3 times" in replies["[429-zero]"].detail
    assert replies["a"].failure is replies["b"].failure is None


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("429-late", "86,400 s"),
        ("quota", "exceeded your current quota"),
        ("no-key", "set MAGISTER_API_KEY"),
        ("no-credit", "no credit"),
        ("no-model", "no such model"),
        ("html", "usually ends in /v1"),
    ],
)
def test_what_no_request_can_mend_stops_the_run_at_once(server, mood, words):
    server.mood = mood
    drawn = itertools.count()
    teacher = OpenAITeacher("m", server.url, concurrency=4)
    with pytest.raises(EndpointDown, match=words):
        list(teacher.generate(request(str(next(drawn)), key=str(i)) for i in range(1000)))
    most = 4 if mood not in ("no-model", "html") else 3 + limits.NEVER
    assert server.asked.total() <= most
    assert next(drawn) <= 8 + most


def test_what_stops_the_run_loses_no_reply_under_way(server):
    texts = [*(f"{i} [slow]" for i in range(5)), "[no-credit]", *map(str, range(100))]
    teacher = OpenAITeacher("m", server.url, concurrency=6)
    replies = []
    with pytest.raises(EndpointDown, match="HTTP 402"):
        replies.extend(iter_into(replies, teacher.generate(request(t, key=t) for t in texts)))
    assert {r.key for r in replies} >= set(texts[:5])
    answered = server.asked.total() - 1
    assert len(replies) == answered


def iter_into(kept, replies):
    for reply in replies:
        kept.append(reply)
    return []


def test_one_403_before_any_answer_fails_alone(server):
    replies = ask(server, "[no-path]", *"abc", concurrency=1)
    assert [replies[k].failure for k in ("[no-path]", *"abc")] == ["rejected", None, None, None]


def test_rows_that_only_ever_meet_5xx_fail_and_do_not_stop_the_run(server, monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda failed: 0.0)
    bad = [f"[500-always] {i}" for i in range(12)]
    replies = ask(server, *(f"good {i}" for i in range(300)), *bad, concurrency=8)
    failed = {k: r.failure for k, r in replies.items() if r.failure}
    assert failed == dict.fromkeys(bad, "transport")
    assert all(server.asked[text] == 5 for text in bad)


def test_rows_left_with_errors_when_the_endpoint_is_given_up_at_the_end_have_failed(server, monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda failed: 0.1)
    bad = [f"[500-always] {i}" for i in range(12)]
    replies = ask(server, *(f"good {i}" for i in range(300)), *bad, concurrency=8, patience=0.5, attempts=20)
    assert {k for k, r in replies.items() if r.failure == "transport"} == set(bad)


def test_an_outage_beside_a_hanging_call_does_not_end_the_run(server, monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda failed: 0.0)
    teacher = OpenAITeacher("m", server.url, concurrency=16, timeout=3, patience=1)
    texts = [f"good {i}" for i in range(1500)]
    texts[400] = "[hang-once]"
    ended = []
    for reply in teacher.generate(request(t, key=t) for t in texts):
        assert reply.failure is None
        ended.append(reply.key)
        if len(ended) == 600:
            server.mood = "500-always"
            threading.Timer(0.3, lambda: setattr(server, "mood", "")).start()
    assert sorted(ended) == sorted(texts)


@pytest.mark.parametrize(
    ("finish", "ended", "failure"),
    [
        ("model_length", "length", None),
        ("MAX_TOKENS", "length", None),
        ("end_turn", "stop", None),
        ("tool_calls", "stop", None),
        (None, "stop", None),
        ("SAFETY", "error", "refused"),
        ("recitation", "error", "refused"),
    ],
)
def test_other_words_for_the_end_of_an_answer(finish, ended, failure):
    reply = wire.completion("k", completion("half", finish=finish))
    assert (reply.finish, reply.failure) == (ended, failure)


@pytest.mark.parametrize("finish", ["insufficient_system_resource", "repetition", "cancelled", "abort", 7])
def test_an_end_for_an_unknown_reason_is_no_answer(finish):
    with pytest.raises(wire.BadBody, match=str(finish)):
        wire.completion("k", completion("half", finish=finish))


def test_one_refused_schema_leaves_the_others_their_schema(server):
    good, bad = {"type": "object"}, {"type": "object", "properties": {"a": {"enum": []}}}
    asked = [request(f"g{i}", key=f"g{i}", answer_schema=good) for i in range(40)]
    asked.insert(0, request("[no-schema] a", key="bad", answer_schema=bad))
    teacher = OpenAITeacher("m", server.url, concurrency=2)
    assert {r.failure for r in teacher.generate(asked)} == {None}
    assert teacher.notes == {"answers_that_the_endpoint_did_not_hold_to_their_schema": 1}
    forms = [b.get("response_format", {}).get("type") for b in server.bodies]
    assert (forms.count("json_schema"), forms.count("json_object"), forms.count(None)) == (41, 1, 1)


def test_two_refused_schemas_decide_for_the_run(server):
    server.mood = "no-json-schema"
    asked = [request(str(i), key=str(i), answer_schema={"type": "object", "title": str(i)}) for i in range(20)]
    assert {r.failure for r in OpenAITeacher("m", server.url, concurrency=1).generate(asked)} == {None}
    assert server.asked.total() == 22


def test_a_404_to_a_later_request_fails_alone(server):
    teacher = OpenAITeacher("m", server.url, concurrency=1)
    replies = {r.key: r for r in teacher.generate(request(t, key=t) for t in ["a", "[no-model]", "b"])}
    assert [replies[k].failure for k in ("a", "[no-model]", "b")] == [None, "rejected", None]


@pytest.mark.parametrize(
    ("fault", "failure", "word"),
    [
        ("[refusal]", "refused", "cannot help"),
        ("[filter]", "refused", "filter"),
        ("[flagged]", "refused", "moderation"),
        ("[too-long]", "too_long", "maximum context"),
        ("[429-too-large]", "too_long", "Request too large"),
        ("[bad-image]", "image", "identify image"),
        ("[rejected]", "rejected", "must be at least 1"),
    ],
)
def test_failures_have_names_and_are_not_asked_again(server, fault, failure, word):
    reply = ask(server, fault)[fault]
    assert (reply.finish, reply.failure) == ("error", failure)
    assert word in reply.detail
    assert server.asked[fault] == 1


def test_an_option_that_is_wrong_for_every_request_stops_the_run(server, monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda failed: 0.0)
    server.mood = "rejected"
    with pytest.raises(EndpointDown, match="temperature: must be at least 1"):
        list(OpenAITeacher("m", server.url).generate(request(str(i), key=str(i)) for i in range(2000)))
    assert server.asked.total() < 100


def test_what_is_said_is_kept_as_it_is(server):
    names = [
        "length",
        "thinks",
        "thinks-too",
        "thinks-aloud",
        "wrong-schema",
        "whitespace",
        "loop",
        "cached",
        "odd-usage",
    ]
    replies = {k.strip("[]"): r for k, r in ask(server, *(f"[{n}]" for n in names)).items()}
    assert (replies["length"].finish, replies["length"].text) == ("length", '{"entities": [')
    for name in ("thinks", "thinks-too"):
        assert (replies[name].text, replies[name].reasoning, replies[name].detail) == ("42", "six times seven", "")
    assert (replies["thinks-aloud"].text, replies["thinks-aloud"].reasoning) == ("<think>six times seven</think>42", "")
    assert (replies["whitespace"].finish, replies["loop"].finish) == ("length", "length")
    assert replies["wrong-schema"].text == '{"unheard": ["of"]}'
    assert replies["cached"].usage.model_dump() == {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 8}
    assert replies["odd-usage"].usage.model_dump() == {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0}


def test_one_bad_request_never_stops_the_others(server):
    faults = [
        "[500-always]",
        "[refusal]",
        "[too-long]",
        "[rejected]",
        "[truncated-once]",
        "[length]",
    ]
    texts = faults + [f"good {i}" for i in range(30)]
    replies = ask(server, *texts, attempts=2, concurrency=8)
    assert sum(r.failure is None for r in replies.values()) == 32
    assert sum(r.failure is not None for r in replies.values()) == 4


def test_answers_come_as_they_are_ready(server):
    teacher = OpenAITeacher("m", server.url)
    assert [r.key for r in teacher.generate([request("[slow]", key="late"), request("x", key="soon")])] == [
        "soon",
        "late",
    ]


def test_an_endpoint_that_was_never_there_is_named_soon(monkeypatch):
    with StubServer() as stub:
        url = stub.url
    monkeypatch.setattr(limits, "backoff", lambda failed: 0.0)
    with pytest.raises(EndpointDown, match=r"127\.0\.0\.1.*[67] x ConnectError.*never answered"):
        list(OpenAITeacher("m", url).generate([request("a", key="a"), request("b", key="b")]))


def test_an_endpoint_that_comes_back_in_time_costs_nothing(server, monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda failed: 0.05)
    teacher = OpenAITeacher("m", server.url, concurrency=8)
    keys = []
    for reply in teacher.generate(request(str(i), key=str(i)) for i in range(200)):
        assert reply.failure is None
        keys.append(reply.key)
        if len(keys) == 60:
            server.down()
            threading.Timer(1.0, server.up).start()
    assert sorted(keys, key=int) == [str(i) for i in range(200)]


def test_an_endpoint_that_stays_away_ends_the_run_with_what_was_answered(server, monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda failed: 0.05)
    teacher = OpenAITeacher("m", server.url, concurrency=8, patience=0.5)
    keys = []
    with pytest.raises(EndpointDown, match=r"calls failed.*no answer for"):  # noqa: PT012
        for reply in teacher.generate(request(str(i), key=str(i)) for i in range(2000)):
            assert reply.failure is None
            keys.append(reply.key)
            if len(keys) == 60:
                server.down()
    assert 60 <= len(keys) < 200


def test_an_endpoint_that_mostly_fails_is_asked_one_at_a_time_and_given_up(server, monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda failed: 0.02)
    teacher = OpenAITeacher("m", server.url, concurrency=16, patience=0.5)
    list(teacher.generate([request("a")]))
    server.mood = "500-always"
    with pytest.raises(EndpointDown, match=r"HTTP 503.*overloaded"):
        list(teacher.generate(request(str(i), key=str(i)) for i in range(2000)))
    assert server.asked.total() < 150


def test_concurrency_is_bounded_and_requests_are_drawn_lazily(server):
    drawn = itertools.count()
    teacher = OpenAITeacher("m", server.url, concurrency=3)
    replies = teacher.generate(request(str(next(drawn)), key=str(i)) for i in itertools.count())
    for _ in range(20):
        next(replies)
    assert next(drawn) <= 20 + 2 * 3 + 1
    replies.close()
    assert 1 < server.most_under_way <= 3
    assert not [t for t in threading.enumerate() if t.name == "magister-openai"]


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


@pytest.mark.parametrize(("mood", "forms"), [("no-schema", ["none"]), ("no-json-schema", ["json_object"])])
def test_an_endpoint_without_schemas_is_asked_without_and_it_is_counted(server, mood, forms, caplog):
    server.mood = mood
    teacher = OpenAITeacher("m", server.url, concurrency=2)
    asked = [request(str(i), key=str(i), answer_schema={"type": "object"}) for i in range(20)]
    replies = list(teacher.generate([*asked, request("free", key="free")]))
    assert {r.failure for r in replies} == {None}
    assert {r.detail.rpartition(" ")[2] for r in replies if r.key != "free"} == set(forms)
    assert teacher.notes == {"answers_that_the_endpoint_did_not_hold_to_their_schema": 20}
    assert server.asked.total() <= 21 + 2 * 2
    assert "refuses" in caplog.text


def test_the_limits_name_is_found_out(server):
    server.mood = "no-max-tokens"
    replies = list(OpenAITeacher("m", server.url, concurrency=1).generate(request(c, key=c) for c in "abc"))
    assert {r.failure for r in replies} == {None}
    assert [b.get("max_completion_tokens") for b in server.bodies] == [None, 9, 9, 9]


def test_the_key_is_sent_and_shown_nowhere(server, monkeypatch, caplog):
    monkeypatch.setenv("MAGISTER_API_KEY", " sk-secret-1\n")
    teacher = OpenAITeacher("m", server.url)
    with caplog.at_level("DEBUG"), pytest.raises(EndpointDown, match="HTTP 401") as down:
        list(teacher.generate([request("[no-key]")]))
    assert server.headers[0]["Authorization"] == "Bearer sk-secret-1"
    shown = [str(down.value), repr(down.value), teacher.identity(), teacher.spec, str(vars(teacher)), caplog.text]
    assert "sk-secret" not in json.dumps(shown)
    monkeypatch.setenv("MAGISTER_API_KEY", "sk-secret\u2026")
    with pytest.raises(ValueError, match="API key") as bad:
        list(teacher.generate([request("a")]))
    assert "sk-secret" not in str(bad.value)


def test_credentials_of_the_url_are_used_and_shown_nowhere(server):
    spec = f"openai:a/b@{server.url.replace('//', '//me:hush@')}"
    teacher = OpenAITeacher.of_spec(spec)
    list(teacher.generate([request("a")]))
    assert server.headers[0]["Authorization"] == "Basic " + base64.b64encode(b"me:hush").decode()
    assert "hush" not in json.dumps([teacher.identity(), teacher.spec])
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
    imports = "import sys, magister.teachers.engines.openai, magister.teachers.spec"
    code = f"{imports}; print(sys.modules.keys() & {{{heavy}}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
