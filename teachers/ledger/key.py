"""The key of a request: one hash over everything that decides the answer, and over nothing else.

Same key, same answer: what the ledger holds under it is not asked, or paid, again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from ...tasks.images import Image
from ..teacher import Request

#: Raised when the meaning of the key changes: old rows are then not found, never mistaken for new ones.
KEY_VERSION = 1

#: What is no part of the key, and why: the published exclusion table.
EXCLUDED = {
    "a picture's path and type": "the same picture elsewhere is the same question",
    "the example's id": "two examples that ask the very same share one answer",
    "template name and digest": "only the words that reach the teacher count; both are kept in the row",
    "max_tokens": "an answer that stopped by itself does not depend on it; rows that met the limit are asked again "
    "when the limit is raised (see `Ledger.settled`)",
    "the teacher's spec string": "its identity says what matters of it",
    "host, batch size, timeouts, concurrency, retries": "they change when an answer arrives, not what it says",
    "budget and prices": "they decide whether a question is asked, not what is answered",
}


def request_key(
    request: Request,
    teacher_identity: Mapping[str, Any],
    image_hash: Callable[[Image], str] = Image.sha256,
) -> str:
    """SHA-256 over canonical JSON of everything that decides the answer.

    In the key: the key's version, the rendered messages (role, texts and pictures in order, the system turn
    included), each picture by the hash of its content, the strings at which the answer ends, the answer's JSON schema
    with its properties in order (a grammar makes the model answer in that order), the teacher's identity (model,
    revision, the endpoint's identity), temperature, seed and sample; and, only where they are asked for, that
    log-probabilities are (a row without them would not serve). What is left out stands in `EXCLUDED`.

    Args:
        image_hash: the content hash of a picture; pass a caching one where pictures recur.

    Raises:
        ImageFault: a picture cannot be read.
        TypeError: the teacher's identity holds something that is not JSON.
    """
    prompt = request.prompt
    facts = {
        "version": KEY_VERSION,
        "teacher": dict(teacher_identity),
        "messages": [
            {
                "role": message.role,
                "parts": [
                    {"text": part.text} if part.image is None else {"image": image_hash(part.image)}
                    for part in message.parts
                ],
            }
            for message in prompt.messages
        ],
        "stop": list(prompt.stop),
        "schema": None if prompt.answer_schema is None else json.dumps(prompt.answer_schema),
        "temperature": float(request.temperature),
        "seed": request.seed,
        "sample": request.sample,
    } | ({"logprobs": True} if request.logprobs else {})
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
