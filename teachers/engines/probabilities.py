"""How likely the model held each token of its answer: token texts that spell the answer, with log-probabilities.

Which distribution: the one a token was chosen from at temperature 1. Where an answer is held to a schema that is the
one **after** the grammar's mask (what was not allowed has no share), so a token that the grammar forces has
probability 1. `transformers` and `vllm` both keep to this; an endpoint does as its vendor says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

#: Token texts with natural-log probabilities.
Tokens = tuple[tuple[str, float], ...]

#: What stands for minus infinity, as OpenAI writes it: JSON has none.
LEAST = -9999.0


def token_texts(decode: Callable[[Sequence[int]], str], ids: Sequence[int], text: str) -> list[str]:
    """The part of ``text`` that each token adds; joined they are the text.

    A character spelled by several tokens stands with the last of them, and the others are empty, as are special tokens.

    Args:
        decode: tokens to text, as ``text`` was made of all of them.
        ids: the answer's tokens.
    """
    texts, at = [], 0
    for length in range(1, len(ids) + 1):
        start, known = at, decode(ids[:length])
        while at < min(len(known), len(text)) and known[at] == text[at]:
            at += 1
        texts.append(text[start:at])
    if texts:
        texts[-1] += text[at:]
    return texts


def spelling(texts: Iterable[str], logprobs: Iterable[float], text: str) -> Tokens:
    """The tokens that spell ``text``, which may be a part of what all of them spell (trimmed, or cut at a stop).

    A token that reaches beyond the text's ends gives the part within. Empty if the tokens do not hold the text.
    """
    said = list(zip(texts, logprobs, strict=True))
    whole = "".join(piece for piece, _ in said)
    first = 0 if whole.startswith(text) else whole.rfind(text)
    if first < 0 or not text:
        return ()
    kept: list[tuple[str, float]] = []
    parts: list[tuple[str, float]] = []  # the first pieces of a character that is not complete yet
    at, last = 0, first + len(text)
    for piece, logprob in said:
        inside = piece[max(first - at, 0) : max(last - at, 0)]
        at += len(piece)
        logprob = round(min(max(logprob, LEAST), 0.0), 6)
        if inside:
            kept += [*parts, (inside, logprob)]
        parts = [*parts, ("", logprob)] if not piece and first <= at < last else []
    return tuple(kept)
