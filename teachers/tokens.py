"""How many tokens a request is estimated at, where nothing counts them: one stated rule for budgets and limits."""

from __future__ import annotations

from .teacher import Request

#: Where a teacher has no counter of its own: so many bytes of UTF-8 a token, so many tokens a picture.
BYTES_A_TOKEN = 4
TOKENS_A_PICTURE = 1_000


def count_tokens(request: Request) -> int:
    """A prompt's tokens by the stated rule: its bytes in UTF-8, and its pictures."""
    messages = request.prompt.messages
    return text_tokens("".join(m.text for m in messages)) + TOKENS_A_PICTURE * sum(len(m.images) for m in messages)


def text_tokens(text: str) -> int:
    """A text's tokens by the stated rule, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN)
