"""What a teacher is: requests in, replies out as they finish, usage counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

from ..prompts.messages import Prompt
from ..tasks.record import Record

#: Why a teacher stopped: it was done, it ran into the token limit, or there is no answer.
Finish = Literal["stop", "length", "error"]

#: Why there is no answer: the connection or the engine failed; the endpoint says slow down; it declines to answer;
#: it takes no such request (key, model name, form); a picture cannot be read; the prompt is longer than the
#: model reads; the budget is spent; the answer is to come later (`batch`).
Failure = Literal["transport", "rate_limit", "refused", "rejected", "image", "too_long", "over_budget", "pending"]


class Request(Record):
    """One question to a teacher. ``key`` is made by the ledger out of everything that decides the answer.

    ``logprobs`` asks for `Reply.tokens` as well.
    """

    example: str
    prompt: Prompt
    sample: int = 0
    temperature: float = 0.0
    seed: int = 0
    logprobs: bool = False
    key: str = ""


def sampling_seed(request: Request) -> int:
    """The seed an engine draws with: samples of one request differ, and each can be drawn again."""
    return request.seed * 1000 + request.sample


class Usage(Record):
    """Tokens of one call, as the engine counts them; ``cached_tokens``: those of the prompt that it had read before."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Reply(Record):
    """What came back for one request: text as it was said, or a named failure with its detail.

    ``reasoning`` is what a reasoning model thought aloud, where the engine keeps it apart from the answer. ``tokens``
    are the texts of the answer's tokens, joined the text, with their natural-log probabilities, if asked for and given
    (`engines.probabilities` says of which distribution).
    """

    key: str
    text: str = ""
    reasoning: str = ""
    finish: Finish = "stop"
    failure: Failure | None = None
    detail: str = ""
    usage: Usage = Usage()
    seconds: float = 0.0
    tokens: tuple[tuple[str, float], ...] = ()


def failed(request: Request, failure: Failure, detail: str) -> Reply:
    """The reply to a request that has no answer."""
    return Reply(key=request.key, finish="error", failure=failure, detail=detail)


class Teacher(Protocol):
    """An engine that answers. One bad request gives one failed `Reply` and never stops the others."""

    #: The spec string that made it, for example ``hf:./model``.
    spec: str
    #: Whether it is given the pictures; if not, `describe.py` puts them into words first.
    sees_images: bool

    def identity(self) -> dict[str, Any]:
        """What tells this teacher from another in the ledger's key: model, revision, endpoint, dtype.

        Never a secret, and nothing that leaves the answers the same (host, batch size, timeouts).
        """
        ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply a request, in the order in which they finish."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...
