"""A teacher behind any OpenAI-compatible endpoint: ``openai:MODEL@BASE_URL``.

Many requests are under way at once, in an event loop on a thread of its own, so that `generate` works the
same in a script, a notebook and a server. Only what may pass by itself is asked again: lost connections,
timeouts, 5xx and answers cut off on the wire, with growing random pauses; a 429 only when the endpoint says
after how long (then all requests wait). The key comes from ``MAGISTER_API_KEY`` or ``OPENAI_API_KEY`` at each
call and is kept nowhere.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import re
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

import httpx

from ..prompts.messages import Message
from ..tasks.images import ImageFault
from .teacher import Failure, Finish, Reply, Request, Usage, sampling_seed

_SPEC = re.compile(r"openai:(?P<model>.+?)@(?P<url>https?://[^#\s]+)(?:#(?P<name>\S+))?$")

#: What endpoints say of a prompt that does not fit, and of a picture that they cannot read.
_TOO_LONG = re.compile(r"context[ _]length|maximum context|context window|too many tokens|prompt is too long", re.I)
_BAD_IMAGE = re.compile(
    r"(invalid|unsupported|process|decode|load|identify)\w*[^.]{0,40}image|image[^.]{0,40}(invalid)", re.I
)
_FILTERED = re.compile(r"content_filter|content_policy|content management policy", re.I)


class OpenAITeacher:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        model: its name there.
        base_url: up to and with ``/v1``; credentials in it are used, and shown nowhere.
        name: what its identity calls the endpoint; host and path if not given. Give a name to a server that
            may move: two endpoints are two teachers, even with the same model name.
        sees_images: False for a text-only model, so that pictures are put into words first.
        concurrency: most requests under way at once.
        timeout: seconds without a byte after which a request counts as lost.
        attempts: tries a request.
        patience: the longest ``Retry-After`` that is waited for, in seconds.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        name: str = "",
        sees_images: bool = True,
        concurrency: int = 16,
        timeout: float = 120.0,
        attempts: int = 5,
        patience: float = 120.0,
    ) -> None:
        url = httpx.URL(base_url.rstrip("/"))
        if url.query:
            raise ValueError("the base URL has a query; a key belongs into MAGISTER_API_KEY, not into the URL")
        self.model, self.sees_images = model, sees_images
        self.concurrency, self.attempts, self.patience = concurrency, attempts, patience
        self._login = (url.username, url.password) if url.userinfo else None
        self._url = url.copy_with(userinfo=b"")
        self._timeout = httpx.Timeout(timeout, connect=15.0)
        self._endpoint = name or f"{self._url.netloc.decode()}{self._url.path}"
        self.spec = f"openai:{model}@{self._url}" + (f"#{name}" if name else "")
        self._paused_until = 0.0

    @classmethod
    def of_spec(cls, spec: str) -> OpenAITeacher:
        """The teacher of ``openai:MODEL@BASE_URL``, with ``#NAME`` behind it if the endpoint has one."""
        found = _SPEC.match(spec)
        if not found:
            shown = spec.partition("@")[0]
            raise ValueError(f"{shown!r}: expected openai:MODEL@BASE_URL, as in openai:qwen3@http://localhost:8000/v1")
        return cls(found["model"], found["url"], name=found["name"] or "")

    def identity(self) -> dict[str, Any]:
        """Engine, model and endpoint."""
        return {"engine": "openai", "model": self.model, "endpoint": self._endpoint}

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield replies as they come in; requests are drawn only as places get free."""
        done: SimpleQueue[Any] = SimpleQueue()
        under_way = 0
        with _loop_thread() as run:
            client = self._client()
            try:
                for request in requests:
                    run(self._ask(client, request)).add_done_callback(done.put)
                    under_way += 1
                    while under_way >= self.concurrency or not done.empty():
                        yield done.get().result()
                        under_way -= 1
                for _ in range(under_way):
                    yield done.get().result()
            finally:
                run(client.aclose()).result()

    def close(self) -> None:
        """Nothing is held between calls."""

    def _client(self) -> httpx.AsyncClient:
        headers = {} if self._login or not _key() else {"Authorization": f"Bearer {_key()}"}
        limits = httpx.Limits(max_connections=self.concurrency)
        return httpx.AsyncClient(auth=self._login, headers=headers, timeout=self._timeout, limits=limits)

    async def _ask(self, client: httpx.AsyncClient, request: Request) -> Reply:
        """One request to its end: a reply whatever happens."""
        started = time.monotonic()
        try:
            body = await asyncio.to_thread(self._body, request)
        except ImageFault as fault:
            return _failed(request, "image", str(fault))
        try:
            reply = await self._try(client, request, body)
        except Exception as error:  # a defect of ours or an endpoint beyond imagination: one request, not the run
            reply = _failed(request, "transport", f"{type(error).__name__}: {error}")
        return reply.model_copy(update={"seconds": time.monotonic() - started, "detail": self._clean(reply.detail)})

    def _body(self, request: Request) -> bytes:
        prompt = request.prompt
        # OpenAI itself has renamed the limit and refuses the old name for its newer models; the others know
        # the old one.
        limit = "max_completion_tokens" if self._url.host == "api.openai.com" else "max_tokens"
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [_turn(m) for m in prompt.messages],
            limit: prompt.max_tokens,
            "temperature": request.temperature,
            "seed": sampling_seed(request),
        }
        if prompt.stop:
            body["stop"] = list(prompt.stop)
        if prompt.answer_schema is not None:
            # Not "strict": OpenAI's strict mode refuses bounds on strings, and every answer is checked
            # anyway.
            schema = {"name": "answer", "schema": prompt.answer_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return json.dumps(body, ensure_ascii=False).encode()

    async def _try(self, client: httpx.AsyncClient, request: Request, body: bytes) -> Reply:
        """Ask until there is an answer, an error that asking again cannot mend, or no try left."""
        url, headers = f"{self._url}/chat/completions", {"Content-Type": "application/json"}
        reply = _failed(request, "transport", "never asked")
        for attempt in range(self.attempts):
            if attempt and reply.failure == "transport":
                await asyncio.sleep(random.uniform(0.5, 1.0) * min(30.0, 0.5 * 2**attempt))
            while (wait := self._paused_until - time.monotonic()) > 0:
                await asyncio.sleep(wait * random.uniform(1.0, 1.1))
            try:
                response = await client.post(url, content=body, headers=headers)
            except httpx.TransportError as error:
                reply = _failed(request, "transport", f"{type(error).__name__}: {error}")
                continue
            pause = _retry_after(response)
            if response.status_code == 429:
                reply = _failed(request, "rate_limit", _problem(response))
                if pause is None or pause > self.patience:
                    return reply
            elif response.status_code >= 500:
                reply = _failed(request, "transport", _problem(response))
            elif response.status_code != 200:
                return _rejected(request, response)
            else:
                try:
                    return _answered(request, response.json())
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    reply = _failed(request, "transport", f"not a chat completion ({type(error).__name__}: {error})")
            if pause is not None and pause <= self.patience:
                self._paused_until = max(self._paused_until, time.monotonic() + pause)
        return reply.model_copy(update={"detail": f"{reply.detail} (after {self.attempts} tries)"})

    def _clean(self, detail: str) -> str:
        """A detail without the secrets that an endpoint may have echoed."""
        for secret in filter(None, (_key(), *(self._login or ()))):
            detail = detail.replace(secret, "***")
        return detail


def _key() -> str:
    return os.environ.get("MAGISTER_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""


def _turn(message: Message) -> dict[str, Any]:
    """One turn as the endpoint reads it: pictures as data URLs in their place, else plain text."""
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": p.image.data_url()}} if p.image else {"type": "text", "text": p.text}
        for p in message.parts
    ]
    return {"role": message.role, "content": parts}


def _answered(request: Request, body: dict[str, Any]) -> Reply:
    """A chat completion as a reply. A reasoning model's thoughts beside its answer are kept in ``detail``."""
    choice = body["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    count = body.get("usage") or {}
    usage = Usage(prompt_tokens=count.get("prompt_tokens") or 0, completion_tokens=count.get("completion_tokens") or 0)
    if message.get("refusal") or finish == "content_filter":
        detail = message.get("refusal") or "the endpoint's content filter"
        return _failed(request, "refused", str(detail)).model_copy(update={"usage": usage})
    content = message.get("content") or ""
    text = content if isinstance(content, str) else "".join(p.get("text", "") for p in content)
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    ended: Finish = "length" if finish == "length" else "stop"
    return Reply(key=request.key, text=text, finish=ended, detail=str(thought), usage=usage)


def _rejected(request: Request, response: httpx.Response) -> Reply:
    """A 4xx as the failure it means. A wrong key, model or option stays ``transport``, in its own words."""
    problem = _problem(response)
    failure: Failure = "transport"
    if response.status_code == 413 or _TOO_LONG.search(problem):
        failure = "too_long"
    elif _FILTERED.search(problem):
        failure = "refused"
    elif _BAD_IMAGE.search(problem):
        failure = "image"
    return _failed(request, failure, problem)


def _problem(response: httpx.Response) -> str:
    """Status and message of an error, shortened."""
    try:
        error = response.json()["error"]
        said = f"{error['message']} {error.get('code') or ''}".strip() if isinstance(error, dict) else str(error)
    except (ValueError, LookupError, TypeError):
        said = response.text
    return f"HTTP {response.status_code}: {said}"[:400]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the endpoint asks to wait (given as seconds or as a date), or None if it does not say."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _failed(request: Request, failure: Failure, detail: str) -> Reply:
    return Reply(key=request.key, finish="error", failure=failure, detail=detail)


@contextmanager
def _loop_thread() -> Iterator[Any]:
    """An event loop on its own thread; gives ``run(coroutine) -> Future``. Tasks left over are cancelled."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    async def cancel() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    try:
        yield run
    finally:
        run(cancel()).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
