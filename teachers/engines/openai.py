"""A teacher behind any OpenAI-compatible endpoint: ``openai:MODEL@BASE_URL``.

Many requests are under way at once, in an event loop on a thread of its own, so that `generate` works the same in a
script, a notebook and a server. How many, and how fast, is the matter of `limits`: concurrency follows what the
endpoint bears, a 429 makes everyone wait and its request stands in the line again. What may pass by itself (lost
connections, timeouts, 5xx, answers cut off on the wire) is asked again after a random, growing pause. An endpoint
that is down, or takes no request of ours at all, ends the run by `EndpointDown` when everything under way is in.

The key comes from ``MAGISTER_API_KEY`` or ``OPENAI_API_KEY`` when the asking begins; it stands in no log, error,
identity or ledger.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import os
import re
import ssl
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import cycle, islice
from queue import SimpleQueue
from threading import Thread
from typing import Any

import httpx

from ...tasks.images import ImageFault
from ..teacher import Reply, Request, failed
from ..tokens import count_tokens
from . import wire
from .limits import NEVER, EndpointDown, Gate, Limits, Pass, backoff
from .wire import SCHEMAS, BadBody, Dialect

log = logging.getLogger(__name__)

_SPEC = re.compile(r"openai:(?P<model>.+?)@(?P<url>https?://[^#\s]+)(?:#(?P<name>\S+))?$")

#: Connections a client: httpx searches all of a client's connections several times a call, so that one client with
#: 64 of them takes a multiple of the time of sixteen with 4; fewer a client gain nothing more.
PER_CLIENT = 4
#: Seconds for which replies are collected before the waiting thread is woken.
GATHER = 0.01
#: So many 429s to one request, while others are answered, and it has failed.
TURNED_AWAY = 20


class OpenAITeacher:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        model: its name there.
        base_url: up to and with ``/v1``; credentials in it are used, and shown nowhere.
        name: what its identity calls the endpoint; host and path if not given. Give a name to a server that
            may move: two endpoints are two teachers, even with the same model name.
        sees_images: False for a text-only model, so that pictures are put into words first.
        concurrency: most requests under way at once.
        rpm, tpm: requests and tokens a minute that the endpoint allows, if it should not come to 429s.
        timeout: seconds for one call, from sending to the last byte.
        attempts: tries a request, 429s not counted.
        patience: seconds without any answer after which the endpoint is given up, and the longest ``Retry-After``
            that is waited for.

    Attributes:
        notes: counted remarks on the answers, for people.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        name: str = "",
        sees_images: bool = True,
        concurrency: int = 64,
        rpm: float | None = None,
        tpm: float | None = None,
        timeout: float = 600.0,
        attempts: int = 5,
        patience: float = 300.0,
    ) -> None:
        url = httpx.URL(base_url.rstrip("/"))
        if url.query:
            raise ValueError("the base URL has a query; a key belongs into MAGISTER_API_KEY, not into the URL")
        self.model, self.sees_images = model, sees_images
        self.timeout, self.attempts = timeout, attempts
        self.limits = Limits(concurrency, rpm, tpm, patience)
        self.notes: Counter[str] = Counter()
        self._login = (url.username, url.password) if url.userinfo else None
        self._url = url.copy_with(userinfo=b"")
        self._endpoint = name or f"{self._url.netloc.decode()}{self._url.path}"
        self._no_such = 0
        self._takes_schemas, self._refused = False, dict[str, str]()
        self._dialect = Dialect(limit="max_completion_tokens" if url.host == "api.openai.com" else "max_tokens")
        self.spec = f"openai:{model}@{self._url}" + (f"#{name}" if name else "")

    @classmethod
    def of_spec(cls, spec: str, **options: Any) -> OpenAITeacher:
        """The teacher of ``openai:MODEL@BASE_URL``, with ``#NAME`` behind it if the endpoint has one.

        Args: options: as for the class.
        """
        found = _SPEC.match(spec)
        if not found:
            shown = spec.partition("@")[0]
            raise ValueError(f"{shown!r}: expected openai:MODEL@BASE_URL, as in openai:qwen3@http://localhost:8000/v1")
        return cls(found["model"], found["url"], name=found["name"] or "", **options)

    def identity(self) -> dict[str, Any]:
        """Engine, model and endpoint."""
        return {"engine": "openai", "model": self.model, "endpoint": self._endpoint}

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield replies as they come in; requests are drawn only so far ahead that no place stays empty.

        Raises:
            EndpointDown: when everything that was under way is in, if a request was left without a reply or the
                endpoint has answered none.
        """
        ahead = 2 * self.limits.width.most
        source, more, under_way, left = iter(requests), True, 0, 0
        calls = _Calls(self)
        try:
            while True:
                if more and 2 * under_way <= ahead and calls.stopped is None:
                    room, before = ahead - under_way, under_way
                    for request in islice(source, room):
                        calls.put(request)
                        under_way += 1
                    more = under_way - before == room
                if not under_way:
                    break
                reply = calls.take()
                under_way -= 1
                left += reply is None
                if reply is not None:
                    yield reply
            if calls.stopped is not None:
                known = self.limits.health.ever and left == len(calls.given_up)
                if not known or next(source, None) is not None:
                    raise calls.stopped
                log.warning("%s; the %d requests left met an error each, and have failed", calls.stopped, left)
                yield from calls.given_up
        finally:
            calls.close()

    def close(self) -> None:
        """Nothing is held between calls of `generate`."""

    async def _ask(self, calls: _Calls, request: Request) -> Reply | None:
        """One request to its end: a reply whatever happens, or None if the endpoint was given up before."""
        try:
            reply = await self._try(calls, request)
        except EndpointDown:
            return None
        except ImageFault as fault:
            reply = failed(request, "image", str(fault))
        except Exception as error:  # a defect of ours or an endpoint beyond imagination: one request, not the run
            reply = failed(request, "transport", f"{type(error).__name__}: {error}")
        return reply.model_copy(update={"detail": self._clean(reply.detail)}) if reply.detail else reply

    async def _try(self, calls: _Calls, request: Request) -> Reply:
        """Ask until there is an answer, an error that asking again cannot mend, or no try left."""
        gate, limited = calls.gate, self.limits.tokens is not None
        tokens = count_tokens(request) + request.prompt.max_tokens if limited else 0
        tries = turned_away = 0
        dialect, content, reply = None, b"", None
        own = SCHEMAS[0]  # the strictest enforcement that this request has not been refused with
        while True:
            try:
                call, used = await gate.enter(tokens), None
            except EndpointDown:
                if reply is not None and tries:
                    calls.given_up.append(_after(reply, tries))
                raise
            try:
                if dialect != (now := self._asked_with(request, own)):
                    dialect, content = now, await self._content(request, now)
                sent = time.monotonic()
                reply, lost = await self._call(calls, call, request, content)
                used = reply.usage.prompt_tokens + reply.usage.completion_tokens or None
                other = self._other_dialect(request, dialect, reply) if reply.failure == "rejected" else None
                if reply.failure == "rejected" and other is None:
                    gate.error(call, "rejected request", self._clean(reply.detail))
            finally:
                gate.leave(call, tokens, used)
            if reply.failure == "rate_limit":
                turned_away += 1
                if turned_away == TURNED_AWAY:
                    return reply.model_copy(update={"detail": f"{reply.detail} ({TURNED_AWAY} times)"})
            elif reply.failure == "transport":
                tries += not (lost and gate.closed)  # a probe that never arrives says nothing of its request
                if tries >= self.attempts:
                    return _after(reply, tries)
                await asyncio.sleep(backoff(tries))
            elif reply.failure != "rejected":
                self._takes_schemas |= dialect.schema == SCHEMAS[0] and request.prompt.answer_schema is not None
                return self._noted(request, dialect, reply, time.monotonic() - sent)
            elif other is None:
                return reply
            else:
                own = other.schema

    async def _call(self, calls: _Calls, call: Pass, request: Request, content: bytes) -> tuple[Reply, bool]:
        """One call as a reply, and what it says of the endpoint told to the gate; and whether the connection failed.

        Raises:
            EndpointDown: no request of ours will be answered.
        """
        gate = calls.gate
        try:
            async with asyncio.timeout(self.timeout):
                response = await calls.post(content)
            return self._judged(gate, call, request, response), False
        except (httpx.RequestError, TimeoutError, BadBody) as error:
            said = str(error) or f"no answer in {self.timeout:g} s"
            kind, detail = type(error).__name__, self._clean(f"{type(error).__name__}: {said}")
            gate.error(call, kind, detail, unreachable=isinstance(error, httpx.ConnectError | httpx.ConnectTimeout))
            return failed(request, "transport", detail), isinstance(error, httpx.RequestError)

    def _judged(self, gate: Gate, call: Pass, request: Request, response: httpx.Response) -> Reply:
        """A response as a reply.

        Raises:
            BadBody: it can be none.
            EndpointDown: it says that nothing will be answered: the key, the credit, the quota, the model's name.
        """
        status, said = response.status_code, _json(response)
        if status == 200 and isinstance(said, dict) and said.get("error") and not said.get("choices"):
            code = said["error"].get("code") if isinstance(said["error"], dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
        if status == 200:
            reply = wire.completion(request.key, said)
            gate.success()
            return reply
        problem = self._clean(wire.problem(status, said))
        failure, pause = wire.failure(status, problem), _retry_after(response)
        if pause is not None and pause > self.limits.patience:
            raise self._given_up(gate, f"asks to wait for {pause:,.0f} s: {problem}")
        for_ever = status in (401, 402)
        if failure == "rejected" and status in (403, 404, 405) and not self.limits.health.ever:
            self._no_such += 1  # a firewall may turn one away; the key, the path or the model's name turn all away
            for_ever = self._no_such >= NEVER
        if (failure == "rejected" and for_ever) or (failure == "rate_limit" and "insufficient_quota" in problem):
            raise self._given_up(gate, problem)
        if failure == "rate_limit":
            gate.slow_down(call, pause, problem)
        elif failure == "transport":
            gate.error(call, f"HTTP {status}", problem)
            gate.cool_down(pause or 0.0)
        elif failure != "rejected":
            gate.success()  # the endpoint is well: it has read the request and said what is wrong with it
        return failed(request, failure, problem)

    def _given_up(self, gate: Gate, why: str) -> EndpointDown:
        gate.stop(EndpointDown(f"{self._endpoint}: {why}"))
        return EndpointDown(why)

    def _asked_with(self, request: Request, own: str) -> Dialect:
        """The run's dialect, or less where this request (``own``) or its schema has been refused with more."""
        known = not self._takes_schemas and self._refused and self._refused.get(_form(request))
        return self._dialect.with_schema(own, *([known] if known else []))

    def _other_dialect(self, request: Request, used: Dialect, reply: Reply) -> Dialect | None:
        """The dialect to ask again with, or None if the refusal is about something else.

        A refused schema says little of others: only the second one, where none was ever taken, decides for the run.
        """
        other = used.after(reply.detail) if reply.detail.startswith(("HTTP 400", "HTTP 422")) else None
        if other is None or (other.schema != used.schema and request.prompt.answer_schema is None):
            return None
        if other.limit != used.limit:
            log.warning("%s refuses %s; from now on it is asked with %s", self._endpoint, used, other)
            self._dialect = replace(self._dialect, limit=other.limit)
        else:
            if not self._refused:
                log.warning("%s refuses a schema; it is asked with response_format %s", self._endpoint, other.schema)
            self._refused[_form(request)] = other.schema
            if len(self._refused) > 1 and not self._takes_schemas:
                self._dialect = self._dialect.with_schema(other.schema)
        return other

    def _noted(self, request: Request, used: Dialect, reply: Reply, seconds: float) -> Reply:
        """The reply with its time, and said in it and in the count where an answer was not held to its schema."""
        update: dict[str, Any] = {"seconds": seconds}
        if request.prompt.answer_schema is not None and used.schema != "json_schema" and reply.failure is None:
            self.notes["answers_that_the_endpoint_did_not_hold_to_their_schema"] += 1
            update["detail"] = f"the endpoint takes no schema: asked with response_format {used.schema}"
        if request.logprobs and reply.text and not reply.tokens:
            self.notes["answers_without_the_log-probabilities_asked_for"] += 1
        return reply.model_copy(update=update)

    async def _content(self, request: Request, dialect: Dialect) -> bytes:
        """The request's body; pictures are read beside the event loop."""

        def written() -> bytes:
            return json.dumps(wire.body(request, self.model, dialect)).encode("ascii")

        return await asyncio.to_thread(written) if any(m.images for m in request.prompt.messages) else written()

    def _clean(self, detail: str) -> str:
        """A detail of fair length without the secrets that an endpoint may have echoed."""
        for secret in filter(None, (_key(), *(self._login or ()))):
            detail = detail.replace(secret, "***")
        return detail[:600]


class _Calls:
    """One `generate` at work: an event loop on a thread, the clients, requests going in and replies coming out."""

    def __init__(self, teacher: OpenAITeacher) -> None:
        key, login = _key(), teacher._login
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("the API key in the environment holds a character that no key has; set it again")
        headers = {"Content-Type": "application/json"}
        if key and not login:
            headers["Authorization"] = f"Bearer {key}"
        self._teacher, self._url = teacher, f"{teacher._url}/chat/completions"
        self.gate = Gate(teacher.limits, teacher._endpoint)
        options: dict[str, Any] = {
            "auth": login,
            "headers": headers,
            "timeout": httpx.Timeout(None, connect=min(15.0, teacher.timeout)),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=2 * PER_CLIENT),
            "verify": _certificates(),
        }
        self._clients = [httpx.AsyncClient(**options) for _ in range(-(-teacher.limits.width.most // PER_CLIENT))]
        self._turns = cycle(self._clients)
        self._in: deque[Request] = deque()
        self._out: list[Reply | None] = []
        self._ready: SimpleQueue[list[Reply | None]] = SimpleQueue()
        self._taken: deque[Reply | None] = deque()
        self._called = self._gathering = False
        self._tasks: set[asyncio.Task[None]] = set()
        #: Requests that had met errors when the endpoint was given up.
        self.given_up: list[Reply] = []
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="magister-openai", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> Exception | None:
        """Why no more requests should be put in."""
        return self.gate.stopped

    def put(self, request: Request) -> None:
        """Hand a request over; from the caller's thread."""
        self._in.append(request)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._start)

    def take(self) -> Reply | None:
        """The next reply, or None for a request that was not asked to its end; waits for one."""
        if not self._taken:
            self._taken.extend(self._ready.get())
        return self._taken.popleft()

    async def post(self, content: bytes) -> httpx.Response:
        """Send one request."""
        return await next(self._turns).post(self._url, content=content)

    def close(self) -> None:
        """Give up what is under way, close the clients, end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self) -> None:
        self._called = False
        while self._in:
            task = self._loop.create_task(self._run(self._in.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, request: Request) -> None:
        reply = await self._teacher._ask(self, request)
        self._out.append(reply)
        if not self._gathering:
            self._gathering = True
            self._loop.call_later(GATHER, self._hand_over)

    def _hand_over(self) -> None:
        self._gathering = False
        self._ready.put(self._out)
        self._out = []

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.aclose()
        await self._loop.shutdown_default_executor()


@cache
def _certificates() -> ssl.SSLContext:
    """The trusted certificates, read once: it takes a tenth of a second."""
    return httpx.create_ssl_context()


def _key() -> str:
    return (os.environ.get("MAGISTER_API_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()


def _json(response: httpx.Response) -> Any:
    """The body as JSON, or as text where it is none."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text[:1000]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the endpoint asks to wait (given as seconds or as a date), or None if it does not say."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _form(request: Request) -> str:
    return json.dumps(request.prompt.answer_schema, sort_keys=True)


def _after(reply: Reply, tries: int) -> Reply:
    return reply.model_copy(update={"detail": f"{reply.detail} (after {tries} tries)"})
