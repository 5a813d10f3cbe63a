"""An OpenAI-compatible endpoint on 127.0.0.1 that behaves as it is told: good, slow, hostile, dead.

What the model is asked decides what it does: the last turn's text may hold one of `BEHAVIOURS` in brackets, for example
``[500-once]``; `StubServer.mood` does the same for every call. Without one it answers as `model` does. It runs in a
thread (a context manager), or as a process of its own: ``python stub_server.py PORT [LATENCY]``.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import sys
import threading
import time
from collections import Counter
from typing import Any

#: What it can be told, with what it then does ("once": to the first call with this text only).
BEHAVIOURS = {
    "429-once": "429, Retry-After 0.3 s",
    "429-date-once": "429, Retry-After as an HTTP date 2 s ahead",
    "429-silent-once": "429 without Retry-After",
    "429-late": "429, Retry-After tomorrow",
    "429-zero": "429, Retry-After 0, always",
    "429-too-large": "429 because this one request is larger than the minute's tokens",
    "quota": "429, the quota is used up",
    "500-once": "500", "502-once": "502 with a page of HTML", "503-once": "503, Retry-After 0.3 s", "504-once": "504",
    "500-always": "503, always",
    "error-200-once": "an error with status 200",
    "truncated-once": "JSON cut in the middle", "short-once": "a body shorter than announced",
    "no-choices-once": "a completion without choices", "nested-once": "JSON nested too deep to read",
    "hang-once": "no answer for 30 s", "drop-once": "the connection is closed without an answer",
    "slow": "an answer after 0.3 s",
    "length": "half an answer, finish_reason length", "whitespace": "white space up to the limit",
    "wrong-schema": "JSON of another form", "loop": "the same words up to the limit",
    "refusal": "a refusal", "filter": "the content filter", "flagged": "403 by moderation",
    "thinks": "thoughts in reasoning_content", "thinks-too": "thoughts in reasoning",
    "thinks-aloud": "thoughts in <think>",
    "cached": "usage with cached tokens", "odd-usage": "usage that is no usage",
    "too-long": "400, context length exceeded", "bad-image": "400, cannot identify image file",
    "rejected": "400, some option is wrong",
    "no-key": "401 with the key in the message", "no-model": "404", "no-path": "403 by a firewall",
    "html": "404 with a page of HTML",
    "no-credit": "402", "no-schema": "400 to any response_format", "no-json-schema": "400 to json_schema",
    "no-max-tokens": "400 to max_tokens",
    "no-logprobs": "400 to logprobs", "silent-logprobs": "no log-probabilities, and not a word about it",
}  # fmt: skip
CONTEXT = 2000


class StubServer:
    """Use as a context manager; ``url`` is the base URL.

    Attributes:
        mood: a behaviour for every call.
        capacity: more calls than this at once are met with a 429 (0: any number is fine).
        latency: seconds before every answer.
        bodies, headers: of every call, in order.
        asked: how often, by text.
    """

    def __init__(self, latency: float = 0.005, port: int = 0) -> None:
        self.latency, self.port = latency, port
        self.mood, self.capacity = "", 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.asked: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self._connections: set[asyncio.BaseTransport] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> StubServer:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def up(self) -> None:
        """Listen, on the same port as before."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def down(self) -> None:
        """Die: every connection is cut, new ones are refused."""
        asyncio.run_coroutine_threadsafe(self._die(), self._loop).result()

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _die(self) -> None:
        if self._server is not None:
            self._server.close()
        for transport in list(self._connections):
            transport.abort()
        await asyncio.sleep(0.01)  # until they are gone

    def serve(self) -> None:
        """Serve in this thread until the process ends."""
        self._loop.run_until_complete(self._listen())
        print(self.port, flush=True)
        self._loop.run_forever()


class _Connection(asyncio.Protocol):
    """One connection: HTTP/1.1 with keep-alive, one call after the other."""

    def __init__(self, stub: StubServer) -> None:
        self.stub, self.data = stub, b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.stub._connections.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.stub._connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, rest = self.data.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.title(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("Content-Length", 0))
        if len(rest) < length:
            return
        self.data = rest[length:]
        self._called(json.loads(rest[:length]), headers)

    def _called(self, body: dict[str, Any], headers: dict[str, str]) -> None:
        stub, text = self.stub, said(body)
        stub.bodies.append(body)
        stub.headers.append(headers)
        stub.times.append(time.monotonic())
        stub.asked[text] += 1
        stub.under_way += 1
        stub.most_under_way = max(stub.most_under_way, stub.under_way)
        told = stub.mood or next((b for b in re.findall(r"\[([\w-]+)\]", text) if b in BEHAVIOURS), "")
        if told.endswith("-once") and stub.asked[text] > 1:
            told = ""
        if stub.capacity and stub.under_way > stub.capacity:
            told = "429-silent-once"
        delay = {"hang-once": 30.0, "slow": 0.3}.get(told, stub.latency)
        asyncio.get_running_loop().call_later(delay, self._answer, told, body, headers)

    def _answer(self, told: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        self.stub.under_way -= 1
        if told == "drop-once":
            self.transport.abort()
            return
        status, answer, more = reply(told, body, headers)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        announced = len(content) + (50 if told == "short-once" else 0)
        fields = {"Content-Type": "application/json", "Content-Length": announced, **more}
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(head.encode() + b"\r\n" + content)
        if told == "short-once":
            self.transport.close()


def said(body: dict[str, Any]) -> str:
    """The last turn's text."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(p.get("text", "<picture>") for p in content)


def reply(told: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
    """Status, body and further headers of what it was told to do."""
    form = body.get("response_format", {}).get("type", "")
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or 1
    match told:
        case "429-once":
            return 429, error("slow down"), {"Retry-After": "0.3"}
        case "429-date-once":
            return 429, error("slow down"), {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}
        case "429-silent-once":
            return 429, error("slow down"), {}
        case "429-late":
            return 429, error("slow down"), {"Retry-After": "86400"}
        case "429-zero":
            return 429, error("slow down"), {"Retry-After": "0"}
        case "429-too-large":
            return 429, error("Request too large for m: Limit 10000, Requested 12000"), {}
        case "quota":
            return 429, error("You exceeded your current quota", "insufficient_quota"), {}
        case "500-once" | "504-once":
            return int(told[:3]), error("oops"), {}
        case "502-once":
            return 502, b"<html>bad gateway</html>", {}
        case "503-once":
            return 503, error("overloaded"), {"Retry-After": "0.3"}
        case "500-always":
            return 503, error("overloaded"), {}
        case "error-200-once":
            return 200, {"error": {"message": "upstream is gone", "code": 502}}, {}
        case "truncated-once" | "short-once":
            return 200, b'{"choices": [{"message": {"con', {}
        case "no-choices-once":
            return 200, {"choices": []}, {}
        case "nested-once":
            return 200, b"[" * 100_000, {}
        case "length":
            return 200, completion('{"entities": [', finish="length"), {}
        case "whitespace":
            return 200, completion("{" + "\n " * limit, finish="length"), {}
        case "wrong-schema":
            return 200, completion('{"unheard": ["of"]}'), {}
        case "loop":
            return 200, completion("and so on " * limit, finish="length"), {}
        case "refusal":
            return 200, completion(None, refusal="I cannot help with that"), {}
        case "filter":
            return 200, completion("", finish="content_filter"), {}
        case "flagged":
            return 403, error("Your input was flagged by moderation"), {}
        case "thinks":
            return 200, completion("42", reasoning_content="six times seven"), {}
        case "thinks-too":
            return 200, completion("42", reasoning="six times seven"), {}
        case "thinks-aloud":
            return 200, completion("<think>six times seven</think>42"), {}
        case "cached":
            usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
            return 200, completion("yes") | {"usage": usage}, {}
        case "odd-usage":
            return 200, completion("yes") | {"usage": {"prompt_tokens": "many", "completion_tokens": -3}}, {}
        case "too-long":
            return 400, error("This model's maximum context length is 8 tokens", "context_length_exceeded"), {}
        case "bad-image":
            return 400, error("Failed to load image: cannot identify image file"), {}
        case "rejected":
            return 400, error("temperature: must be at least 1"), {}
        case "no-key":
            return 401, error(f"wrong key {headers.get('Authorization')}"), {}
        case "no-credit":
            return 402, error("Insufficient balance"), {}
        case "no-model":
            return 404, error("The model `m` does not exist"), {}
        case "no-path":
            return 403, error("request blocked by rule 17"), {}
        case "html":
            return 404, b"<html>not here</html>", {}
        case "no-schema" if form:
            return 400, error("response_format is not supported"), {}
        case "no-json-schema" if form == "json_schema":
            return 400, error("This response_format type is unavailable now"), {}
        case "no-max-tokens" if "max_tokens" in body:
            return 400, error("Unsupported parameter: use 'max_completion_tokens' instead"), {}
        case "no-logprobs" if body.get("logprobs"):
            return 400, error("logprobs are not supported with this model"), {}
        case "silent-logprobs":
            return (*model(body | {"logprobs": False}), {})
    return (*model(body), {})


def model(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What the model says when it is told nothing: status and body.

    The least that fits the schema, or ``echo: `` and the text (above temperature 0 also the seed). A word is a token:
    the limit cuts the text, a prompt beyond `CONTEXT` is refused.
    """
    text = said(body)
    words = len(text.split())
    if words > CONTEXT:
        return 400, error(f"This model's maximum context length is {CONTEXT} tokens", "context_length_exceeded")
    if body.get("logprobs"):
        status, answer = model(body | {"logprobs": False})
        choice = answer["choices"][0]
        return status, {**answer, "choices": [choice | {"logprobs": weighed(choice["message"]["content"])}]}
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return 200, completion(json.dumps(least(form["json_schema"]["schema"])), usage=(words, 3))
    answer = f"echo: {text}" if not body["temperature"] else f"echo {body['seed']}: {text}"
    limit = body.get("max_tokens") or body["max_completion_tokens"]
    pieces = re.findall(r"\S+\s*", answer)
    kept = "".join(pieces[:limit])
    return 200, completion(kept, "length" if len(pieces) > limit else "stop", (words, min(len(pieces), limit)))


def least(schema: dict[str, Any], definitions: dict[str, Any] | None = None) -> Any:
    """The least value that fits a JSON schema of ours."""
    definitions = definitions if definitions is not None else schema.get("$defs", {})
    if "$ref" in schema:
        return least(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return least(schema[choice][0], definitions)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: least(properties[name], definitions) for name in schema.get("required", properties)}
        case "array":
            return [least(schema["items"], definitions) for _ in range(schema.get("minItems", 0))]
        case "string":
            return "x" * max(1, schema.get("minLength", 1))
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
    return None


def completion(
    text: str | None, finish: Any = "stop", usage: tuple[int, int] = (7, 3), **message: str
) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    return {
        "object": "chat.completion",
        "choices": [choice],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
    }


def weighed(text: str) -> dict[str, Any]:
    """Log-probabilities of a text, three bytes a token: the n-th has -n / 10."""
    pieces = [text.encode()[at : at + 3] for at in range(0, len(text.encode()), 3)]
    tokens = [piece.decode("utf-8", "backslashreplace") for piece in pieces]
    content = [
        {"token": token, "logprob": -n / 10, "bytes": list(piece), "top_logprobs": []}
        for n, (token, piece) in enumerate(zip(tokens, pieces, strict=True))
    ]
    return {"content": content, "refusal": None}


def error(message: str, code: str = "") -> dict[str, Any]:
    """An error's body."""
    return {"error": {"message": message, "code": code}}


if __name__ == "__main__":
    StubServer(port=int(sys.argv[1]), latency=float(sys.argv[2]) if len(sys.argv) > 2 else 0.005).serve()
