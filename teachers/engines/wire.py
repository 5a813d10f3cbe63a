"""The OpenAI chat form on the wire: request bodies out, completions and errors in. Shared by `openai` and `batch`.

What an endpoint says is untrusted: whatever it is, it becomes a `Reply`, a named failure or a `BadBody`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...prompts.messages import Message
from ...tasks.images import Image
from ..teacher import Failure, Finish, Reply, Request, Usage, sampling_seed
from .probabilities import Tokens, spelling

#: What endpoints say of a prompt that does not fit, of a picture that they cannot read, and of what they decline.
_TOO_LONG = re.compile(r"context[ _]length|maximum context|context window|too many tokens|prompt is too long", re.I)
_TOO_LARGE = re.compile(r"request too large", re.I)
_BAD_IMAGE = re.compile(
    r"(invalid|unsupported|process|decode|load|identify)\w*[^.]{0,40}image|image[^.]{0,40}(invalid)", re.I
)
_FILTERED = re.compile(r"content_filter|content_policy|content management policy|moderation|flagged", re.I)
_NO_FORMAT = re.compile(r"response_format|json_schema|json_object|guided|structured output|invalid schema", re.I)
_OTHER_LIMIT = re.compile(r"max_completion_tokens", re.I)
_NO_LOGPROBS = re.compile(r"log_?prob", re.I)
#: Why endpoints say that an answer ended, in small letters; none said counts as whole.
_CUT = frozenset({"length", "model_length", "max_tokens"})
_WHOLE = frozenset({"", "stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "function_call"})
_DECLINED = frozenset({"content_filter", "safety", "recitation"})

#: What to do about an error, by status.
_REMEDY = {
    401: "set MAGISTER_API_KEY (or OPENAI_API_KEY) to a key that this endpoint takes",
    402: "the account has no credit left",
    403: "this key may not use this model or endpoint",
    404: "there is no such model or path; a base URL usually ends in /v1",
    405: "this is no chat endpoint; a base URL usually ends in /v1",
}


NO_LOGPROBS = "it gives no log-probabilities for this model: ask without logprobs; confidence then comes from votes"

#: How an answer's schema is enforced, the strictest first.
SCHEMAS = ("json_schema", "json_object", "none")


class BadBody(ValueError):
    """An answer that is no chat completion."""


@dataclass(frozen=True)
class Dialect:
    """How an endpoint wants to be asked: the name of the token limit, and how an answer's schema is enforced.

    Attributes:
        limit: ``max_tokens``, or ``max_completion_tokens`` as OpenAI has renamed it (and refuses the old name for
            its newer models).
        schema: ``json_schema``; ``json_object`` (any JSON) or ``none`` for endpoints that take no schema.
    """

    limit: str = "max_tokens"
    schema: str = "json_schema"

    def with_schema(self, *levels: str) -> Dialect:
        """The same with the least of its own and these schemas' enforcement."""
        return replace(self, schema=max((self.schema, *levels), key=SCHEMAS.index))

    def after(self, problem: str) -> Dialect | None:
        """The dialect to try after a 400 that said this; None if it is about something else."""
        if self.limit == "max_tokens" and _OTHER_LIMIT.search(problem):
            return replace(self, limit="max_completion_tokens")
        if self.schema != "none" and _NO_FORMAT.search(problem):
            return replace(self, schema="json_object" if self.schema == "json_schema" else "none")
        return None


def body(
    request: Request, model: str, dialect: Dialect, url: Callable[[Image], str] = Image.data_url
) -> dict[str, Any]:
    """The chat completion request, ready for JSON.

    Args: url: how a picture is referred to.

    Raises:
        ImageFault: a picture cannot be read.
    """
    prompt = request.prompt
    made: dict[str, Any] = {
        "model": model,
        "messages": [_turn(message, url) for message in prompt.messages],
        dialect.limit: prompt.max_tokens,
        "temperature": request.temperature,
        "seed": sampling_seed(request),
    }
    if request.logprobs:
        made["logprobs"] = True
    if prompt.stop:
        made["stop"] = list(prompt.stop)
    if prompt.answer_schema is not None and dialect.schema == "json_schema":
        # Not "strict": OpenAI's strict mode refuses bounds on strings, and every answer is checked anyway.
        schema = {"name": "answer", "schema": prompt.answer_schema}
        made["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif prompt.answer_schema is not None and dialect.schema == "json_object":
        made["response_format"] = {"type": "json_object"}
    return made


def completion(key: str, said: Any) -> Reply:
    """A chat completion as a reply; a refusal and the content filter as the failure ``refused``.

    Raises:
        BadBody: it is none, or the endpoint broke off in the middle (any ``finish_reason`` that is not known).
    """
    try:
        choice = said["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason") or "").lower()
        refusal, content = message.get("refusal"), message.get("content")
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        text = content or "" if isinstance(content, str | None) else "".join(p.get("text") or "" for p in content)
    except (LookupError, TypeError, AttributeError) as error:
        raise BadBody(f"not a chat completion ({type(error).__name__}: {error})") from None
    usage = _usage(said.get("usage"))
    if refusal or finish in _DECLINED:
        detail = str(refusal or "the endpoint's content filter")
        return Reply(key=key, finish="error", failure="refused", detail=detail[:400], usage=usage)
    if finish not in _CUT | _WHOLE:
        raise BadBody(f"the endpoint broke off (finish_reason {finish!r})")
    ended: Finish = "length" if finish in _CUT else "stop"
    tokens = _tokens(choice.get("logprobs"), text)
    return Reply(key=key, text=text, reasoning=str(thought), finish=ended, usage=usage, tokens=tokens)


def failure(status: int, problem: str) -> Failure:
    """What an error means for its request."""
    if status == 429:  # "too many tokens" is here said of the last minute
        return "too_long" if _TOO_LARGE.search(problem) else "rate_limit"
    if status >= 500 or status in (408, 425):
        return "transport"
    if status == 413 or _TOO_LONG.search(problem):
        return "too_long"
    if _FILTERED.search(problem):
        return "refused"
    if _BAD_IMAGE.search(problem):
        return "image"
    return "rejected"


def problem(status: int, said: Any) -> str:
    """Status, message and code of an error, shortened, with what to do where that is known."""
    error = said.get("error", said) if isinstance(said, Mapping) else said
    if isinstance(error, Mapping):
        error = f"{error.get('message') or error} {error.get('code') or ''}".strip()
    remedy = f" ({_REMEDY[status]})" if status in _REMEDY else ""
    if status in (400, 422) and _NO_LOGPROBS.search(str(error)):
        remedy = f" ({NO_LOGPROBS})"
    return f"HTTP {status}: {str(error)[:4000]}{remedy}"


def _turn(message: Message, url: Callable[[Image], str]) -> dict[str, Any]:
    """One turn: pictures in their place, else plain text."""
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url(p.image)}} if p.image else {"type": "text", "text": p.text}
        for p in message.parts
    ]
    return {"role": message.role, "content": parts}


def _tokens(said: Any, text: str) -> Tokens:
    """The answer's tokens; none where the endpoint gives none, or such as do not spell the text.

    A token's bytes count where they are given: its text cannot hold a part of a character.
    """
    content = said.get("content") if isinstance(said, Mapping) else None
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    texts, logprobs = [], []
    try:
        for token in content or ():
            given = token.get("bytes")
            texts.append(decode(bytes(token["token"].encode("utf-8") if given is None else given)))
            logprobs.append(float(token["logprob"]))
            if logprobs[-1] != logprobs[-1]:
                return ()
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        return ()
    return spelling(texts, logprobs, text)


def _usage(said: Any) -> Usage:
    """Tokens as the endpoint counts them; what is no whole number of 0 or more counts as 0."""

    def number(holder: Any, name: str) -> int:
        value = holder.get(name) if isinstance(holder, Mapping) else None
        return value if isinstance(value, int) and value > 0 else 0

    details = said.get("prompt_tokens_details") if isinstance(said, Mapping) else None
    return Usage(
        prompt_tokens=number(said, "prompt_tokens"),
        completion_tokens=number(said, "completion_tokens"),
        cached_tokens=number(details, "cached_tokens"),
    )
