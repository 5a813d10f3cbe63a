"""curator's ``LLM`` on the same endpoint, with the endpoint's limits out of its way. See ../generation.py.

Offline: its tokenizer's vocabulary (cl100k_base, which it would download) lies in litellm's package, and litellm has
its price list along. The endpoint answers its probe of the rate limits, which comes before the clock starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

litellm = find_spec("litellm")
assert litellm is not None, "curator brings it"
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.origin or "").parent / "litellm_core_utils/tokenizers")

from bespokelabs import curator  # noqa: E402 - reads the environment when it is imported


class Ask(curator.LLM):  # type: ignore[misc]
    """System and user turn as they are given, the answer's text as it comes."""

    def prompt(self, input: dict[str, str]) -> list[dict[str, str]]:
        return [{"role": "system", "content": input["system"]}, {"role": "user", "content": input["user"]}]

    def parse(self, input: dict[str, str], response: str) -> dict[str, str]:
        return {"id": input["id"], "answer": response}


def main(data: str, url: str, folder: str, concurrency: str) -> None:
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    endpoint: dict[str, Any] = {"base_url": url, "api_key": "none", "max_concurrent_requests": int(concurrency)}
    endpoint |= {"max_requests_per_minute": 10**9, "max_tokens_per_minute": 10**12}
    llm = Ask(
        model_name="stub",
        backend="openai",
        backend_params=endpoint,
        generation_params={"max_tokens": 512, "temperature": 0.0},
    )
    before, started = os.times(), time.monotonic()
    made = llm(rows, working_dir=folder).dataset
    seconds, after = time.monotonic() - started, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    print(json.dumps({"rows": sum(bool(row["answer"]) for row in made), "seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:5])
